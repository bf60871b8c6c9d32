"""Which parameters decay, and the one that is held in bounds."""

import torch
from torch import nn

from diptych.model.clip import CLIP, MAX_LOG_LOGIT_SCALE


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Decay on matrices alone: no gain, no bias, not the temperature (CLIP, arXiv:2103.00020, section 2.5)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


@torch.no_grad()
def clamp_logit_scale(model: CLIP) -> None:
    """Hold the factor between 1 and 100, after each step (CLIP, section 2.5: at most 100, for stability)."""
    model.logit_scale.clamp_(0.0, MAX_LOG_LOGIT_SCALE)
