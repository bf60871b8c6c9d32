"""Attention and MLP, shared by both towers, and how their parameters start."""

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.packing import Packing
from diptych.model.rotary import rotate

Activation = Literal["quick_gelu", "gelu", "gelu_tanh", "relu"]


def quick_gelu(x: Tensor) -> Tensor:
    """QuickGELU, x * sigmoid(1.702 x): the activation of the released CLIP models."""
    # Through silu: one pass less than with a sigmoid, and one tensor less kept for the backward pass.
    return F.silu(1.702 * x) / 1.702


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh approximation, as SigLIP uses it."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
}


class Linear(nn.Linear):
    """As torch's, but empty: `reset_to_defaults` fills it, or weights do.

    On the meta device, torch's own start draws nothing and yet imports hundreds of modules, for more than a second.
    """

    def reset_parameters(self) -> None:
        pass


class Conv2d(nn.Conv2d):
    """As torch's, but empty; see `Linear`."""

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """As torch's, but empty; see `Linear`."""

    def reset_parameters(self) -> None:
        pass


# Positions, up to which `attend` keeps its matrix. It is faster beyond, too, but the matrix grows with their square.
_LONGEST_KEPT = 256


def attend(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, softmax(q k / sqrt(E)) v, by the fastest way that there is.

    Args:
        query: [B, H, Q, E], E = W / H.
        key: [B, H, L, E].
        value: [B, H, L, E].
        is_causal: position i sees positions up to i.
        mask: bool that broadcasts to [B, H, Q, L], where not causal: who may be looked at; all when not given.

    Returns:
        [B, H, Q, E].
    """
    # torch's fused kernel has a slow backward pass in bfloat16 on a CPU: both passes take 4.6 times as long as here at
    # 17 positions, 1.3 times at 257 (benchmarks/attention.py). In float32 it is faster, and so is its forward pass.
    is_slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if is_slow and query.requires_grad and key.shape[-2] <= _LONGEST_KEPT:
        return KeptAttention.apply(query, key, value, is_causal, mask)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal)


class KeptAttention(torch.autograd.Function):
    """Attention that keeps its matrix [B, H, Q, L] for the backward pass, in the type of its inputs.

    Logits and softmax are of float32 at least, as in the fused kernels.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, is_causal: bool, mask: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):  # it would take the logits in bfloat16
            shares = _shares(query, key, is_causal, mask)
            ctx.save_for_backward(query, key, value, shares, mask)
            ctx.is_causal = is_causal
            return shares @ value

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, shares, mask = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, and what was kept is a constant
            shares = _shares(query, key, ctx.is_causal, mask)
        by_share = outer @ value.transpose(-1, -2)  # [B, H, Q, L]
        by_logit = torch.ops.aten._softmax_backward_data(by_share, shares, -1, shares.dtype) * query.shape[-1] ** -0.5
        return by_logit @ key, by_logit.transpose(-1, -2) @ query, shares.transpose(-1, -2) @ outer, None, None


def _shares(query: Tensor, key: Tensor, is_causal: bool, mask: Tensor | None) -> Tensor:
    dtype = torch.promote_types(query.dtype, torch.float32)
    logits = (query.to(dtype) @ key.to(dtype).transpose(-1, -2)) * query.shape[-1] ** -0.5  # [B, H, Q, L]
    if is_causal:
        logits += logits.new_full(logits.shape[-2:], -torch.inf).triu(1)
    if mask is not None:
        logits.masked_fill_(~mask, -torch.inf)
    return logits.softmax(dim=-1).to(query.dtype)


