"""`diptych audit wording`: accuracy over many wordings of one question."""

from pathlib import Path

from cyclopts.types import PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import AS_DRAWN, ProbeOptions


def wording(
    model: str,
    *,
    pictures: PositiveInt = 300,
    wordings: Path | None = None,
    options: ProbeOptions = AS_DRAWN,
) -> None:
    """Ask about the same pictures in many wordings: templates, articles, plural, capitals, typos, other languages.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    pictures
        How many are drawn of the set; the classes are those of the drawn pictures.
    wordings
        A TOML file of wordings, of which the first is the one to compare with, in place of those that ship.
    """
    from diptych.audit.wording import read_wordings
    from diptych.audit.wording import wording as chapter_of

    asked = read_wordings(wordings) if wordings else None
    features = options.features(model)
    tell_chapter(
        chapter_of(features, options.labelled(), pictures=pictures, wordings=asked, seed=options.seed),
        options.out,
        features=features,
        model=model,
        seed=options.seed,
    )
