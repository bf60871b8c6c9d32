"""Drawings for diptych: the pairs that its demo trains on, the sets that audits ask about, and a model made of them.

Whoever uses a model needs none of them, so they are a package of their own: pip install diptych-pictograms. In a clone
they lie beside diptych.
"""
