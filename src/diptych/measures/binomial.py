"""Exact answers for shares: the tail of the binomial distribution and the Clopper-Pearson interval."""

import math

import numpy as np

from diptych.errors import DataError
from diptych.measures.metrics import Interval, check_level

_HALVINGS = 60  # of the unit interval: finer than float64


def binomial_at_least(successes: int, trials: int, chance: float) -> float:
    """P(X >= successes) for X of Binomial(trials, chance).

    Raises:
        DataError: successes does not lie between 0 and trials, or chance not between 0 and 1.
    """
    _check_successes(successes, trials)
    if not 0 <= chance <= 1:
        raise DataError(f"chance must lie between 0 and 1. Got {chance}.")
    if successes == 0 or chance == 1:
        return 1.0
    if chance == 0:
        return 0.0
    return min(1.0, float(np.exp(_log_ways(trials)[successes:] + _log_weights(trials, chance)[successes:]).sum()))


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Exact interval of a share, never covering less than it says; CLIP marks its best scores with it (table 10).

    Raises:
        DataError: there is no trial, or successes does not lie between 0 and trials.
        ConfigError: level does not lie between 0 and 1.

    >>> round(clopper_pearson(0, 10).high, 4)  # 1 - 0.025 ** (1 / 10)
    0.3085
    """
    _check_successes(successes, trials)
    check_level(level)
    tail = (1 - level) / 2
    ways = _log_ways(trials)

    def bound(fewest: int) -> float:
        """The chance at which `fewest` or more come with probability `tail`; for the upper bound, its complement."""
        if fewest == 0:
            return 0.0
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):  # the probability grows with the chance
            middle = (low + high) / 2
            reached = np.exp(ways[fewest:] + _log_weights(trials, middle)[fewest:]).sum()
            low, high = (low, middle) if reached > tail else (middle, high)
        return (low + high) / 2

    return Interval(bound(successes), 1 - bound(trials - successes), level)


def _log_ways(trials: int) -> np.ndarray:
    """Logarithm of how many ways there are to have 0, 1, ... trials successes, [trials + 1]."""
    logs = np.concatenate([[0.0], np.log(np.arange(1, trials + 1)).cumsum()])  # of the factorials
    return logs[-1] - logs - logs[::-1]


def _log_weights(trials: int, chance: float) -> np.ndarray:
    """Logarithm of the probability of each single way, [trials + 1]; chance lies inside 0 and 1."""
    successes = np.arange(trials + 1)
    return successes * math.log(chance) + (trials - successes) * math.log1p(-chance)


def _check_successes(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise DataError(f"successes must lie between 0 and trials, 1 or more. Got {successes} of {trials}.")
