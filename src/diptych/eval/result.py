"""What a measurement gives: one frozen `Result`, whatever was measured, with its conditions and its rows.

Rows are what the metric counts: it can be made anew from any draw of them, for intervals and for paired tests. Letters:
n rows, C classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from diptych.errors import DataError, ShapeError
from diptych.eval.tasks import Kind, Prompts
from diptych.eval.zero_shot import Rejection, Temperature
from diptych.measures import metrics
from diptych.measures.calibration import Reliability, reliability
from diptych.measures.few_shot import FewShotPoint
from diptych.measures.metrics import Interval, bootstrap_interval, bootstrap_of
from diptych.measures.rare_actions import mean_weighted_precision
from diptych.measures.retrieval import RetrievalResult

Measurement = Literal["zero-shot", "linear-probe", "retrieval", "audit"]

_FEW = 300  # resamples of what takes long
_MADE_ANEW = ("mean per class", "ROC AUC", "11-point mAP", "mWAP", "expected calibration error")  # no means over rows


@dataclass(frozen=True, kw_only=True)
class DataId:
    """Which pictures: one split of a set."""

    name: str  # of the folder; of the row of the table of tasks where two rows share a folder
    split: str
    sha256: str = ""  # of the split, from `digest`; empty where nobody asked for it

    @property
    def title(self) -> str:
        """Set and split; of the usual split the set alone."""
        return self.name if self.split == "test" else f"{self.name}, {self.split}"


@dataclass(frozen=True, kw_only=True)
class ModelId:
    """Which model."""

    name: str = ""  # or path, as it was asked for
    fingerprint: str = ""  # see `Bundle.fingerprint`


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a result hangs on beside model, data and prompts; the hardware moves no more than last digits."""

    seed: int  # of whatever was drawn
    precision: str = "float32"
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FewShotScore:
    """One point of a learner's few-shot curve."""

    learner: str
    point: FewShotPoint


