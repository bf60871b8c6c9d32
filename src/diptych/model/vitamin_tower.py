"""ViTaminTower, convolutions and then a vision transformer, and its config.

Source: ViTamin, arXiv:2404.02132, section 3, with the released code. Letters: B, S, P, W, D.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    Activation,
    Block,
    Conv2d,
    GatedMLP,
    Linear,
    Stack,
    as_grid,
    check_blocks,
    check_sizes,
    draw_normal,
    reset_to_defaults,
)
from diptych.model.convolutions import ChannelNorm
from diptych.model.cost import FLOAT, TowerCost, attention_bytes, attention_flops, layer_norm_bytes, stack_cost

_EXPANSION = 4  # of channels within a convolutional block
_STRIDE = 16  # pixels of one side that become one position
_STD = 0.02  # of all weights of the transformer at the start


@dataclass(frozen=True, kw_only=True)
class ViTaminTowerConfig:
    """Sizes of ViTamin.

    Raises:
        ConfigError: a size below 1, positions that do not fill the image, heads that do not divide the width, or an
            odd width of the stem.
    """

    kind: Literal["vitamin"] = "vitamin"
    image_size: int = 224  # pixels of one side
    stem_width: int  # channels of the stem and of the first stage; the second has twice as many
    stage_layers: tuple[int, int] = (2, 4)  # convolutional blocks of both stages
    width: int  # channels of the residual stream of the transformer
    layers: int  # of the transformer
    heads: int
    mlp_width: int = 0  # hidden channels of the gated MLP; 0 stands for 2 * width and is replaced by it
    has_positions: bool = True  # whether they are learned; without, the borders that convolutions see tell them
    layer_norm_eps: float = 1e-6

    can_drop_patches: ClassVar[bool] = False  # convolutions, most of what an early position costs, need all of them
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = True
    wants_channels_last: ClassVar[bool] = True
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 2 * self.width)
        object.__setattr__(self, "stage_layers", tuple(self.stage_layers))
        check_sizes("image", image_size=self.image_size, stem_width=self.stem_width)
        check_blocks("image", self)
        if len(self.stage_layers) != 2 or min(self.stage_layers) < 1:
            raise ConfigError(f"image.stage_layers must be two numbers from 1. Got {list(self.stage_layers)}.")
        if self.stem_width % 2:
            raise ConfigError(f"image.stem_width must be even. Got {self.stem_width}.")
        if self.image_size % _STRIDE:
            raise ConfigError(f"image.image_size must be a multiple of {_STRIDE}. Got {self.image_size}.")

    @property
    def patches(self) -> int:
        """P."""
        return (self.image_size // _STRIDE) ** 2

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.width

    @property
    def activation(self) -> Activation:
        """Of an MLP without a gate, and of the gate of GeGLU."""
        return "gelu"

    @property
    def summary(self) -> str:
        """In a few words."""
        stages = "-".join(map(str, self.stage_layers))
        return f"ViTamin, {stages} convolutional blocks, {self.layers} layers of {self.width}"

    @property
    def convolutions(self) -> list[tuple[int, int, int]]:
        """Channels in, channels out and stride of each convolutional block."""
        found, channels = [], self.stem_width
        for layers, width in zip(self.stage_layers, (self.stem_width, 2 * self.stem_width), strict=True):
            found += [(channels, width, 2), *((width, width, 1) for _ in range(layers - 1))]
            channels = width
        return found

    def build(self, embed_dim: int) -> "ViTaminTower":
        """The tower; see `CLIP` for where its parameters are."""
        return ViTaminTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        assert kept_patches is None
        tokens, width, hidden = self.patches, self.width, self.mlp_width
        first, flops, outside = self._stem_cost(element)
        kept = attention_bytes(width, self.heads, tokens, element) + tokens * layer_norm_bytes(width)
        # Of the MLP: what its own layer norm is given and gives; gate before and after GELU, what it opens, and both.
        kept += tokens * (layer_norm_bytes(width) + element * (width + 4 * hidden))
        kept += tokens * element * width if element < FLOAT else 0  # autocast has a copy for the gate, and one for up
        return stack_cost(
            layers=self.layers,
            block=attention_flops(width, tokens) + 6 * tokens * width * hidden,
            kept=kept,
            stream=tokens * width * FLOAT,
            first=first,
            last=flops + 2 * width * embed_dim,
            outside=outside + layer_norm_bytes(width) + element * width,  # of the mean
        )

    def _stem_cost(self, element: int) -> tuple[int, int, int]:
        """Of all convolutions: FLOPs of the first, those of the others, and bytes kept."""
        side, stem = self.image_size // 2, self.stem_width
        first = 2 * 9 * 3 * stem * side**2
        flops = 2 * 9 * stem**2 * side**2
        # Pixels; the layer norm's input, both sides of GELU.
        kept = element * 3 * self.image_size**2 + side**2 * (layer_norm_bytes(stem, element) + element * 2 * stem)
        for channels, out, stride in self.convolutions:
            positions, inner = side**2, _EXPANSION * out
            side //= stride
            flops += 2 * (positions * channels * inner + side**2 * inner * (9 + out))
            # The layer norm's input and output; both sides of GELU, twice.
            kept += positions * (layer_norm_bytes(channels, element) + element * (channels + 2 * inner))
            kept += side**2 * element * 2 * inner
            if channels != out:
                flops += 2 * side**2 * channels * out
                kept += side**2 * element * channels
        channels = 2 * stem
        kept += side**2 * (layer_norm_bytes(channels, element) + element * channels)
        flops += 2 * 9 * channels * self.width * (side // 2) ** 2
        return first, flops, kept


class ViTaminTower(nn.Module):
    """Convolutions, then a vision transformer over what they give: an image in, one feature out, the mean of positions.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.
    In `torch.channels_last` memory, no step of the convolutions copies to another order.

    Source: see the file.
    """

    def __init__(self, config: ViTaminTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.stem = _Stem(config)
        positions = nn.Parameter(torch.empty(config.patches, config.width)) if config.has_positions else None
        self.position_embedding = positions
        self.blocks = Stack(*(GeGLUBlock(config) for _ in range(config.layers)))
        self.ln_post = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = Linear(config.width, embed_dim, bias=False)

    def trunk(self, images: Tensor) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not unit length.
        """
        return self.ln_post(self._positions(images).mean(dim=1))

    def project(self, trunk: Tensor) -> Tensor:
        """The last step: [B, W] to [B, D], not yet unit length."""
        return self.projection(trunk)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.project(self.trunk(images))

    def tokens_and_feature(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of each position, [B, P, W], and what `forward` gives, [B, D]."""
        x = self._positions(images)
        return x, self.project(self.ln_post(x.mean(dim=1)))

    def grid(self, images: Tensor) -> Tensor:
        """What each position says in the space of the words: what the tower would make of it alone.

        Source: class activation mapping, arXiv:1512.04150, by norm and projection in place of a class's weights.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / 16.
        """
        return as_grid(self.project(self.ln_post(self._positions(images))))

    def _positions(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)  # [B, P, W]
        return self.blocks(x if self.position_embedding is None else x + self.position_embedding)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does."""
        reset_to_defaults(self, generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw_normal(module.weight, _STD, generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                fan_out = module.weight[:, 0].numel() // module.groups
                draw_normal(module.weight, (2 / fan_out) ** 0.5, generator)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        if self.position_embedding is not None:
            draw_normal(self.position_embedding, _STD, generator)


class _Stem(nn.Module):
    """All convolutions: two in a row, two stages of blocks, and one that widens."""

    def __init__(self, config: ViTaminTowerConfig) -> None:
        super().__init__()
        width, epsilon = config.stem_width, config.layer_norm_eps
        self.first = Conv2d(3, width, 3, stride=2, padding=1)
        self.norm = ChannelNorm(width, epsilon)
        self.second = Conv2d(width, width, 3, padding=1)
        blocks = [MBConv(*sizes, epsilon) for sizes in config.convolutions]
        split = config.stage_layers[0]
        self.stages = nn.Sequential(nn.Sequential(*blocks[:split]), nn.Sequential(*blocks[split:]))
        self.last_norm = ChannelNorm(2 * width, epsilon)
        self.last = Conv2d(2 * width, config.width, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, W, S / 16, S / 16]."""
        x = self.second(F.gelu(self.norm(self.first(images))))  # [B, stem, S / 2, S / 2]
        return self.last(self.last_norm(self.stages(x)))


class MBConv(nn.Module):
    """Widen, look around in each channel by itself, narrow; what came in is added, shrunk and widened where it must be.

    Source: MobileNetV2, arXiv:1801.04381, with layer norm and GELU, as in ViTamin, section 3.2.
    """

    def __init__(self, channels: int, out: int, stride: int, epsilon: float) -> None:
        super().__init__()
        inner = _EXPANSION * out
        self.stride = stride
        self.norm = ChannelNorm(channels, epsilon)
        self.widen = Conv2d(channels, inner, 1)
        self.depthwise = Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner)
        self.narrow = Conv2d(inner, out, 1)
        self.shortcut = Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, S, S] to [B, out, S / stride, S / stride]."""
        y = F.gelu(self.widen(self.norm(x)))
        y = self.narrow(F.gelu(self.depthwise(y)))
        if self.stride > 1:
            x = F.avg_pool2d(x, 3, self.stride, padding=1, count_include_pad=False)
        return y + (x if self.shortcut is None else self.shortcut(x))


class GeGLUBlock(Block):
    """Pre-LN residual block whose MLP is GeGLU, with a second layer norm before it."""

    def __init__(self, config: ViTaminTowerConfig) -> None:
        super().__init__(
            width=config.width,
            heads=config.heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            layer_norm_eps=config.layer_norm_eps,
            is_causal=False,
        )
        norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.mlp = nn.Sequential(norm, GatedMLP(config.width, config.mlp_width, F.gelu))
