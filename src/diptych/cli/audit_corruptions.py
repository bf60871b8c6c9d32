"""`diptych audit corruptions`: accuracy as pictures get worse."""

from cyclopts.types import PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import AS_DRAWN, ProbeOptions


def corruptions(
    model: str,
    *,
    pictures: PositiveInt = 100,
    options: ProbeOptions = AS_DRAWN,
) -> None:
    """Measure accuracy under noise, blur, changes of light, blocks and bends, at five severities as in ImageNet-C.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    pictures
        How many are drawn of the set; the classes are those of the drawn pictures.
    """
    from diptych.audit.corruptions import corruptions as chapter_of

    features = options.features(model)
    tell_chapter(
        chapter_of(features, options.labelled(), pictures=pictures, seed=options.seed),
        options.out,
        features=features,
        model=model,
        seed=options.seed,
    )
