"""`diptych audit surveillance`: scenes with captions that nearly fit, and people by name."""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions
from diptych.errors import ConfigError


def surveillance(
    model: str,
    *,
    data: Path | None = None,
    names: Path | None = None,
    split: str = "test",
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Measure whether the model tells scenes apart, and whether it tells people by name (CLIP, section 7.2).

    Of scenes: the right caption among others, and with one that nearly fits beside it. Of people: how often a name is
    told among 100, 1,000 and 2,000. The second is a warning about a model; diptych has no command that names people.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        captions.csv with the columns picture, right, near_miss, others ("|" between), kind (coarse or fine), or its
        folder.
    names
        Labelled pictures of people, with a class for each name.
    split
        Of the labelled pictures.
    out
        A folder for surveillance.json.
    seed
        Of the names that are drawn, and of the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    if not data and not names:
        raise ConfigError("surveillance takes scenes with captions, --data, or people by name, --names. Got neither.")
    from diptych.audit.surveillance import surveillance as chapter_of
    from diptych.sets.near_misses import read_near_misses
    from diptych.sets.open import read_labelled

    features = ModelOptions(model=model, batch_size=batch_size).features()
    chapter = chapter_of(
        features,
        read_near_misses(data) if data else None,
        read_labelled(names, split=split) if names else None,
        seed=seed,
    )
    tell_chapter(chapter, out, features=features, model=model, seed=seed)
