"""The tail of the binomial distribution, exact."""

import math

import numpy as np

from diptych.errors import DataError


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
