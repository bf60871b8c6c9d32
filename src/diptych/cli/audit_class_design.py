"""`diptych audit class-design`: how often people get labels that are no person's, by group."""

from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions


def class_design(
    model: str,
    *,
    data: Path,
    split: str = "test",
    groups: Path | None = None,
    by: list[str] | None = None,
    labels: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Measure how often pictures of people get labels of non-humans or of crime, by group (CLIP, section 7.1).

    Once with the paper's labels and once with "child" beside them, in two prompt sets; exact intervals, each group
    against the rest, corrected together (Holm).

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        Pictures of people with groups: FairFace, UTKFace, PHASE, or one's own.
    split
        Which split of the set.
    groups
        A CSV file of groups by key or file name; by default the set's own, or groups.csv in the folder.
    by
        Kinds of groups, such as age; may be given several times. By default all.
    labels
        A TOML file of prompts and labels, in the layout of diptych/audit/probes.toml.
    out
        A folder for class-design.json.
    seed
        Of the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from diptych.audit.class_design import class_design as chapter_of
    from diptych.audit.probes import read_probes
    from diptych.sets.grouped import read_grouped

    probes = read_probes(labels)
    pictures = read_grouped(data, split=split, table=groups)
    features = ModelOptions(model=model, batch_size=batch_size).features()
    chapter = chapter_of(features, pictures, labels=probes.class_design, prompts=probes.prompts, by=by, seed=seed)
    tell_chapter(chapter, out, features=features, model=model, seed=seed)
