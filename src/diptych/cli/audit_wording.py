"""`diptych audit wording`: accuracy over many wordings of one question."""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions
from diptych.data.embedded import HELD_OUT, data_path


def wording(
    model: str,
    *,
    data: str = HELD_OUT,
    split: str = "test",
    pictures: PositiveInt = 300,
    wordings: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Ask about the same pictures in many wordings: templates, articles, plural, capitals, typos, other languages.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        A labelled set, in any layout that `diptych evaluate zero-shot` reads. By default drawings that are embedded.
    split
        Which split of the set.
    pictures
        How many are drawn of it; the classes are those of the drawn pictures.
    wordings
        A TOML file of wordings, of which the first is the one to compare with, in place of those that ship.
    out
        A folder for wording.json.
    seed
        Of the pictures, the typos and the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from diptych.audit.wording import read_wordings
    from diptych.audit.wording import wording as chapter_of
    from diptych.sets.open import read_labelled

    asked = read_wordings(wordings) if wordings else None
    labelled = read_labelled(data_path(data), split=split)
    features = ModelOptions(model=model, seed=seed, batch_size=batch_size, truncate=True).features()
    tell_chapter(
        chapter_of(features, labelled, pictures=pictures, wordings=asked, seed=seed),
        out,
        features=features,
        model=model,
        seed=seed,
    )
