"""`diptych audit scenes`: relations, counts, negation and the order of words, on drawn scenes."""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions


def scenes(
    model: str,
    *,
    data: list[Path] | None = None,
    pairs: PositiveInt = 50,
    counts: PositiveInt = 200,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Ask how things stand to each other in scenes that are drawn for it: relations, sizes, colours, negation, counts.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        A set of right and wrong captions to ask about as well, as SugarCrepe's or ARO's; may be given several times.
    pairs
        Pairs of scenes for each task, material and kind of wrong caption.
    counts
        Scenes of one to ten things, of each material.
    out
        A folder for scenes.json.
    seed
        Of the scenes and the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from diptych.audit.scenes import scenes as chapter_of
    from diptych.sets.choices import read_choices

    given = [read_choices(folder) for folder in data or ()]
    features = ModelOptions(model=model, seed=seed, batch_size=batch_size, truncate=True).features()
    tell_chapter(
        chapter_of(features, pairs=pairs, counts=counts, given=given, seed=seed),
        out,
        features=features,
        model=model,
        seed=seed,
    )
