"""`diptych audit calibration`: is a model as sure as it is right?"""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions
from diptych.data.embedded import HELD_OUT, data_path


def calibration(
    model: str,
    *,
    data: str = HELD_OUT,
    split: str = "test",
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Hold probabilities against what is right, class by class, and see whether a threshold keeps unknown things out.

    One class of five is made unknown: nobody names it. A threshold on the highest probability is chosen on half of
    these classes and measured on the others.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        A labelled set, in any layout that `diptych evaluate zero-shot` reads. By default drawings that are embedded.
    split
        Which split of the set.
    out
        A folder for calibration.json.
    seed
        Of the classes that are made unknown, and of the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from diptych.audit.calibration import calibration as chapter_of
    from diptych.sets.open import read_labelled

    labelled = read_labelled(data_path(data), split=split)
    features = ModelOptions(model=model, seed=seed, batch_size=batch_size, truncate=True).features()
    tell_chapter(chapter_of(features, labelled, seed=seed), out, features=features, model=model, seed=seed)
