"""Two models on the same rows, or one on two groups of rows: is the difference more than chance?

Pairing matters: two models mostly fail on the same pictures, so the difference is known better than either score.
Letters: N.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diptych.errors import DataError, ShapeError
from diptych.measures.binomial import binomial_at_least
from diptych.measures.metrics import Interval, bootstrap_interval, check_level


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """B against A: two models, or two groups."""

    n: int  # of unpaired groups, both together
    a: float  # the metric, e.g. the share of rows that are right
    b: float
    difference: float  # b - a
    interval: Interval  # of the difference: paired bootstrap over rows; of unpaired groups Newcombe's, else exact
    only_a: int | None = None  # rows that A alone has right; None where rows are not right or wrong
    only_b: int | None = None
    p_value: float  # two-sided
    test: Literal["McNemar", "paired bootstrap", "Fisher", "Poisson binomial"]  # all but the bootstrap are exact

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
        test="McNemar",
    )


def compare_shares(successes_a: int, n_a: int, successes_b: int, n_b: int, *, level: float = 0.95) -> Comparison:
    """Compare a share in two groups of different rows: Fisher's exact test, two-sided; Newcombe's hybrid interval.

    p sums all tables with these margins that are no likelier than the one seen. Sources: Fisher 1935; Newcombe 1998,
    Statistics in Medicine 17, method 10.

    Raises:
        DataError: a group is empty, or successes do not lie between 0 and its size.
        ConfigError: level does not lie between 0 and 1.

    >>> round(compare_shares(3, 4, 1, 4).p_value, 4)  # (16 + 1) * 2 / 70
    0.4857
    """
    low_a, high_a = _wilson(successes_a, n_a, level)
    low_b, high_b = _wilson(successes_b, n_b, level)
    a, b = successes_a / n_a, successes_b / n_b
    down = math.hypot(b - low_b, high_a - a)
    up = math.hypot(high_b - b, a - low_a)
    return Comparison(
        n=n_a + n_b,
        a=a,
        b=b,
        difference=b - a,
        interval=Interval(b - a - down, b - a + up, level),
        p_value=_fisher(successes_a, n_a, successes_b, n_b),
        test="Fisher",
    )


def _wilson(successes: int, n: int, level: float) -> tuple[float, float]:
    check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"successes must lie between 0 and the rows of a group, 1 or more. Got {successes} of {n}.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = successes / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def _fisher(successes_a: int, n_a: int, successes_b: int, n_b: int) -> float:
    successes = successes_a + successes_b
    found = np.arange(max(0, successes - n_b), min(successes, n_a) + 1)  # in group A, with these margins
    logs = np.array([_log_ways(n_a, int(k)) + _log_ways(n_b, successes - int(k)) for k in found])
    chances = np.exp(logs - _log_ways(n_a + n_b, successes))
    seen = chances[successes_a - found[0]]
    return min(1.0, float(chances[chances <= seen * (1 + 1e-7)].sum()))  # as scipy: ties in the last digits count


def _log_ways(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def compare_metric(
    a: Callable[[np.ndarray], float],
    b: Callable[[np.ndarray], float],
    n: int,
    *,
    group: Tensor | None = None,
    seed: int = 0,
    level: float = 0.95,
    samples: int = 1000,
) -> Comparison:
    """Compare two models by any number that is made from rows: paired bootstrap.

    Rows are drawn anew, each with what both models made of it. p is twice the share of draws on which the difference
    has not the sign that it has more often, counting one draw more than there was: never below 2 / (samples + 1).

    Args:
        a: the number of model A, from the positions of rows, [n] with repeats. A draw on which it is not defined
            (DataError) is passed over.
        b: the number of model B, of the same rows.
        n: how many rows there are.
        group: [n]; rows of one group come together or not at all.
        seed: of the draws.
        level: of the interval.
        samples: how many draws.

    Raises:
        DataError: the numbers are defined on no draw.
        ShapeError: there is not one group a row.
        ConfigError: level does not lie between 0 and 1.
    """
    check_level(level)
    if group is not None and group.shape != (n,):
        raise ShapeError(f"group {list(group.shape)} must hold a number for each of the {n} rows.")
    rng = np.random.default_rng(seed)
    numbers = np.arange(n) if group is None else group.cpu().numpy()
    order = numbers.argsort(kind="stable")
    members = np.split(order, np.unique(numbers[order], return_index=True)[1][1:])  # rows of each group
    differences = []
    for _ in range(samples):
        rows = np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))])
        with contextlib.suppress(DataError):
            differences.append(b(rows) - a(rows))
    if not differences:
        raise DataError("A comparison needs rows on which the number is defined. There are too few.")
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    up, down = np.greater_equal(differences, 0).sum(), np.less_equal(differences, 0).sum()
    everything = np.arange(n)
    of_a, of_b = a(everything), b(everything)
    return Comparison(
        n=n,
        a=of_a,
        b=of_b,
        difference=of_b - of_a,
        interval=Interval(float(low), float(high), level),
        p_value=min(1.0, 2 * (int(min(up, down)) + 1) / (len(differences) + 1)),
        test="paired bootstrap",
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
