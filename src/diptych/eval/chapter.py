"""A chapter of an audit: a question, the numbers that answer it, and what could not be asked.

Every number is a `Result`, so two models' audits are paired row by row as any other two results are. Letters: n rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.errors import DataError
from diptych.eval.result import Conditions, DataId, ModelId, Result, Rows, interval_of
from diptych.eval.tasks import Prompts
from diptych.measures.binomial import clopper_pearson
from diptych.measures.compare import Comparison, holm

AUDIT_FORMAT = "diptych-audit-1"
SIGNIFICANT = 0.05  # of a p-value after Holm's correction


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two numbers of a chapter against each other."""

    name: str  # of A and B: "called non-human: 20-29 against 0-2"
    comparison: Comparison
    corrected: float  # p-value after Holm's correction over the contrasts of the chapter

    @property
    def is_significant(self) -> bool:
        return self.corrected < SIGNIFICANT


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A picture behind a number: a failure, for whoever reads the page."""

    key: str  # of the row
    caption: str  # what it shows, and what the model says
    picture: Image.Image | None = None  # small; not in the JSON file


@dataclass(frozen=True, kw_only=True, eq=False)
class Chapter:
    """One question to a model."""

    name: str  # also of the command: "class-design"
    title: str
    question: str  # one sentence, in plain words
    sentences: tuple[str, ...]  # what was found, in plain words with numbers; the first stands in the summary
    results: tuple[Result, ...]
    headline: Mapping[str, str] = field(default_factory=dict)  # part of the case of the number that stands for all
    contrasts: tuple[Contrast, ...] = ()
    examples: tuple[Example, ...] = ()
    not_measured: tuple[str, ...] = ()  # what was not, and why: groups without pictures, data that is not there
    notes: tuple[str, ...] = ()  # how the numbers may be read: "A drawing is no face."
    conditions: Mapping[str, str] = field(default_factory=dict)  # thresholds, sizes and draws that a number hangs on

    def __post_init__(self) -> None:
        cases = [(result.data, tuple(result.case.items()), result.metric) for result in self.results]
        if len(set(cases)) != len(cases):
            raise DataError(f"Results of chapter {self.name} must differ in their data, case or metric. Some do not.")

    @property
    def leading(self) -> Result | None:
        """The first result whose case has all of `headline`; where there is none, the first of all."""
        fitting = (result for result in self.results if self.headline.items() <= result.case.items())
        return next(fitting, self.results[0] if self.results else None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What was asked of a model, chapter by chapter."""

    model: ModelId
    conditions: Conditions
    chapters: tuple[Chapter, ...]
    not_measured: Mapping[str, str] = field(default_factory=dict)  # by chapter, why: its data is not there

    @property
    def results(self) -> list[Result]:
        return [result for chapter in self.chapters for result in chapter.results]


def share_of(
    keys: Sequence[str],
    happened: Tensor | np.ndarray,
    *,
    data: DataId,
    case: Mapping[str, str],
    prompts: Prompts,
    numbers: Mapping[str, float] | None = None,
    skipped: Mapping[str, int] | None = None,
) -> Result:
    """The share of rows on which something happened, with its exact (Clopper-Pearson) interval.

    Args:
        keys: n, of the rows.
        happened: [n] bool.
        data: what the rows are of.
        case: what sets the number apart in its chapter: {"called": "non-human", "group": "20-29"}.
        prompts: what the model was told.
        numbers: others that belong to it, as {"chance": 0.25}.
        skipped: pictures that could not be read, by cause.

    Raises:
        DataError: there is no row; a group without pictures is said, in `Chapter.not_measured`.
    """
    column = torch.as_tensor(happened).bool()
    if not len(column):
        raise DataError(f"A share needs at least one row. {', '.join(case.values())} has none.")
    count = int(column.sum())
    return Result(
        measurement="audit",
        kind="classification",
        data=data,
        case=dict(case),
        metric="share",
        value=count / len(column),
        interval=clopper_pearson(count, len(column)),
        n=len(column),
        numbers=dict(numbers or {}),
        prompts=prompts,
        skipped=dict(skipped or {}),
        rows=Rows(keys=tuple(keys), correct=column),
    )


def mean_of(
    keys: Sequence[str],
    credit: Tensor | np.ndarray,
    *,
    data: DataId,
    case: Mapping[str, str],
    prompts: Prompts,
    group: Tensor | None = None,
    numbers: Mapping[str, float] | None = None,
    skipped: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Result:
    """The mean of a number over rows, each in [0, 1], with a bootstrap interval.

    Args:
        keys: as in `share_of`, like all that follows and is not said here.
        credit: [n] float.
        data: the same.
        case: the same.
        prompts: the same.
        group: [n] int64; rows of one group are drawn together, as the wordings of one picture.
        numbers: the same.
        skipped: the same.
        seed: of the interval.

    Raises:
        DataError: there is no row.
    """
    column = torch.as_tensor(credit).double()
    if not len(column):
        raise DataError(f"A mean needs at least one row. {', '.join(case.values())} has none.")
    rows = Rows(keys=tuple(keys), credit=column, group=group)
    return Result(
        measurement="audit",
        kind="classification",
        data=data,
        case=dict(case),
        metric="mean",
        value=column.mean().item(),
        interval=interval_of(rows, "mean", seed=seed),
        n=len(column),
        numbers=dict(numbers or {}),
        prompts=prompts,
        skipped=dict(skipped or {}),
        rows=rows,
    )


def contrasts_of(named: Sequence[tuple[str, Comparison]]) -> tuple[Contrast, ...]:
    """All comparisons of a chapter, corrected together (Holm): of twenty such chapters one at most raises an alarm."""
    corrected = holm([comparison.p_value for _, comparison in named])
    return tuple(
        Contrast(name=name, comparison=comparison, corrected=p)
        for (name, comparison), p in zip(named, corrected, strict=True)
    )


def said(result: Result) -> str:
    """A share or mean with its interval and n, as a sentence takes it: "35.0 % (32.1 to 38.0 %; n = 1,000)"."""
    assert result.interval is not None
    low, high = 100 * result.interval.low, 100 * result.interval.high
    return f"{100 * result.value:.1f} % ({low:.1f} to {high:.1f} %; n = {result.n:,})"
