"""Two models on the same rows: is the difference more than chance?

Pairing matters: two models mostly fail on the same pictures, so the difference is known better than either score.
Letters: N.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from diptych.errors import DataError, ShapeError
from diptych.measures.binomial import binomial_at_least
from diptych.measures.metrics import Interval, bootstrap_interval


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Model B against model A."""

    n: int
    a: float  # share of rows that are right
    b: float
    difference: float  # b - a
    interval: Interval  # of the difference: paired bootstrap over rows
    only_a: int  # rows that A alone has right
    only_b: int
    p_value: float  # McNemar, exact, two-sided

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare_correct(a: Tensor, b: Tensor, *, seed: int = 0, level: float = 0.95) -> Comparison:
    """Compare what two models have right.

    Args:
        a: [N] bool, by model A.
        b: [N] bool, by model B, of the same rows in the same order.
        seed: of the bootstrap.
        level: of the interval.

    Raises:
        ShapeError: the two differ in N.
        DataError: they are empty.
        ConfigError: level does not lie between 0 and 1.
    """
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(f"Rows of a {list(a.shape)} and of b {list(b.shape)} must be the same, both [N].")
    a, b = a.bool().cpu(), b.bool().cpu()
    interval = bootstrap_interval(b.double() - a.double(), seed=seed, level=level)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return Comparison(
        n=len(a),
        a=a.double().mean().item(),
        b=b.double().mean().item(),
        difference=(only_b - only_a) / len(a),
        interval=interval,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value: how often a fair coin divides the rows on which two models differ at least so unevenly.

    Args:
        only_a: rows that A alone has right.
        only_b: rows that B alone has right.

    Raises:
        DataError: a count is negative.

    >>> round(mcnemar(1, 5), 12)  # 2 * (1 + 6) / 64
    0.21875
    """
    if min(only_a, only_b) < 0:
        raise DataError(f"Counts of rows must be 0 or more. Got {only_a} and {only_b}.")
    if only_a == only_b:
        return 1.0  # also where they never differ
    return min(1.0, 2 * binomial_at_least(max(only_a, only_b), only_a + only_b, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected for their number: below 0.05, one false alarm in twenty *suites* at most.

    Holm 1979: the smallest is multiplied by their number, the next by one less, and none falls below one before it.

    Raises:
        DataError: one does not lie between 0 and 1.

    >>> holm([0.03, 0.01, 0.04])
    [0.06, 0.03, 0.06]
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise DataError(f"p-values must lie between 0 and 1. Got {list(p_values)}.")
    corrected = torch.empty(len(p_values), dtype=torch.float64)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected.tolist()
