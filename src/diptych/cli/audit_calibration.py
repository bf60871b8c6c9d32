"""`diptych audit calibration`: is a model as sure as it is right?"""

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import AS_DRAWN, ProbeOptions


def calibration(
    model: str,
    *,
    options: ProbeOptions = AS_DRAWN,
) -> None:
    """Hold probabilities against what is right, class by class, and see whether a threshold keeps unknown things out.

    One class of five is made unknown: nobody names it. A threshold on the highest probability is chosen on half of
    these classes and measured on the others.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    """
    from diptych.audit.calibration import calibration as chapter_of

    features = options.features(model)
    tell_chapter(
        chapter_of(features, options.labelled(), seed=options.seed),
        options.out,
        features=features,
        model=model,
        seed=options.seed,
    )
