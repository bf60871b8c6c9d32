"""TextHead: from the positions of a bidirectional text transformer to one feature, as other libraries put it on theirs.

Source: the released code of open_clip (HFTextEncoder) and of `transformers` (AltCLIP, BLIP, ALIGN, Chinese-CLIP).
"""

from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.blocks import Linear, check_sizes
from diptych.model.cost import FLOAT, layer_norm_bytes

# mean: of all positions that are no padding; first: the start token's; dense: that through a layer and tanh, as BERT's
Pool = Literal["mean", "first", "dense"]
# none: D is W; linear: one layer; mlp: two with GELU between them; normed: a layer norm, then two layers
Head = Literal["none", "linear", "mlp", "normed"]


class HeadSizes(Protocol):
    """What the config of a text tower tells of its head."""

    @property
    def width(self) -> int: ...
    @property
    def layer_norm_eps(self) -> float: ...
    @property
    def pool(self) -> Pool: ...
    @property
    def head(self) -> Head: ...
    @property
    def head_width(self) -> int: ...
    @property
    def head_bias(self) -> bool: ...


def check_head(sizes: HeadSizes) -> None:
    """Refuse a head that there is not.

    Raises:
        ConfigError: an unknown pool or head; hidden channels or biases that it has not.
    """
    for name, options in (("pool", Pool), ("head", Head)):
        if (found := getattr(sizes, name)) not in get_args(options):
            raise ConfigError(f"text.{name}: {unknown_name(str(found), '', get_args(options), 'an option')}")
    has_two = sizes.head in ("mlp", "normed")
    if has_two:
        check_sizes("text", head_width=sizes.head_width)
    if (sizes.head_width and not has_two) or (sizes.head_bias and sizes.head != "linear"):
        raise ConfigError(
            "text.head_width is of the heads mlp and normed, text.head_bias of linear. "
            f"Got head_width={sizes.head_width}, head_bias={sizes.head_bias} with {sizes.head}."
        )


def check_head_width(sizes: HeadSizes, embed_dim: int) -> None:
    """Refuse a D that a tower without a projection does not give.

    Raises:
        ConfigError: D is not its width.
    """
    if sizes.head == "none" and embed_dim != sizes.width:
        raise ConfigError(f"embed_dim must be text.width={sizes.width} where text.head is none. Got {embed_dim}.")


def head_flops(sizes: HeadSizes, embed_dim: int) -> int:
    """Of the forward pass of one text."""
    width, hidden = sizes.width, sizes.head_width
    dense = 2 * width**2 if sizes.pool == "dense" else 0
    if sizes.head == "none":
        return dense
    return dense + (2 * hidden * (width + embed_dim) if hidden else 2 * width * embed_dim)


def head_bytes(sizes: HeadSizes, tokens: int, element: int) -> int:
    """Kept of one text for the backward pass, of whose tokens the head is given the states."""
    width, hidden = sizes.width, sizes.head_width
    # The first one is read through a view of all, or cast.
    view = FLOAT * tokens * width if element == FLOAT and sizes.pool != "mean" else 0
    dense = 2 * element * width if sizes.pool == "dense" else 0
    normed = layer_norm_bytes(width) if sizes.head == "normed" else 0
    return view + dense + normed + element * (width + 2 * hidden)


def cut_padding(tokens: Tensor, pad_token_id: int) -> Tensor:
    """Without the columns that are padding in all texts: the context may be several times as long as they are.

    On a processor, where their number is at hand; an exported graph takes tokens as they come.

    Args:
        tokens: [B, L] int64.
        pad_token_id: the padding.

    Returns:
        [B, l], l from 1 to L.
    """
    if tokens.device.type != "cpu" or torch.compiler.is_compiling() or not tokens.numel():
        return tokens
    has_words = (tokens != pad_token_id).any(dim=0).nonzero()
    return tokens[:, : int(has_words[-1]) + 1 if len(has_words) else 1]


class TextHead(nn.Module):
    """Pools the positions, then projects. Letters: B, L, W, D."""

    def __init__(self, config: HeadSizes, embed_dim: int) -> None:
        super().__init__()
        width, hidden = config.width, config.head_width
        self.pool: Pool = config.pool
        self.activates = config.head == "mlp"
        self.dense = Linear(width, width) if config.pool == "dense" else None
        self.ln = nn.LayerNorm(width, eps=config.layer_norm_eps) if config.head == "normed" else None
        self.up = Linear(width, hidden, bias=config.head == "normed") if hidden else None
        self.projection = None if config.head == "none" else Linear(hidden or width, embed_dim, bias=config.head_bias)

    def forward(self, x: Tensor, is_word: Tensor) -> Tensor:
        """[B, L, W], and which positions are no padding, [B, L] bool, to [B, D], not unit length."""
        if self.pool == "mean":
            weights = is_word[..., None].to(x)  # [B, L, 1]
            x = (x * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)  # [B, W]
        else:
            x = x[:, 0]
        if self.dense is not None:
            x = self.dense(x).tanh()
        if self.ln is not None:
            x = self.ln(x)
        if self.up is not None:
            x = self.up(x)
        if self.activates:
            x = F.gelu(x)
        return x if self.projection is None else self.projection(x)  # [B, D]
