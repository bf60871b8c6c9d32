"""The learning rate as a pure function of the step."""

import math


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
