"""Which parameters decay, and how they are updated; the one that is held in bounds."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diptych.model.clip import CLIP, MAX_LOG_LOGIT_SCALE

StateType = Literal["float32", "bfloat16"]


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Decay on matrices alone: no gain, no bias, not the temperature (CLIP, arXiv:2103.00020, section 2.5)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(
    groups: Iterable[dict[str, object]], *, betas: tuple[float, float], epsilon: float, state: StateType
) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101), its two moments in a stated type. The learning rate is set before each step."""
    if state == "float32":
        return torch.optim.AdamW(groups, betas=betas, eps=epsilon, fused=True)
    return CompactAdamW(groups, betas=betas, epsilon=epsilon)


class CompactAdamW(torch.optim.Optimizer):
    """AdamW whose moments are kept in bfloat16: 4 bytes a parameter instead of 8. It computes in float32.

    bfloat16 tells apart steps of 1/256: moments that move by less in a step would stand still, so both betas must be
    at most 0.99.

    Args:
        groups: as of `parameter_groups`.
        betas: of the two moments.
        epsilon: as in AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, object]], *, betas: tuple[float, float], epsilon: float) -> None:
        assert max(betas) <= 0.99
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": epsilon, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update; as `torch.optim.AdamW` computes it, but for the rounding of the moments."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        (beta1, beta2), rate = group["betas"], group["lr"]
        state["step"] += 1
        step = state["step"].item()
        mean = state["exp_avg"].to(gradient.dtype).lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].to(gradient.dtype).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["exp_avg"].copy_(mean)
        state["exp_avg_sq"].copy_(square)
        divisor = square.sqrt_().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.addcdiv_(mean, divisor, value=-rate / (1 - beta1**step))


@torch.no_grad()
def clamp_logit_scale(model: CLIP) -> None:
    """Hold a softmax factor between 1 and 100, after each step (CLIP, section 2.5: at most 100, for stability)."""
    if model.logit_bias is None:
        model.logit_scale.clamp_(0.0, MAX_LOG_LOGIT_SCALE)
