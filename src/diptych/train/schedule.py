"""The learning rate as a pure function of the step."""

import math
from typing import Protocol

from diptych.errors import ConfigError
from diptych.outside import check_call, is_outside, named


class Schedule(Protocol):
    """The learning rate of a step; `learning_rate` says what each argument is."""

    def __call__(self, step: int, /, *, peak: float, warmup_steps: int, steps: int) -> float: ...


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Linear warm-up from 0, then half a cosine down to 0 (CLIP, arXiv:2103.00020, section 2.5).

    Args:
        step: 0 for the first one.
        peak: reached after `warmup_steps`.
        warmup_steps: steps; 0 starts at the peak.
        steps: of the whole run, warm-up included.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def schedule_of(name: str) -> Schedule:
    """The schedule of `train.schedule`: "cosine", or code of the user's.

    Raises:
        ConfigError: it cannot be imported, or is called otherwise; or, when it is called, gives no finite number from 0
            on.
    """
    if not is_outside(name):
        return learning_rate
    theirs = named(name, "train.schedule")
    check_call(theirs, name, "(step, peak=, warmup_steps=, steps=)", 0, peak=0.0, warmup_steps=0, steps=1)

    def checked(step: int, /, *, peak: float, warmup_steps: int, steps: int) -> float:
        rate = theirs(step, peak=peak, warmup_steps=warmup_steps, steps=steps)
        if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
            raise ConfigError(f"{name} must return a finite learning rate of at least 0. Got {rate!r} at step {step}.")
        return float(rate)

    return checked
