"""ConvNeXtTower, a convolutional network built like a transformer, and its config.

Source: ConvNeXt, arXiv:2201.03545, section 2; as an image tower of CLIP: arXiv:2212.07143. Layer scale: CaiT,
arXiv:2103.17239, section 2.1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import Conv2d, Linear, check_sizes, draw_normal
from diptych.model.convolutions import ChannelNorm
from diptych.model.cost import TowerCost, layer_norm_bytes, without_blocks

_EXPANSION = 4  # channels inside of a block, in units of those outside
_KERNEL = 7  # positions of one side that a block looks at
_STEM = 4  # pixels of one side that become one position of the first stage; each later one halves the grid
_INITIAL_SCALE = 1e-6  # of what a block adds


@dataclass(frozen=True, kw_only=True)
class ConvNeXtTowerConfig:
    """Sizes of a ConvNeXt: ConvNeXt-B has widths 128 to 1,024 and 3, 3, 27 and 3 blocks.

    Raises:
        ConfigError: a size below 1, other numbers of widths than of layers, a picture smaller than one position of the
            last grid, or an unknown projection.
    """

    kind: Literal["convnext"] = "convnext"
    image_size: int = 224  # pixels of one side; what is left over of a position of the last grid is not looked at
    widths: tuple[int, ...] = (96, 192, 384, 768)  # channels of each stage; the last is W
    layers: tuple[int, ...] = (3, 3, 9, 3)  # blocks of each stage
    layer_norm_eps: float = 1e-6
    projection: Literal["linear", "mlp"] = "linear"  # mlp: two layers, 2 D between them
    projection_bias: bool = False  # of its last layer

    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = False
    wants_channels_last: ClassVar[bool] = True
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        for name in ("widths", "layers"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1:
                raise ConfigError(f"image.{name} must be numbers of at least 1, one a stage. Got {list(sizes)}.")
        if len(self.widths) != len(self.layers):
            raise ConfigError(
                "image.widths and image.layers must be as many as there are stages. "
                f"Got {len(self.widths)} and {len(self.layers)}."
            )
        check_sizes("image", image_size=self.image_size)
        if self.image_size < self.stride:
            raise ConfigError(
                f"image.image_size must be at least {self.stride}, one position after {len(self.layers)} stages. "
                f"Got {self.image_size}."
            )
        if not 0 < self.layer_norm_eps < 1:
            raise ConfigError(f"image.layer_norm_eps must lie between 0 and 1. Got {self.layer_norm_eps}.")
        if self.projection not in ("linear", "mlp"):
            raise ConfigError(f"image.projection must be 'linear' or 'mlp'. Got {self.projection!r}.")

    @property
    def stride(self) -> int:
        """Pixels of one side that become one position of the last grid."""
        return _STEM * 2 ** (len(self.layers) - 1)

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.widths[-1]

    @property
    def patches(self) -> int:
        """P, positions of the last grid."""
        return (self.image_size // self.stride) ** 2

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"ConvNeXt, {'-'.join(map(str, self.layers))} blocks, {self.widths[0]} to {self.widths[-1]} wide"

    def build(self, embed_dim: int) -> "ConvNeXtTower":
        """The tower; see `CLIP` for where its parameters are."""
        return ConvNeXtTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        assert kept_patches is None
        side, channels = self.image_size // _STEM, self.widths[0]
        first = 2 * 3 * channels * (_STEM * side) ** 2
        flops, kept = first, element * 3 * self.image_size**2 + side**2 * layer_norm_bytes(channels)
        for stage, (width, layers) in enumerate(zip(self.widths, self.layers, strict=True)):
            if stage:
                kept += side**2 * (layer_norm_bytes(channels) + element * channels)
                side //= 2
                flops += 2 * channels * width * (2 * side) ** 2
            positions, inner = side**2, _EXPANSION * width
            flops += layers * 2 * positions * width * (_KERNEL**2 + 2 * inner)
            # Of each position: what the look around reads, what is normalised and becomes of it, both sides of the
            # activation, and what is scaled.
            kept += layers * positions * (layer_norm_bytes(width) + element * (3 * width + 2 * inner))
            channels = width
        hidden = 2 * embed_dim if self.projection == "mlp" else 0
        flops += 2 * (channels * hidden + hidden * embed_dim if hidden else channels * embed_dim)
        kept += layer_norm_bytes(channels) + element * (channels + 2 * hidden)
        return without_blocks(forward=flops, first=first, activations=kept)


class ConvNeXtTower(nn.Module):
    """ConvNeXt: an image in, one feature out.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.
    In `torch.channels_last` memory, no step of the forward pass copies to another order.

    Source: see the file. Letters: B, S, P, W (final), D.
    """

    def __init__(self, config: ConvNeXtTowerConfig, embed_dim: int) -> None:
        super().__init__()
        epsilon = config.layer_norm_eps
        channels = config.widths[0]
        self.stem = nn.Sequential(Conv2d(3, channels, _STEM, stride=_STEM), ChannelNorm(channels, epsilon))
        self.stages = nn.Sequential()
        for number, (width, layers) in enumerate(zip(config.widths, config.layers, strict=True)):
            stage = nn.Sequential()
            if number:
                halve = Conv2d(channels, width, 2, stride=2)
                stage.add_module("downsample", nn.Sequential(ChannelNorm(channels, epsilon), halve))
            stage.add_module("blocks", nn.Sequential(*(ConvNeXtBlock(width, epsilon) for _ in range(layers))))
            self.stages.append(stage)
            channels = width
        self.norm = nn.LayerNorm(channels, eps=epsilon)
        self.projection = _projection(channels, embed_dim, config)

    def trunk(self, images: Tensor) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not unit length.
        """
        return self.norm(self._grid(images).mean(dim=(1, 2)))

    def tokens_and_feature(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of the last grid, [B, P, W], and what `forward` gives, [B, D]."""
        x = self._grid(images)
        return x.flatten(1, 2), self.project(self.norm(x.mean(dim=(1, 2))))

    def grid(self, images: Tensor) -> Tensor:
        """What each position of the last grid says in the space of the words: what the tower would make of it alone.

        Source: class activation mapping, arXiv:1512.04150, by norm and projection in place of a class's weights.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / stride.
        """
        return self.project(self.norm(self._grid(images)))

    def _grid(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # [B, first width, S / 4, S / 4]
        return self.stages(x).permute(0, 2, 3, 1)  # [B, S / stride, S / stride, W]

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.project(self.trunk(images))

    def project(self, trunk: Tensor) -> Tensor:
        """The last step: [B, W] to [B, D], not yet unit length."""
        return self.projection(trunk)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: every block starts as next to nothing."""
        for module in self.modules():
            if isinstance(module, Conv2d | Linear):
                draw_normal(module.weight, 0.02, generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()  # ones and zeros: nothing is drawn
            elif isinstance(module, ConvNeXtBlock):
                module.scale.fill_(_INITIAL_SCALE)


class ConvNeXtBlock(nn.Module):
    """Look around in each channel by itself, then an MLP at each position; what comes of both is scaled and added."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.depthwise = Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.up = Linear(width, _EXPANSION * width)
        self.down = Linear(_EXPANSION * width, width)
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, S, S] to the same."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # [B, S, S, width]
        y = self.down(F.gelu(self.up(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def _projection(width: int, embed_dim: int, config: ConvNeXtTowerConfig) -> nn.Module:
    if config.projection == "linear":
        return Linear(width, embed_dim, bias=config.projection_bias)
    hidden = 2 * embed_dim
    return nn.Sequential(Linear(width, hidden), nn.GELU(), Linear(hidden, embed_dim, bias=config.projection_bias))
