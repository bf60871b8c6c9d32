"""Accuracy by group: how far the best and the worst lie apart, and how far they would by chance; chi-squared of counts.

Letters: N rows, G groups.
"""

import math
from dataclasses import dataclass

import numpy as np

from diptych.errors import DataError, ShapeError
from diptych.measures.metrics import Interval, check_level


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The best group's share less the worst group's."""

    value: float
    interval: Interval  # bootstrap: rows of each group are drawn anew, and best and worst are found again
    by_chance: float  # mean gap of groups of these sizes whose rows are drawn from all
    p_value: float  # how often such groups lie at least so far apart


def gap_of_groups(
    happened: np.ndarray, group: np.ndarray, *, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> Gap:
    """The gap between groups, its interval, and whether it is more than chance.

    Of several groups one is always the best: a gap is above zero even where none differs. So it is compared with the
    gaps of shuffled groups (a permutation test, exact but for the draws; the draw that was seen counts as one). The
    interval, of a number that cannot be negative, leans upwards where groups are small.

    Args:
        happened: [N] bool.
        group: [N] int64, number of the group; below 0 for rows of none, which are left out.
        seed: of the draws.
        draws: how many.
        level: of the interval.

    Raises:
        ShapeError: the two differ in N.
        DataError: there are fewer than two groups.
        ConfigError: level does not lie between 0 and 1.
    """
    check_level(level)
    if happened.ndim != 1 or happened.shape != group.shape:
        raise ShapeError(f"Rows {list(happened.shape)} and groups {list(group.shape)} must be paired, both [N].")
    happened, group = happened[group >= 0].astype(np.float64), group[group >= 0]
    _, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError(f"A gap lies between two groups at least. Got {len(sizes)}.")

    def gap(values: np.ndarray) -> float:
        shares = np.bincount(number, weights=values) / sizes  # [G]
        return float(shares.max() - shares.min())

    rng = np.random.default_rng(seed)
    seen = gap(happened)
    shuffled = np.array([gap(rng.permutation(happened)) for _ in range(draws)])
    shares = np.bincount(number, weights=happened) / sizes
    drawn = rng.binomial(sizes, shares, size=(draws, len(sizes))) / sizes  # [draws, G]: as rows drawn with repeats
    low, high = np.quantile(drawn.max(axis=1) - drawn.min(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Gap(
        value=seen,
        interval=Interval(float(low), float(high), level),
        by_chance=float(shuffled.mean()),
        p_value=float((1 + (shuffled >= seen - 1e-12).sum()) / (1 + draws)),
    )


def chi_squared(count_a: int, n_a: int, count_b: int, n_b: int) -> tuple[float, float]:
    """Pearson's statistic of a table of two groups, without Yates' correction, and its p-value (one degree of freedom).

    Where nobody or everybody of both is counted, groups do not differ: 0 and 1. Below five expected counts in a cell
    the p-value is rough; Fisher's test (`compare_shares`) holds for any.

    Raises:
        DataError: a group is empty, or a count does not lie between 0 and its size.

    >>> statistic, p = chi_squared(10, 20, 5, 20)  # 40 * (10 * 15 - 10 * 5)^2 / (20 * 20 * 15 * 25)
    >>> round(statistic, 4), round(p, 4)
    (2.6667, 0.1025)
    """
    if min(n_a, n_b) < 1 or not (0 <= count_a <= n_a and 0 <= count_b <= n_b):
        raise DataError(
            f"Counts must lie between 0 and the size of a group. Got {count_a} of {n_a}, {count_b} of {n_b}."
        )
    n, counted = n_a + n_b, count_a + count_b
    if counted in (0, n):
        return 0.0, 1.0
    off = count_a * (n_b - count_b) - count_b * (n_a - count_a)
    statistic = n * off * off / (n_a * n_b * counted * (n - counted))
    return statistic, math.erfc(math.sqrt(statistic / 2))
