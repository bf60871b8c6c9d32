"""`diptych audit shortcuts`: what answers follow."""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions
from diptych.data.embedded import HELD_OUT, data_path


def shortcuts(
    model: str,
    *,
    data: str = HELD_OUT,
    split: str = "test",
    pictures: PositiveInt = 200,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Change what should not matter (background, colour, borders, resolution), and count what answers follow.

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
    out
        A folder for shortcuts.json.
    seed
        Of the pictures, what they are composed with, and the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from diptych.audit.shortcuts import shortcuts as chapter_of
    from diptych.sets.open import read_labelled

    labelled = read_labelled(data_path(data), split=split)
    features = ModelOptions(model=model, seed=seed, batch_size=batch_size, truncate=True).features()
    tell_chapter(
        chapter_of(features, labelled, pictures=pictures, seed=seed), out, features=features, model=model, seed=seed
    )
