"""`diptych audit shortcuts`: what answers follow."""

from cyclopts.types import PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import AS_DRAWN, ProbeOptions


def shortcuts(
    model: str,
    *,
    pictures: PositiveInt = 200,
    options: ProbeOptions = AS_DRAWN,
) -> None:
    """Change what should not matter (background, colour, borders, resolution), and count what answers follow.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    pictures
        How many are drawn of the set; the classes are those of the drawn pictures.
    """
    from diptych.audit.shortcuts import shortcuts as chapter_of

    features = options.features(model)
    tell_chapter(
        chapter_of(features, options.labelled(), pictures=pictures, seed=options.seed),
        options.out,
        features=features,
        model=model,
        seed=options.seed,
    )
