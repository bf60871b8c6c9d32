"""`diptych audit by-group`: accuracy of each group of a labelled set."""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import BY_THE_RULE, ModelOptions, PromptOptions
from diptych.data.embedded import data_path


def by_group(
    model: str,
    *,
    data: str,
    split: str = "test",
    groups: Path | None = None,
    by: list[str] | None = None,
    prompts: PromptOptions = BY_THE_RULE,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Measure accuracy by group: region, income, skin tone, light, camera, whatever a table tells of the pictures.

    Worst group and gap, beside the gap that chance makes of groups this large; each group against the rest, corrected
    together (Holm).

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        Labelled pictures with groups: Dollar Street, GeoDE, GROUP/CLASS/picture.jpg, or any labelled set with a table.
    split
        Which split of the set.
    groups
        A CSV file of groups by key or file name; by default the set's own, or groups.csv in the folder.
    by
        Kinds of groups, such as region; may be given several times. By default all.
    out
        A folder for by-group.json.
    seed
        Of the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    templates = prompts.read()

    from diptych.audit.by_group import by_group as chapter_of
    from diptych.sets.grouped import read_grouped

    pictures = read_grouped(data_path(data), split=split, table=groups)
    features = ModelOptions(model=model, batch_size=batch_size).features()
    tell_chapter(
        chapter_of(features, pictures, by=by, templates=templates, seed=seed),
        out,
        features=features,
        model=model,
        seed=seed,
    )
