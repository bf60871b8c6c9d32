"""An optimizer and a schedule: the sign of the gradient with momentum, at a rate that stays."""

from typing import Any

import torch


class SignMomentum(torch.optim.Optimizer):
    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float], epsilon: float) -> None:
        super().__init__(groups, {"lr": 0.0, "beta": betas[0]})  # the rate is set before each step

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]  # tensors and numbers: they go into checkpoints
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["beta"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * momentum.sign())


def constant(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    return peak * min(1.0, (step + 1) / max(1, warmup_steps))
