"""A package that knows diptych, and that diptych does not know: what a recipe may name of somebody else's."""
