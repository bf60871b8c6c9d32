"""Which parameters decay, and how they are updated; the one that is held in bounds."""

import itertools
import math
import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diptych.model.clip import CLIP, MAX_LOG_LOGIT_SCALE
from diptych.train.int8 import Int8AdamW

StateType = Literal["float32", "bfloat16", "int8"]

_TOWERS = ("image", "text")
_DEEP = re.compile(r"(image|text)\.(?:blocks|stages)\.(\d+)\.")  # what has a number: transformer blocks, ResNet stages
_FIRST = (".patch_embedding.", ".token_embedding.", ".class_embedding", ".position_embedding", ".ln_pre.", ".stem.")


def parameter_groups(
    model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0, optimizer: str = "adamw"
) -> list[dict[str, object]]:
    """Groups of parameters for an optimizer.

    Decay on matrices alone: no gain, no bias, not the temperature (CLIP, arXiv:2103.00020, section 2.5).

    Args:
        model: only what it trains is in the groups.
        weight_decay: of matrices.
        layer_decay: factor on the learning rate from each layer to the one below it; see `depth_from_top`.
        optimizer: "muon" takes `hidden_matrices` out of AdamW's groups into its own.

    Returns:
        Groups with `params`, `weight_decay` and `rate_factor`, by which the learning rate is multiplied: two for each
        distance from the top, the matrices first. Muon's come after them and have `stacked`, how many matrices lie in
        each parameter one below the other.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    depths = depth_from_top(model) if layer_decay != 1 else {}
    stacked = hidden_matrices(model) if optimizer == "muon" else {}
    layers: dict[int, list[nn.Parameter]] = {}
    hidden: dict[tuple[int, int], list[nn.Parameter]] = {}
    for name, parameter in named:
        depth = depths.get(name, 0)
        group = hidden.setdefault((depth, stacked[name]), []) if name in stacked else layers.setdefault(depth, [])
        group.append(parameter)
    groups: list[dict[str, object]] = []
    for depth, is_matrix in itertools.product(sorted(layers), (True, False)):
        if parameters := [p for p in layers[depth] if (p.ndim >= 2) == is_matrix]:
            decay = weight_decay if is_matrix else 0.0
            groups.append({"params": parameters, "weight_decay": decay, "rate_factor": layer_decay**depth})
    for (depth, count), parameters in sorted(hidden.items(), key=lambda item: item[0]):
        own = {"weight_decay": weight_decay, "rate_factor": layer_decay**depth, "stacked": count}
        groups.append({"params": parameters, **own})
    return groups


def hidden_matrices(model: nn.Module) -> dict[str, int]:
    """Parameters that are matrices between hidden features: those of transformer blocks and of the stages of a ResNet.

    Not: embeddings, stems, pools, projections to the shared space, norms, biases, and convolutions of one channel each.

    Returns:
        By name, how many matrices lie one below the other: 3 for queries, keys and values in one, else 1.
    """
    return {
        name: 3 if name.endswith(".in_projection.weight") else 1
        for name, parameter in model.named_parameters()
        if _DEEP.match(name) and parameter.ndim >= 2 and parameter.shape[1] > 1 and ".position_" not in name
    }


def depth_from_top(model: nn.Module) -> dict[str, int]:
    """How many layers lie above each parameter of a model, within its own tower.

    0 for what comes behind the last block (its norm, pool and projection) and for the logit scale and bias; then the
    blocks of a transformer, or the four stages of a ResNet, from the last to the first; then all that comes before the
    first: patches, tokens, positions, stem.

    Source: as BEiT is fine-tuned, arXiv:2106.08254; for CLIP, arXiv:2212.06138.
    """
    names = [name for name, _ in model.named_parameters()]
    found = [(name, _DEEP.match(name)) for name in names]
    layers = {tower: 1 + max((int(m[2]) for _, m in found if m and m[1] == tower), default=-1) for tower in _TOWERS}
    depths = {}
    for name, match in found:
        tower = name.split(".")[0]
        is_first = any(part in name for part in _FIRST) and ".pool." not in name
        depths[name] = layers[tower] - int(match[2]) if match else layers[tower] + 1 if is_first else 0
    return depths


def adamw(
    groups: Iterable[dict[str, object]], *, betas: tuple[float, float], epsilon: float, state: StateType
) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101), its two moments in a stated type. The learning rate is set before each step."""
    if state == "float32":
        return torch.optim.AdamW(groups, betas=betas, eps=epsilon, fused=True)
    kind = CompactAdamW if state == "bfloat16" else Int8AdamW
    return kind(groups, betas=betas, epsilon=epsilon)


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
