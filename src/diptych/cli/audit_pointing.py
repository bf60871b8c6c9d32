"""`diptych audit pointing`: does a model look where the thing is?"""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions
from diptych.data.embedded import HELD_OUT, data_path


def pointing(
    model: str,
    *,
    data: str = HELD_OUT,
    split: str = "test",
    scenes: PositiveInt = 100,
    curves: PositiveInt = 16,
    size: PositiveInt | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
) -> None:
    """Put pictures side by side, and see whether the maps of their names point at the right ones.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        A labelled set, in any layout that `diptych evaluate zero-shot` reads. By default drawings that are embedded.
    split
        Which split of the set.
    scenes
        Scenes of two pictures, and as many of four.
    curves
        Scenes of two that are covered, and uncovered, piece by piece.
    size
        Pixels of the longer side that a scene is looked at with; by default twice the model's own.
    out
        A folder for pointing.json.
    seed
        Of the scenes, the random orders and the intervals.
    """
    from diptych.audit.pointing import pointing as chapter_of
    from diptych.sets.open import read_labelled

    labelled = read_labelled(data_path(data), split=split)
    features = ModelOptions(model=model, seed=seed, truncate=True).features()
    chapter = chapter_of(features, labelled, scenes=scenes, curves=curves, image_size=size, seed=seed)
    tell_chapter(chapter, out, features=features, model=model, seed=seed)
