"""ResNetTower, the modified ResNet of CLIP, and its config."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.batch_norm import BatchNorm2d
from diptych.model.blocks import Conv2d, Linear, as_grid, check_sizes, draw_normal, reset_to_defaults
from diptych.model.cost import TowerCost, without_blocks

_EXPANSION = 4  # output channels of a bottleneck, in units of its inner ones
_STEM_STRIDE = 4  # pixels of one side that become one position of the first stage; each later one halves the grid


@dataclass(frozen=True, kw_only=True)
class ResNetTowerConfig:
    """Sizes of a modified ResNet.

    Raises:
        ConfigError: a size below 1, no stage, an image that the grid does not divide, an odd stem width, or heads that
            do not divide the final width.
    """

    kind: Literal["resnet"] = "resnet"
    image_size: int = 224  # pixels of one side
    width: int  # channels of the stem; the paper's "width" is the final one, 32 times as many after four stages
    layers: tuple[int, ...]  # bottlenecks in each stage; four in the paper, fewer suit small pictures
    heads: int  # of the attention pool

    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = True
    has_blocks: ClassVar[bool] = False
    wants_channels_last: ClassVar[bool] = False
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_sizes("image", image_size=self.image_size, width=self.width, heads=self.heads)
        if not self.layers or min(self.layers) < 1:
            raise ConfigError(f"image.layers must be numbers of at least 1, one a stage. Got {list(self.layers)}.")
        if self.image_size % self.stride:
            raise ConfigError(
                f"image.image_size must be a multiple of {self.stride} for a ResNet of {len(self.layers)} stages. "
                f"Got {self.image_size}."
            )
        if self.width % 2:
            raise ConfigError(f"image.width must be even: the stem starts with half of it. Got {self.width}.")
        if self.final_width % self.heads:
            raise ConfigError(
                f"image.heads must divide the final width, {self.final_width // self.width} * image.width. "
                f"Got heads={self.heads}, width={self.width}."
            )

    @property
    def stride(self) -> int:
        """Pixels of one side that become one position of the last grid."""
        return _STEM_STRIDE * 2 ** (len(self.layers) - 1)

    @property
    def final_width(self) -> int:
        """W, channels of the last stage and of the features before the projection."""
        return 2 ** (len(self.layers) - 1) * _EXPANSION * self.width

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.final_width

    @property
    def patches(self) -> int:
        """P, positions of the last grid."""
        return (self.image_size // self.stride) ** 2

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"ResNet, {'-'.join(map(str, self.layers))} bottlenecks, stem of {self.width}"

    def build(self, embed_dim: int) -> "ResNetTower":
        """The tower; see `CLIP` for where its parameters are."""
        return ResNetTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        assert kept_patches is None
        width, side = self.width, self.image_size // 2
        first = 2 * 3 * (width // 2) * 9 * side**2
        stem = first + 2 * (width // 2) * (width // 2 + width) * 9 * side**2
        # Elements: pixels, and what enters and leaves each normalisation.
        kept = 3 * self.image_size**2 + 4 * width * side**2
        side //= 2
        channels, bottlenecks = width, 0
        kept += width * side**2
        for stage, count in enumerate(self.layers):
            inner = width * 2**stage
            for number in range(count):
                out = _EXPANSION * inner
                after = side // 2 if stage and number == 0 else side
                has_shortcut = number == 0
                bottlenecks += 2 * inner * (channels + 9 * inner) * side**2
                bottlenecks += 2 * out * (inner + has_shortcut * channels) * after**2
                pooled = inner + channels if after != side else 0
                kept += 4 * inner * side**2 + (out * (2 + has_shortcut) + pooled) * after**2
                channels, side = out, after
        final, tokens = self.final_width, 1 + self.patches
        pool = 2 * final**2 * (1 + 2 * tokens) + 4 * tokens * final  # one query, keys and values of all
        kept += 4 * tokens * final  # inputs and outputs of keys and values
        forward = stem + bottlenecks + pool + 2 * final * embed_dim
        return without_blocks(forward=forward, first=first, activations=element * kept)


class ResNetTower(nn.Module):
    """Modified ResNet: an image in, one feature out.

    Three convolutions as stem, average pools wherever the grid shrinks, attention in place of the last pool.
    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.
    In `torch.channels_last` memory, no step of the forward pass copies to another order.

    Source: CLIP, arXiv:2103.00020, section 2.4. Letters: B, S, P, W (final), D.
    """

    def __init__(self, config: ResNetTowerConfig, embed_dim: int) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Sequential(
            *_convolution(3, width // 2, kernel=3, stride=2),
            *_convolution(width // 2, width // 2, kernel=3),
            *_convolution(width // 2, width, kernel=3),
            nn.AvgPool2d(2),
        )
        self.stages = nn.Sequential()
        channels = width
        for stage, blocks in enumerate(config.layers):
            inner = width * 2**stage
            bottlenecks = []
            for block in range(blocks):
                bottlenecks.append(Bottleneck(channels, inner, shrink=2 if stage > 0 and block == 0 else 1))
                channels = inner * _EXPANSION
            self.stages.append(nn.Sequential(*bottlenecks))
        self.pool = AttentionPool(config.patches, config.final_width, config.heads)
        self.projection = Linear(config.final_width, embed_dim)

    def trunk(self, images: Tensor) -> Tensor:
        """Features before the projection, which linear probes are fitted on (CLIP, section 3.2).

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not unit length: what the attention pool mixed, before its output projection.
        """
        return self.pool(self._grid(images))

    def tokens_and_feature(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of the last grid, [B, P, W], and what `forward` gives, [B, D]."""
        x = self._grid(images)
        return x.flatten(2).transpose(1, 2), self.project(self.pool(x))

    def grid(self, images: Tensor) -> Tensor:
        """What each position of the last grid says in the space of the words: what the pool would give of it alone.

        The feature is a mean of these, each head with weights of its own, so what is left out is who asks.
        Source: MaskCLIP, arXiv:2112.01071, section 3.2.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / stride.
        """
        return as_grid(self.project(self.pool.of_each_alone(self._grid(images))))

    def _grid(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # [B, stem width, S / 4, S / 4]
        return self.stages(x)  # [B, W, S / stride, S / stride]

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

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does; every bottleneck starts as its shortcut."""
        reset_to_defaults(self, generator)
        for module in self.stages.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
        std = self.projection.in_features**-0.5
        pool = self.pool
        for parameter in (
            pool.position_embedding,
            pool.query.weight,
            pool.key.weight,
            pool.value.weight,
            self.projection.weight,
        ):
            draw_normal(parameter, std, generator)


class Bottleneck(nn.Module):
    """Residual block whose convolutions all have stride 1: an average pool does the shrinking, on both paths."""

    def __init__(self, channels: int, inner: int, *, shrink: int) -> None:
        super().__init__()
        out = inner * _EXPANSION
        self.conv1 = Conv2d(channels, inner, 1, bias=False)
        self.bn1 = BatchNorm2d(inner)
        self.conv2 = Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(inner)
        self.shrink = nn.AvgPool2d(shrink) if shrink > 1 else nn.Identity()
        self.conv3 = Conv2d(inner, out, 1, bias=False)
        self.bn3 = BatchNorm2d(out)
        self.shortcut = nn.Identity()
        if channels != out or shrink > 1:
            self.shortcut = nn.Sequential(self.shrink, Conv2d(channels, out, 1, bias=False), BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, s, s] to [B, 4 * inner, s / shrink, s / shrink]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(self.shrink(y)))
        return F.relu(y + self.shortcut(x), inplace=True)


class AttentionPool(nn.Module):
    """One attention step in which the mean of all positions asks, and they and itself answer.

    Its output projection is the image projection of CLIP and so belongs to the tower.
    """

    def __init__(self, patches: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, S / 32, S / 32] to [B, W]."""
        x = x.flatten(2).transpose(1, 2)  # [B, P, W]
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.position_embedding  # [B, 1 + P, W]
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, 1 or 1 + P, W / H]
            for projected in (self.query(x[:, :1]), self.key(x), self.value(x))
        )
        return F.scaled_dot_product_attention(query, key, value).flatten(1)  # [B, W]

    def of_each_alone(self, x: Tensor) -> Tensor:
        """[B, W, S / 32, S / 32] to [B, P, W]: the value of each position, the mean not among them."""
        return self.value(x.flatten(2).transpose(1, 2) + self.position_embedding[1:])


def _convolution(channels: int, out: int, *, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, BatchNorm2d(out), nn.ReLU(inplace=True)]