@dataclass(frozen=True, kw_only=True)
class ProbeFit:
    """How a linear probe came about, and zero-shot on the same pictures beside it."""

    train: DataId
    validation: str  # name of the split, or the share of each class that was held out
    validation_sha256: str = ""
    train_examples: int  # that were fitted
    validation_examples: int
    a_class: float  # labelled pictures a class, both together
    l2: float
    loss: float  # nats an example, penalty included
    converged: bool
    tried: Mapping[float, float]  # strength -> score on the validation examples
    zero_shot: float  # top-1
    zero_shot_interval: Interval
    few_shot: tuple[FewShotScore, ...] = ()
    worth: float | None = None  # labelled pictures a class that the names are worth; None: more, or nobody asked
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by split and cause


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """n rows: pictures, clips, anchors, captions, ...; what the metric does not need is None."""

    keys: tuple[str, ...]  # n of them, unique: file names or keys of the set
    correct: Tensor | None = None  # [n] bool; a tie is a miss
    credit: Tensor | None = None  # [n] float64, of which the metric is the mean where `correct` does not say it all
    targets: Tensor | None = None  # [n] int64, the class
    predictions: Tensor | None = None  # [n] int64; of classes that tie the first
    confidences: Tensor | None = None  # [n] float, the highest probability
    group: Tensor | None = None  # [n] int64; rows of one group are drawn together, as the captions of one picture
    folds: Tensor | None = None  # [n, folds] bool
    scores: Tensor | None = None  # [n, C] float, of which the order in a column counts; of an AUC [n, 1]
    shown: Tensor | None = None  # [n, C] bool, whether a picture shows a class
    counted: Tensor | None = None  # [n, C] bool; False where it is too difficult to count either way
    judged: Tensor | None = None  # [n] int64, see `RareActions`
    film: Tensor | None = None  # [n] int64, likewise
    actions: tuple[tuple[str, str], ...] = ()  # verb and noun of each class, likewise

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in vars(self).items() if isinstance(column, Tensor)}
        if any(length != len(self.keys) for length in lengths.values()):
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ShapeError(f"Rows must be columns of one length, that of the keys, {len(self.keys)}. Got {found}.")

    def __len__(self) -> int:
        return len(self.keys)

    def chosen(self, rows: Sequence[int]) -> "Rows":
        """Some of the rows, in that order."""
        columns = {
            name: column[list(rows)] for name, column in vars(self).items() if isinstance(column, Tensor)
        }  # fmt: skip
        return dataclasses.replace(self, keys=tuple(self.keys[row] for row in rows), **columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """One number and its conditions. Shares lie between 0 and 1; ties count against the model."""

    measurement: Measurement
    kind: Kind
    task: str = ""  # row of the table of tasks, where it is one
    data: DataId
    case: Mapping[str, str] = field(default_factory=dict)  # of an audit: what sets it apart, {"group": "20-29"}
    model: ModelId = field(default_factory=ModelId)
    metric: str
    value: float
    interval: Interval | None = None  # of `value`, 95 %: bootstrap over rows; of an audit's shares exact
    n: int  # what the metric counts: pictures, clips, captions, ...
    numbers: Mapping[str, float] = field(default_factory=dict)  # others by name, e.g. "top-5", "within 1 km"
    prompts: Prompts
    skipped: Mapping[str, int] = field(default_factory=dict)  # pictures that could not be read, by cause
    shortened: int = 0  # texts that were too long for the model and were cut
    conditions: Conditions | None = None
    rows: Rows
    reliability: Reliability | None = None  # of classifiers
    temperature: Temperature | None = None
    rejection: Rejection | None = None
    probe: ProbeFit | None = None
    retrieval: RetrievalResult | None = None

    @property
    def title(self) -> str:
        return ", ".join([self.data.title, self.measurement, *self.case.values()])

    @property
    def other_numbers(self) -> dict[str, float]:
        """`numbers` without the one that is the metric once more."""
        same = {"accuracy": "top-1"}.get(self.metric, self.metric)
        return {name: value for name, value in self.numbers.items() if name != same}

    @property
    def left_out(self) -> int:
        """Pictures that could not be read, of all splits."""
        by_split = self.probe.skipped.values() if self.probe else [self.skipped]
        return sum(sum(causes.values()) for causes in by_split)


def credits_of(rows: Rows, metric: str) -> Tensor | None:
    """[n] float64, of which the metric is the mean; None where it is no mean over rows."""
    if metric in _MADE_ANEW or _has_folds(rows, metric):
        return None
    column = rows.correct if rows.credit is None else rows.credit
    return _there(column, metric).double()


def is_right_or_wrong(rows: Rows, metric: str) -> bool:
    """Whether the metric is the share of rows that are right, each row standing for itself."""
    return rows.credit is None and rows.group is None and credits_of(rows, metric) is not None


def metric_of(rows: Rows, metric: str, drawn: np.ndarray | None = None) -> float:
    """The metric of some rows.

    Args:
        rows: n of them.
        metric: see `Metric`.
        drawn: positions, with repeats; all by default.

    Raises:
        DataError: the rows lack what the metric needs, or it is not defined on this draw.
    """
    some = np.arange(len(rows)) if drawn is None else drawn
    match metric:
        case "mean per class":
            return metrics.mean_per_class(_there(rows.correct, metric)[some], _there(rows.targets, metric)[some])
        case "ROC AUC":
            return metrics.roc_auc(_there(rows.scores, metric)[some, 0], _there(rows.targets, metric)[some])
        case "expected calibration error":
            sure, right = _there(rows.confidences, metric)[some], _there(rows.correct, metric)[some]
            return reliability(sure, right).expected_error
        case "11-point mAP":
            return metrics.average_precision_11_point(
                _there(rows.scores, metric)[some],
                _there(rows.shown, metric)[some],
                counted=_there(rows.counted, metric)[some],
            )
        case "mWAP":
            columns = (rows.scores, rows.targets, rows.judged, rows.film)
            scores, targets, judged, film = (_there(column, metric).numpy()[some] for column in columns)
            return mean_weighted_precision(scores, targets, judged, film, rows.actions)
        case _ if _has_folds(rows, metric):
            return _mean_over_folds(
                _there(rows.correct, metric).numpy()[some], _there(rows.folds, metric).numpy()[some]
            )
        case _:
            each = credits_of(rows, metric)
            assert each is not None
            return each[some].mean().item()


def interval_of(rows: Rows, metric: str, *, seed: int) -> Interval:
    """95 % bootstrap of the metric over rows.

    Raises:
        DataError: the rows lack what the metric needs.
    """
    each = credits_of(rows, metric)
    if each is not None:
        return bootstrap_interval(each, seed=seed, group=rows.group)
    return bootstrap_of(lambda drawn: metric_of(rows, metric, drawn), len(rows), seed=seed, samples=_FEW)


def in_common(a: Rows, b: Rows) -> tuple[Rows, Rows]:
    """The rows of two models that have the same key, in the order of the first."""
    row_of = {key: row for row, key in enumerate(b.keys)}
    common = [row for row, key in enumerate(a.keys) if key in row_of]
    return a.chosen(common), b.chosen([row_of[a.keys[row]] for row in common])


def _has_folds(rows: Rows, metric: str) -> bool:
    return metric == "mean of 3 splits" and rows.folds is not None


def _mean_over_folds(correct: np.ndarray, folds: np.ndarray) -> float:
    if not folds.any(axis=0).all():
        raise DataError("Each split must have a clip.")
    return float(np.mean([correct[fold].mean() for fold in folds.T]))


def _there(column: Tensor | None, metric: str) -> Tensor:
    if column is None:
        raise DataError(f"Rows must hold what {metric} is made from. They do not: measure again.")
    return column
