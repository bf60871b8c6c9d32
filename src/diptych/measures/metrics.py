"""Accuracy, mean per class, precision, AUC, recall@k and their error bars, on arrays alone.

Which data set is scored by which: CLIP, arXiv:2103.00020, table 9. Everywhere a tie counts against us, and so does a
score that is NaN: a constant scorer gets nothing right by luck. Letters: N, C, Q.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diptych.errors import ConfigError, DataError, ShapeError

Array = Tensor | np.ndarray

_DRAWS_AT_ONCE = 1 << 20  # of the bootstrap: 8 MiB of indices


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    level: float  # share of intervals that would cover the true value, e.g. 0.95


def top_k_correct(scores: Array, targets: Array, k: int) -> Tensor:
    """Whether the target is among the k best classes.

    A class that scores as high as the target is placed before it. So is one that scores NaN, and a target that scores
    NaN comes last.

    Args:
        scores: [N, C], higher is better.
        targets: [N], class numbers from 0 to C - 1.
        k: 1 <= k <= C.

    Returns:
        [N] bool, on the device of `scores`.

    Raises:
        ShapeError: scores and targets do not fit, or k does not lie between 1 and C.
        DataError: nothing to score, or a target is no class.
    """
    scores = _tensor(scores)
    targets = _tensor(targets).to(scores.device).long()
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ShapeError(f"scores {list(scores.shape)} and targets {list(targets.shape)} must be [N, C] and [N].")
    _check_k(k, "classes", scores)
    if targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise DataError(
            f"targets must be class numbers from 0 to {scores.shape[1] - 1}, one for each column of scores. "
            f"Got {targets.min().item()} to {targets.max().item()}."
        )
    of_target = scores.gather(1, targets[:, None])  # [N, 1]
    not_behind = (~(scores < of_target)).sum(dim=1)  # [N], the target itself, ties and NaN included
    return not_behind <= k


def top_k_accuracy(scores: Array, targets: Array, k: int) -> float:
    """Share of rows whose target is among the k best classes, by the rules of `top_k_correct`.

    >>> scores = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
    >>> top_k_accuracy(scores, torch.tensor([0, 0]), 1)  # the second row is a tie
    0.5
    """
    return top_k_correct(scores, targets, k).double().mean().item()


def mean_per_class(correct: Array, targets: Array) -> float:
    """Unweighted mean over classes of the share that is correct; a class without a row has no say.

    Args:
        correct: [N] bool.
        targets: [N], class numbers from 0.

    Raises:
        ShapeError: the two differ in N.
        DataError: they are empty.
    """
    correct, targets = _paired(correct, targets, "correct", "targets")
    rows = torch.bincount(targets)  # [C]
    hits = torch.bincount(targets, weights=correct.double())
    return (hits[rows > 0] / rows[rows > 0]).mean().item()


def mean_of_top1_and_top5(scores: Array, targets: Array) -> float:
    """(top-1 + top-5) / 2, the score of Kinetics.

    Raises:
        ShapeError: scores and targets do not fit, or there are fewer than five classes.
        DataError: nothing to score, or a target is no class.
    """
    return (top_k_accuracy(scores, targets, 1) + top_k_accuracy(scores, targets, 5)) / 2


@dataclass(frozen=True)
class FoldAccuracy:
    mean: float  # over folds, each counting the same
    by_fold: tuple[float, ...]


def accuracy_by_fold(correct: Array, fold: Array) -> FoldAccuracy:
    """Accuracy of each fold, and their mean.

    STL10 has ten folds to train on and one test set, so its rows are the test set once for each fold; UCF101 has three
    splits with test pictures of their own.

    Args:
        correct: [N] bool, the rows of all folds.
        fold: [N], number of the fold of each row, from 0; each number has a row.

    Raises:
        ShapeError: the two differ in N.
        DataError: they are empty, or a fold has no row.
    """
    correct, fold = _paired(correct, fold, "correct", "fold")
    rows = torch.bincount(fold)
    if (rows == 0).any():
        raise DataError(f"Each fold must have a row. Fold {int(rows.argmin())} of {len(rows)} has none: is it missing?")
    shares = torch.bincount(fold, weights=correct.double()) / rows
    return FoldAccuracy(shares.mean().item(), tuple(shares.tolist()))


def average_precision(scores: Array, targets: Array, *, counted: Array | None = None) -> float:
    """Mean over classes of the area under precision and recall, each class a ranking of all rows (multi-label mAP).

    The mean of the precision at each positive, as scikit-learn and clip-benchmark have it; not the paper's figure for
    VOC2007, which is `average_precision_11_point`.

    Args:
        scores: [N, C], higher is likelier; only their order within a class counts.
        targets: [N, C] bool, whether row n shows class c. A class without a positive has no say.
        counted: [N, C] bool; False leaves a row out of a class's ranking, as VOC does with what is too difficult.

    Raises:
        ShapeError: they differ in shape.
        DataError: there is no positive at all.
    """
    return _mean_over_classes(scores, targets, counted, lambda precision: precision.mean().item())


def average_precision_11_point(scores: Array, targets: Array, *, counted: Array | None = None) -> float:
    """11-point mAP, the score of Pascal VOC 2007: the best precision at recall 0, 0.1, ... 1 or above, averaged.

    Everingham et al., "The Pascal Visual Object Classes challenge", section 4.2. Arguments and errors are those of
    `average_precision`.

    >>> scores = torch.tensor([[0.9], [0.8], [0.7]])  # ranks: positive, negative, positive
    >>> round(average_precision_11_point(scores, torch.tensor([[1], [0], [1]])), 4)  # (6 * 1 + 5 * 2 / 3) / 11
    0.8485
    """

    def eleven_points(precision: Tensor) -> float:
        best_from_here = precision.flip(0).cummax(dim=0).values.flip(0)
        # Recall t / 10 is first reached at positive ceil(t P / 10); in whole numbers, as 0.3 P may round up.
        reached_at = [max(0, -(-tenth * len(precision) // 10) - 1) for tenth in range(11)]
        return best_from_here[reached_at].mean().item()

    return _mean_over_classes(scores, targets, counted, eleven_points)


def roc_auc(scores: Array, targets: Array) -> float:
    """Share of pairs of a positive and a negative row in which the positive scores higher; chance is 0.5.

    A tied pair counts nothing, where the usual AUC gives it one half: a constant scorer has 0.

    Args:
        scores: [N]; of two classes the score of the second minus that of the first.
        targets: [N] bool, or 0 and 1.

    Raises:
        ShapeError: the two differ in N.
        DataError: there is no positive or no negative row.
    """
    scores, positive = _paired(scores, targets, "scores", "targets")
    if ((positive != 0) & (positive != 1)).any():
        raise DataError(f"targets must be 0 or 1, or bool. Got {positive.min().item()} to {positive.max().item()}.")
    of_positives, of_negatives = scores[positive == 1], scores[positive == 0]
    if not len(of_positives) or not len(of_negatives):
        raise DataError(
            f"AUC needs rows of both kinds. Got {len(of_positives):,} positive and {len(of_negatives):,} negative."
        )
    comparable = of_negatives[~of_negatives.isnan()].sort().values  # a NaN lies behind nothing
    behind = torch.searchsorted(comparable, of_positives.contiguous())  # how many score strictly lower
    behind[of_positives.isnan()] = 0  # torch sorts it to the top
    return behind.double().mean().item() / len(of_negatives)


def best_match_rank(scores: Array, is_match: Array) -> Tensor:
    """Place of the best match of each query, from 1; ties and NaN go before it.

    Args:
        scores: [Q, N], higher is nearer.
        is_match: [Q, N] bool, at least one True a row.

    Returns:
        [Q] int64, on the device of `scores`.

    Raises:
        ShapeError: the two differ in shape.
        DataError: there is no query, or one has no match.
    """
    scores = _tensor(scores)
    is_match = _tensor(is_match).to(scores.device).bool()
    if scores.ndim != 2 or scores.shape != is_match.shape:
        raise ShapeError(f"scores {list(scores.shape)} and is_match {list(is_match.shape)} must both be [Q, N].")
    _check_not_empty(scores)
    without = (~is_match.any(dim=1)).sum().item()
    if without:
        raise DataError(f"Each query must have a match. {without:,} of {len(scores):,} have none: leave them out.")
    # Of several matches one that scores NaN must not hide the others; if all do, nothing lies behind.
    best_match = scores.masked_fill(~is_match | scores.isnan(), -torch.inf).amax(dim=1, keepdim=True)  # [Q, 1]
    behind = scores < best_match  # false for a tie, and for NaN
    return (~behind & ~is_match).sum(dim=1) + 1  # wrong items in front, and the match


def recall_at_k(scores: Array, is_match: Array, k: int) -> float:
    """Share of queries that have at least one match among their k best items.

    Each query counts 0 or 1, however many matches it has. A tie counts against us: an item that scores as high as the
    best match is placed before it. So is one that scores NaN.

    Args:
        scores: [Q, N], higher is nearer.
        is_match: [Q, N] bool, at least one True a row.
        k: 1 <= k <= N.

    Raises:
        ShapeError: the two differ in shape, or k does not lie between 1 and N.
        DataError: there is no query, or one has no match.
    """
    ranks = best_match_rank(scores, is_match)
    _check_k(k, "items", _tensor(scores))
    return (ranks <= k).double().mean().item()


def check_level(level: float) -> None:
    """Raises ConfigError when the level of an interval does not lie between 0 and 1."""
    if not 0 < level < 1:
        raise ConfigError(f"level must lie between 0 and 1. Got {level}.")


def bootstrap_interval(
    correct: Array, *, seed: int, level: float = 0.95, samples: int = 10_000, group: Array | None = None
) -> Interval:
    """Percentile bootstrap of a mean over rows.

    Args:
        correct: [N], 0/1 or any finite numbers.
        seed: of the resampling.
        level: share of the resampled means that lie inside.
        samples: how often the N rows are drawn anew, with replacement.
        group: [N], numbers from 0. Rows of one group come together or not at all, as the captions of one picture must:
            they are not independent.

    Raises:
        ShapeError: `correct` is not [N], or `group` has another N.
        DataError: it is empty, or not finite.
        ConfigError: level does not lie between 0 and 1.
    """
    values = _tensor(correct).double().cpu().numpy()
    if values.ndim != 1:
        raise ShapeError(f"correct {list(values.shape)} must be [N].")
    _check_not_empty(values)
    if not np.isfinite(values).all():
        raise DataError(f"An interval needs finite numbers. {int((~np.isfinite(values)).sum()):,} are not.")
    check_level(level)
    rng = np.random.default_rng(seed)
    if group is None and np.isin(values, (0, 1)).all():
        # How many ones a resample holds, without drawing it.
        means = rng.binomial(len(values), values.mean(), size=samples) / len(values)
    else:
        sums, counts = values, np.ones(len(values))
        if group is not None:
            groups = _paired(correct, group, "correct", "group")[1].cpu().numpy()
            _, groups = np.unique(groups, return_inverse=True)
            sums, counts = np.bincount(groups, values), np.bincount(groups).astype(float)
        n = len(sums)
        rows = max(1, _DRAWS_AT_ONCE // n)
        draws = (rng.integers(n, size=(min(rows, samples - done), n)) for done in range(0, samples, rows))
        means = np.concatenate([sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1) for drawn in draws])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def bootstrap_of(
    measure: Callable[[np.ndarray], float], n: int, *, seed: int, level: float = 0.95, samples: int = 1000
) -> Interval:
    """Percentile bootstrap of any number that is made from rows; of a mean `bootstrap_interval` is faster.

    Args:
        measure: the number, from the positions of the rows that were drawn, [n] with repeats. A draw on which it is not
            defined (DataError), such as one without a positive, is passed over.
        n: how many rows there are.
        seed: of the resampling.
        level: share of the resampled numbers that lie inside.
        samples: how often the rows are drawn anew.

    Raises:
        DataError: the number is defined on no draw.
        ConfigError: level does not lie between 0 and 1.
    """
    check_level(level)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(samples):
        with contextlib.suppress(DataError):
            values.append(measure(rng.integers(n, size=n)))
    if not values:
        raise DataError("An interval needs rows on which the number is defined. There are too few.")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def _tensor(values: Array) -> Tensor:
    return values if isinstance(values, Tensor) else torch.tensor(values)  # a copy: an array may be read-only


def _paired(values: Array, numbers: Array, first: str, second: str) -> tuple[Tensor, Tensor]:
    """Two tensors [N] on the device of the first; the second int64."""
    values = _tensor(values)
    numbers = _tensor(numbers).to(values.device).long()
    if values.ndim != 1 or values.shape != numbers.shape:
        raise ShapeError(f"{first} {list(values.shape)} and {second} {list(numbers.shape)} must both be [N].")
    _check_not_empty(values)
    return values, numbers


def _mean_over_classes(
    scores: Array, targets: Array, counted: Array | None, average: Callable[[Tensor], float]
) -> float:
    """Of what `average` makes of the precision [P] at each positive of a class, in the order of their ranks."""
    scores = _tensor(scores)
    positive = _tensor(targets).to(scores.device).bool()
    counts = torch.ones_like(positive) if counted is None else _tensor(counted).to(scores.device).bool()
    if scores.ndim != 2 or scores.shape != positive.shape or scores.shape != counts.shape:
        shapes = f"scores {list(scores.shape)}, targets {list(positive.shape)}"
        raise ShapeError(f"{shapes} and counted {list(counts.shape)} must all be [N, C].")
    averages = []
    for number in range(scores.shape[1]):
        column, is_positive = scores[counts[:, number], number], positive[counts[:, number], number]
        if is_positive.any():
            averages.append(average(_precision_at_positives(column, is_positive)))
    if not averages:
        raise DataError("There must be at least one positive to measure precision. targets has none.")
    return math.fsum(averages) / len(averages)


def _precision_at_positives(scores: Tensor, positive: Tensor) -> Tensor:
    """[N] and [N] bool to [P] float64."""
    of_positives = scores[positive].double().nan_to_num(-torch.inf, torch.inf, -torch.inf).sort(descending=True).values
    of_negatives = scores[~positive].double().nan_to_num(torch.inf, torch.inf, -torch.inf).sort().values
    ahead = len(of_negatives) - torch.searchsorted(of_negatives, of_positives)  # not strictly behind
    rank = torch.arange(1, len(of_positives) + 1, dtype=torch.float64, device=scores.device)
    return rank / (rank + ahead)


def _check_k(k: int, what: str, scores: Tensor) -> None:
    _check_not_empty(scores)
    if not 1 <= k <= scores.shape[1]:
        raise ShapeError(f"k must lie between 1 and the number of {what}, {scores.shape[1]}. Got {k}.")


def _check_not_empty(values: Array) -> None:
    if len(values) == 0:
        raise DataError("There must be at least one row to measure. Got none: is the split empty?")