def attended(
    qkv: Tensor, heads: int, *, is_causal: bool = False, mask: Tensor | None = None, rotation: Tensor | None = None
) -> Tensor:
    """Self-attention behind its first projection and before its last: [B, L, 3 W] to [B, L, W]; see `Attention`."""
    qkv = qkv.unflatten(-1, (3, heads, -1))  # [B, L, 3, H, W / H]
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()  # [B, H, L, W / H] each
    if rotation is not None:
        query, key = rotate(qkv[:, :, :2], rotation).permute(2, 0, 3, 1, 4).unbind()
    return attend(query, key, value, is_causal=is_causal, mask=mask).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, width: int, heads: int, *, is_causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.is_causal = is_causal
        self.in_projection = Linear(width, 3 * width)
        self.out_projection = Linear(width, width)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, packing: Packing | None = None, rotation: Tensor | None = None
    ) -> Tensor:
        """[B, L, W] to [B, L, W], or [T, W] to [T, W]; where causal, position i sees positions up to i.

        Args:
            x: [B, L, W], or [T, W] with `packing`.
            mask: bool that broadcasts to [B, H, L, L]: who may be looked at, in place of what causal says.
            packing: where each text lies in x, where causal.
            rotation: of queries and keys by their place, where not packed; see `rotate`.
        """
        qkv = self.in_projection(x)  # [..., 3 W]
        x = self._attended(qkv, mask, rotation) if packing is None else packing.by_text(qkv, self._attended)
        return self.out_projection(x)

    def _attended(self, qkv: Tensor, mask: Tensor | None = None, rotation: Tensor | None = None) -> Tensor:
        is_causal = self.is_causal and mask is None
        return attended(qkv, self.heads, is_causal=is_causal, mask=mask, rotation=rotation)

    def of_each_alone(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W], as if each position looked at itself alone: its value, through the last projection.

        Source: MaskCLIP, arXiv:2112.01071, section 3.2.
        """
        width = x.shape[-1]
        weight, bias = self.in_projection.weight, self.in_projection.bias
        return self.out_projection(F.linear(x, weight[2 * width :], bias[2 * width :]))

    def pool(self, probe: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """A probe [1, 1, W] asks and the positions [B, L, W] answer, those of a mask [B, 1, 1, L]: [B, 1, W]."""
        width = x.shape[-1]
        weight, bias = self.in_projection.weight, self.in_projection.bias
        query = F.linear(probe, weight[:width], bias[:width]).expand(x.shape[0], -1, -1)  # [B, 1, W]
        answers = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)  # [B, L, W] each
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, *answers))
        x = attend(query, key, value, is_causal=False, mask=mask)  # [B, H, 1, W / H]
        return self.out_projection(x.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, hidden_width: int, activation: Activation) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.up = Linear(width, hidden_width)
        self.down = Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        return self.down(self.activation(self.up(x)))


class GatedMLP(nn.Module):
    """Two linear layers side by side, one of which lets through what the other says, and one behind them.

    Source: GLU variants, arXiv:2002.05202: SwiGLU where the gate is SiLU, GeGLU where it is GELU.
    """

    def __init__(self, width: int, hidden_width: int, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.opens = gate
        self.gate = Linear(width, hidden_width)
        self.up = Linear(width, hidden_width)
        self.down = Linear(hidden_width, width)

    def hidden(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, hidden]: what comes through."""
        return self.opens(self.gate(x)) * self.up(x)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        return self.down(self.hidden(x))


class Block(nn.Module):
    """Pre-LN residual block: attention, then MLP, each added to what came in.

    `nn.LayerNorm` takes its statistics in float32 whatever type it is given, as the released code does by hand.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        mlp_width: int,
        activation: Activation,
        layer_norm_eps: float,
        is_causal: bool,
    ) -> None:
        super().__init__()
        self.ln_attention = nn.LayerNorm(width, eps=layer_norm_eps)
        self.attention = Attention(width, heads, is_causal=is_causal)
        self.ln_mlp = nn.LayerNorm(width, eps=layer_norm_eps)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(self, x: Tensor, *beside: Any) -> Tensor:
        """[B, L, W] to [B, L, W], or [T, W] to [T, W]; `beside` is what the attention takes, see its `forward`."""
        x = x + self.attention(self.ln_attention(x), *beside)
        return x + self.mlp(self.ln_mlp(x))

    def of_each_alone(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]; see `Attention.of_each_alone`."""
        x = x + self.attention.of_each_alone(self.ln_attention(x))
        return x + self.mlp(self.ln_mlp(x))


class BlockSizes(Protocol):
    """What the config of a transformer tower tells of its blocks."""

    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def mlp_width(self) -> int: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def layer_norm_eps(self) -> float: ...


