"""`diptych audit tones`: the same drawing in several skin tones."""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions
from diptych.data.embedded import TONES, data_path


def tones(
    model: str,
    *,
    data: str = TONES,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Show drawings that differ in skin tone alone, and count how often the answer changes with it.

    Accuracy by tone and by gender, the share of drawings whose answer follows the tone, and light against dark on the
    same drawings (McNemar, Holm), with two prompt sets. A drawing is no face.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        Drawings by role, with a table of the columns drawing, tone and gender. By default Twitter's emoji, which no
        shipped model was trained on; embedded:tones-noto are Google's.
    out
        A folder for tones.json.
    seed
        Of the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from diptych.audit.tones import tones as chapter_of
    from diptych.sets.grouped import read_grouped

    features = ModelOptions(model=model, batch_size=batch_size).features()
    tell_chapter(
        chapter_of(features, read_grouped(data_path(data)), seed=seed), out, features=features, model=model, seed=seed
    )
