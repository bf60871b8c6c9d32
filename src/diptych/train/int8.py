"""AdamW whose two moments take one byte each a parameter."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

BLOCK = 256  # numbers that share a scale


class Int8AdamW(torch.optim.Optimizer):
    """AdamW with moments of 8 bits, in blocks of 256 that share a scale: 2.03 bytes a parameter instead of 8.

    A number is its share of the block's largest, in steps that are finest near 0: code / 127 to the fourth, with a
    sign, for the first moment, and code / 255 to the eighth for the second, whose numbers are squares of gradients. So
    gradients of one block may be a million times apart. A second moment above 0 has a code above 0, or its parameter
    would be divided by next to nothing. Numbers between two codes go to either by chance, so that what an update adds
    is not lost however small it is; the chance is a function of the parameter's place and the step. The update itself
    is computed in float32.

    Source: block-wise quantisation is that of arXiv:2110.02861, sections 2.1 and 2.2; the codes and the rounding are
    ours.

    Args:
        groups: as of `parameter_groups`.
        betas: of the two moments.
        epsilon: as in AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, object]], *, betas: tuple[float, float], epsilon: float) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": epsilon, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update; as `torch.optim.AdamW` computes it, but for the rounding of the moments."""
        assert closure is None
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                place += 1
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group, place)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            scales = math.ceil(parameter.numel() / BLOCK)
            for name, dtype in (("exp_avg", torch.int8), ("exp_avg_sq", torch.uint8)):
                state[name] = torch.zeros_like(parameter, dtype=dtype)
                state[f"{name}_scale"] = torch.zeros(scales, device=parameter.device)
        (beta1, beta2), rate = group["betas"], group["lr"]
        state["step"] += 1
        step = int(state["step"].item())
        chance = torch.Generator(parameter.device).manual_seed((place << 32) + step)
        gradient = gradient.float()
        mean = decoded(state["exp_avg"], state["exp_avg_scale"]).lerp_(gradient, 1 - beta1)
        square = decoded(state["exp_avg_sq"], state["exp_avg_sq_scale"])
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        for name, value in (("exp_avg", mean), ("exp_avg_sq", square)):
            codes, scales = encoded(value, signed=name == "exp_avg", chance=chance)
            state[name].copy_(codes)
            state[f"{name}_scale"].copy_(scales)
        divisor = square.sqrt_().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.addcdiv_(mean, divisor, value=-rate / (1 - beta1**step))


def encoded(values: Tensor, *, signed: bool, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers as codes of one byte and scales.

    Args:
        values: of any shape, float32; not negative unless signed.
        signed: for the first moment, int8; else for the second, uint8.
        chance: decides about numbers between two codes.

    Returns:
        Codes of the shape of `values`, and the largest size of each block, [ceil(n / 256)] float32.
    """
    blocks = _blocks(values)
    sizes = blocks.abs()
    scales = sizes.amax(dim=1)
    codes = sizes.div_(scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).sqrt_().sqrt_()
    codes = codes.mul_(127) if signed else codes.sqrt_().mul_(255)
    lowest = codes.ceil().clamp_(max=1)  # 0 for 0 alone
    codes.add_(torch.rand(codes.shape, generator=chance, device=codes.device)).floor_()
    if signed:
        codes = codes.clamp_(max=127).copysign_(blocks).to(torch.int8)
    else:
        codes = codes.clamp_(max=255).maximum(lowest).to(torch.uint8)
    return codes.view(-1)[: values.numel()].view(values.shape), scales


def decoded(codes: Tensor, scales: Tensor) -> Tensor:
    """The reverse of `encoded`: float32, of the shape and memory order of `codes`."""
    blocks = _blocks(codes).float()
    if codes.dtype == torch.int8:
        values = blocks.div_(127).square().square_().mul_(scales[:, None]).copysign_(blocks)
    else:
        values = blocks.div_(255).square_().square_().square_().mul_(scales[:, None])
    flat = values.view(-1)[: codes.numel()].view(codes.shape)
    return flat if codes.is_contiguous() else torch.empty_like(codes, dtype=torch.float32).copy_(flat)


def _blocks(values: Tensor) -> Tensor:
    """[...] to [ceil(n / 256), 256], in the order of indices; zeros at the end."""
    flat = values.reshape(-1)
    missing = -len(flat) % BLOCK
    return (torch.nn.functional.pad(flat, (0, missing)) if missing else flat).view(-1, BLOCK)