class Stack(nn.Sequential):
    """Blocks, one after the other.

    Attributes:
        recomputes: for the backward pass keep the input of each block alone, and compute the block a second time.
    """

    recomputes = False

    @classmethod
    def of(cls, sizes: BlockSizes, *, is_causal: bool) -> "Stack":
        """The blocks of a tower."""
        return cls(
            *(
                Block(
                    width=sizes.width,
                    heads=sizes.heads,
                    mlp_width=sizes.mlp_width,
                    activation=sizes.activation,
                    layer_norm_eps=sizes.layer_norm_eps,
                    is_causal=is_causal,
                )
                for _ in range(sizes.layers)
            )
        )

    def forward(self, x: Tensor, *beside: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[B, L, W] to [B, L, W], or [T, W] to [T, W]; `beside` is what the blocks' attention takes."""
        for block in self:
            if self.recomputes and torch.is_grad_enabled():
                # No block draws at random, so there is no generator's state to keep.
                x = checkpoint(block, x, *beside, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, *beside)
        return x

    def of_each_alone(self, x: Tensor, *beside: Any) -> Tensor:
        """[B, L, W] to [B, L, W], where in the last block each position looks at itself alone."""
        last = self[-1]
        assert isinstance(last, Block)
        return last.of_each_alone(self[:-1](x, *beside))


def as_grid(x: Tensor) -> Tensor:
    """Positions of a square, line by line: [B, P, W] to [B, h, w, W]."""
    side = math.isqrt(x.shape[1])
    return x.unflatten(1, (side, side))


def keep_patches(x: Tensor, kept: Tensor) -> Tensor:
    """Some patches of each picture, for patch dropout (FLIP, arXiv:2212.00794, section 3).

    Args:
        x: [B, P, W].
        kept: [B, K] int64, numbers of patches.

    Returns:
        [B, K, W].
    """
    return x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[-1]))


@torch.no_grad()
def draw_normal(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill a parameter from N(0, std); the values depend on the generator alone, not on the parameter's device."""
    parameter.copy_(torch.randn(parameter.shape, generator=generator, device=generator.device) * std)


@torch.no_grad()
def draw_uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill a parameter from U(-bound, bound); the values depend on the generator alone."""
    parameter.copy_(torch.rand(parameter.shape, generator=generator, device=generator.device) * (2 * bound) - bound)


@torch.no_grad()
def reset_to_defaults(module: nn.Module, generator: torch.Generator) -> None:
    """Start every layer as torch starts it, but from `generator` instead of the global one.

    Attention starts as `nn.MultiheadAttention` does, which is what the released code was trained with.
    """
    for layer in reversed(list(module.modules())):  # children first: Attention has the last word on its projections
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5  # fan-in
            draw_uniform(layer.weight, bound, generator)
            if layer.bias is not None:
                draw_uniform(layer.bias, bound, generator)
        elif isinstance(layer, nn.LayerNorm | nn.BatchNorm2d):
            layer.reset_parameters()  # ones and zeros: nothing is drawn
        elif isinstance(layer, Attention):
            fan_in_and_out = sum(layer.in_projection.weight.shape)
            draw_uniform(layer.in_projection.weight, (6 / fan_in_and_out) ** 0.5, generator)  # Xavier
            layer.in_projection.bias.zero_()
            layer.out_projection.bias.zero_()


def check_sizes(tower: str, **sizes: int) -> None:
    """Refuse a size below 1.

    Raises:
        ConfigError: names the first such size, e.g. "text.width must be at least 1. Got 0."
    """
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{tower}.{name} must be at least 1. Got {size}.")


def check_patches(image_size: int, patch_size: int) -> None:
    """Refuse patches that do not fill a picture; both sizes are at least 1.

    Raises:
        ConfigError: they do not.
    """
    if image_size % patch_size:
        raise ConfigError(
            f"image.patch_size must divide image.image_size. Got patch_size={patch_size}, image_size={image_size}."
        )


def check_blocks(tower: str, sizes: BlockSizes) -> None:
    """Refuse sizes that no stack of blocks can have.

    Raises:
        ConfigError: a size below 1, heads that do not divide the width, or an unknown activation.
    """
    check_sizes(tower, width=sizes.width, layers=sizes.layers, heads=sizes.heads, mlp_width=sizes.mlp_width)
    if sizes.width % sizes.heads:
        raise ConfigError(f"{tower}.heads must divide {tower}.width. Got heads={sizes.heads}, width={sizes.width}.")
    if not 0 < sizes.layer_norm_eps < 1:
        raise ConfigError(f"{tower}.layer_norm_eps must lie between 0 and 1. Got {sizes.layer_norm_eps}.")
    if sizes.activation not in get_args(Activation):
        known = unknown_name(sizes.activation, "", get_args(Activation), "an activation")
        raise ConfigError(f"{tower}.activation: {known}")
