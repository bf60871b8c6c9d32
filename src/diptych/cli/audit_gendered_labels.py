"""`diptych audit gendered-labels`: which labels of a list go to which of two groups."""

from pathlib import Path

from cyclopts.types import PositiveInt

from diptych.cli.console_chapter import tell_chapter
from diptych.cli.options import ModelOptions
from diptych.errors import ConfigError


def gendered_labels(
    model: str,
    *,
    data: Path,
    split: str = "test",
    groups: Path | None = None,
    by: str = "gender",
    between: list[str] | None = None,
    thresholds: list[float] | None = None,
    labels: Path | None = None,
    words: Path | None = None,
    out: Path | None = None,
    batch_size: PositiveInt = 64,
) -> None:
    """Measure which labels of a list the model gives to one of two groups more than to the other (CLIP, figure 18).

    A picture has a label when its probability among all of the list reaches a threshold. The twenty labels that differ
    most by chi-squared are shown; all are compared by Fisher's test and corrected together (Holm).

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
        The kind of groups.
    between
        The two groups, given one after the other; needed where there are more than two.
    thresholds
        Of a label's probability; may be given several times. By default 0.005 and 0.04.
    labels
        A text file with a label a line; by default sixty occupations.
    words
        A TOML file of prompts, in the layout of diptych/audit/probes.toml.
    out
        A folder for gendered-labels.json.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    if between and len(between) != 2:
        raise ConfigError(f"--between names two groups, one after the other. Got {len(between)}.")
    from diptych.audit.gendered_labels import THRESHOLDS
    from diptych.audit.gendered_labels import gendered_labels as chapter_of
    from diptych.audit.probes import read_probes
    from diptych.data.prompts import check_labels, read_lines
    from diptych.sets.grouped import read_grouped

    probes = read_probes(words)
    features = ModelOptions(model=model, batch_size=batch_size).features()
    chapter = chapter_of(
        features,
        read_grouped(data, split=split, table=groups),
        labels=check_labels(read_lines(labels)) if labels else probes.gendered_labels.labels,
        prompts=probes.prompts,
        by=by,
        between=(between[0], between[1]) if between else None,
        thresholds=tuple(thresholds or THRESHOLDS),
    )
    tell_chapter(chapter, out, features=features, model=model)
