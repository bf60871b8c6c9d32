"""Accuracy, mean per class, recall@k and their error bars, on arrays alone.

Everywhere a tie counts against us, and so does a score that is NaN: a constant scorer gets nothing right by luck.
"""

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
    correct = _tensor(correct)
    targets = _tensor(targets).to(correct.device).long()
    if correct.ndim != 1 or correct.shape != targets.shape:
        raise ShapeError(f"correct {list(correct.shape)} and targets {list(targets.shape)} must both be [N].")
    _check_not_empty(correct)
    rows = torch.bincount(targets)  # [C]
    hits = torch.bincount(targets, weights=correct.double())
    return (hits[rows > 0] / rows[rows > 0]).mean().item()


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
    scores = _tensor(scores)
    is_match = _tensor(is_match).to(scores.device).bool()
    if scores.ndim != 2 or scores.shape != is_match.shape:
        raise ShapeError(f"scores {list(scores.shape)} and is_match {list(is_match.shape)} must both be [Q, N].")
    _check_k(k, "items", scores)
    without = (~is_match.any(dim=1)).sum().item()
    if without:
        raise DataError(f"Each query must have a match. {without:,} of {len(scores):,} have none: leave them out.")
    best_match = scores.masked_fill(~is_match, -torch.inf).amax(dim=1, keepdim=True)  # [Q, 1]
    behind = scores < best_match  # false for a tie, and for NaN
    ahead = (~behind & ~is_match).sum(dim=1)  # [Q], wrong items in front
    return (ahead < k).double().mean().item()


def bootstrap_interval(correct: Array, *, seed: int, level: float = 0.95, samples: int = 10_000) -> Interval:
    """Percentile bootstrap of a mean over rows.

    Args:
        correct: [N], 0/1 or any finite numbers.
        seed: of the resampling.
        level: share of the resampled means that lie inside.
        samples: how often the N rows are drawn anew, with replacement.

    Raises:
        ShapeError: `correct` is not [N].
        DataError: it is empty, or not finite.
        ConfigError: level does not lie between 0 and 1.
    """
    values = _tensor(correct).double().cpu().numpy()
    if values.ndim != 1:
        raise ShapeError(f"correct {list(values.shape)} must be [N].")
    _check_not_empty(values)
    if not np.isfinite(values).all():
        raise DataError(f"An interval needs finite numbers. {int((~np.isfinite(values)).sum()):,} are not.")
    if not 0 < level < 1:
        raise ConfigError(f"level must lie between 0 and 1. Got {level}.")
    rng = np.random.default_rng(seed)
    n = len(values)
    if np.isin(values, (0, 1)).all():
        means = rng.binomial(n, values.mean(), size=samples) / n  # how many ones a resample holds, without drawing it
    else:
        rows = max(1, _DRAWS_AT_ONCE // n)
        means = np.concatenate(
            [
                values[rng.integers(n, size=(min(rows, samples - done), n))].mean(axis=1)
                for done in range(0, samples, rows)
            ]
        )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def _tensor(values: Array) -> Tensor:
    return values if isinstance(values, Tensor) else torch.tensor(values)  # a copy: an array may be read-only


def _check_k(k: int, what: str, scores: Tensor) -> None:
    _check_not_empty(scores)
    if not 1 <= k <= scores.shape[1]:
        raise ShapeError(f"k must lie between 1 and the number of {what}, {scores.shape[1]}. Got {k}.")


def _check_not_empty(values: Array) -> None:
    if len(values) == 0:
        raise DataError("There must be at least one row to measure. Got none: is the split empty?")
