"""AlignTower, the convolutional network EfficientNet as ALIGN has it, and its config.

Source: EfficientNet, arXiv:1905.11946; squeeze-and-excitation, arXiv:1709.01507; ALIGN, arXiv:2102.05918; the released
code of ALIGN, which pads and adds shortcuts by rules of its own.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.batch_norm import BatchNorm2d
from diptych.model.blocks import Conv2d, check_sizes, draw_normal
from diptych.model.cost import TowerCost, without_blocks
from diptych.model.efficientnet_tower import STAGES, STEM, to_eights

_SQUEEZED = 4  # channels that come into a block by those that its gates are made from
_EPSILON = 1e-3  # of batch norms


@dataclass(frozen=True, kw_only=True)
class AlignTowerConfig:
    """Sizes of ALIGN's EfficientNet. The defaults are those of EfficientNet-B7, which ALIGN was published with.

    Raises:
        ConfigError: a size below 1, a factor that is not above 0, or a block that there is not.
    """

    kind: Literal["align"] = "align"
    image_size: int = 289  # pixels of one side
    width: float = 2.0  # factor on the channels
    depth: float = 3.1  # factor on the blocks of each stage
    # Numbers of blocks whose first convolution is padded on both sides where it shrinks the grid, from 0; the others
    # are padded at the end. In the released weights these are the blocks whose grid has an odd side.
    padded_alike: tuple[int, ...] = ()

    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = True
    has_blocks: ClassVar[bool] = False
    wants_channels_last: ClassVar[bool] = True
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_sizes("image", image_size=self.image_size)
        for name in ("width", "depth"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"image.{name} must be above 0. Got {getattr(self, name)}.")
        count = len(self.blocks)
        if any(not 0 <= number < count for number in self.padded_alike):
            raise ConfigError(
                f"image.padded_alike must hold numbers of blocks, 0 to {count - 1}. Got {list(self.padded_alike)}."
            )

    @property
    def blocks(self) -> tuple["_Block", ...]:
        """What each block does, in order."""
        found: list[_Block] = []
        channels = self.stem_width
        for repeats, kernel, stride, expansion, out in STAGES:
            for number in range(math.ceil(self.depth * repeats)):
                first = number == 0
                found.append(
                    _Block(
                        channels=channels,
                        out=to_eights(out * self.width),
                        kernel=kernel,
                        stride=stride if first else 1,
                        expansion=expansion,
                        pads_alike=len(found) in self.padded_alike,
                        has_shortcut=not first,
                    )
                )
                channels = found[-1].out
        return tuple(found)

    @property
    def stem_width(self) -> int:
        """Channels after the first convolution."""
        return to_eights(STEM * self.width)

    @property
    def fixed_embed_dim(self) -> int | None:
        """D: the last channels; there is no projection to any other."""
        return to_eights(STAGES[-1][-1] * self.width)

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return to_eights(STAGES[-1][-1] * self.width)

    @property
    def patches(self) -> int:
        """P, positions of the last grid."""
        side = self.image_size // 2
        for block in self.blocks:
            side = block.side_after(side)
        return side**2

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"EfficientNet of {len(self.blocks)} blocks, to {self.token_width} channels"

    def build(self, embed_dim: int) -> "AlignTower":
        """The tower; see `CLIP` for where its parameters are."""
        assert embed_dim == self.fixed_embed_dim
        return AlignTower(self)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        assert embed_dim == self.fixed_embed_dim
        assert kept_patches is None
        side = self.image_size // 2
        first = 2 * 3 * self.stem_width * 9 * side**2
        # Numbers: pixels, padded; and of each convolution its input, and what its norm and activation are given.
        kept, flops = 3 * (self.image_size + 1) ** 2 + 2 * self.stem_width * side**2, first
        for block in self.blocks:
            inner, squeezed, after = block.inner, block.squeezed, block.side_after(side)
            kept += block.channels * side**2
            if block.expansion > 1:
                flops += 2 * block.channels * inner * side**2
                kept += 2 * inner * side**2
            if block.expansion > 1 or block.stride > 1:
                kept += inner * (side + block.padding) ** 2
            flops += 2 * inner * (block.kernel**2 + block.out) * after**2 + 4 * inner * squeezed
            # What is gated is kept once as it is and once gated; the narrow one goes through a norm alone.
            kept += (4 * inner + block.out) * after**2 + 3 * inner + 2 * squeezed
            side = after
        return without_blocks(forward=flops, first=first, activations=element * kept)


@dataclass(frozen=True, kw_only=True)
class _Block:
    channels: int  # that come in
    out: int
    kernel: int
    stride: int
    expansion: int
    pads_alike: bool
    has_shortcut: bool

    @property
    def inner(self) -> int:
        """Channels of the depthwise convolution."""
        return self.channels * self.expansion

    @property
    def squeezed(self) -> int:
        """Channels that the gates are made from."""
        return max(1, self.channels // _SQUEEZED)

    @property
    def padding(self) -> int:
        """Pixels that a side gets before the depthwise convolution by a step of its own, both ends together."""
        if self.stride == 1:
            return 0  # the convolution pads
        return self.kernel - 1 if self.pads_alike else self.kernel - 2

    def side_after(self, side: int) -> int:
        """Of the grid behind the block."""
        return side if self.stride == 1 else (side + self.padding - self.kernel) // self.stride + 1


class AlignTower(nn.Module):
    """EfficientNet with gates: an image in, one feature out, the mean of the last grid.

    Source: see the file. Letters: B, S, P, W; D is W.
    """

    def __init__(self, config: AlignTowerConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),
            Conv2d(3, config.stem_width, 3, stride=2, bias=False),
            BatchNorm2d(config.stem_width, eps=_EPSILON),
            nn.SiLU(),
        )
        self.stages = nn.Sequential(*(GatedBottleneck(block) for block in config.blocks))

    def trunk(self, images: Tensor) -> Tensor:
        """Features that linear probes are fitted on: there is no projection, so they are those of `forward`.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not unit length.
        """
        return self._last_grid(images).mean(dim=(2, 3))

    def project(self, trunk: Tensor) -> Tensor:
        """The last step of the other towers; this one has none, D is W."""
        return trunk

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.trunk(images)

    def tokens_and_feature(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of the last grid, [B, P, W], and what `forward` gives, [B, W]."""
        x = self._last_grid(images)
        return x.flatten(2).transpose(1, 2), x.mean(dim=(2, 3))

    def grid(self, images: Tensor) -> Tensor:
        """What each position of the last grid adds to the feature, which is their mean.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, W], not unit length.
        """
        return self._last_grid(images).permute(0, 2, 3, 1)

    def _last_grid(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, W, h, w]."""
        return self.stages(self.stem(images))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code of EfficientNet does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                draw_normal(module.weight, (2 / fan_out) ** 0.5, generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()  # ones and zeros: nothing is drawn


class GatedBottleneck(nn.Module):
    """Widen, look around in each channel by itself, weigh the channels by what all positions say, narrow."""

    def __init__(self, block: _Block) -> None:
        super().__init__()
        inner = block.inner
        self.widen = Conv2d(block.channels, inner, 1, bias=False) if block.expansion > 1 else None
        self.bn_widen = BatchNorm2d(inner, eps=_EPSILON) if block.expansion > 1 else None
        before = block.padding // 2
        after = block.padding - before
        self.pad = nn.ZeroPad2d((before, after, before, after)) if block.stride > 1 else nn.Identity()
        padding = block.kernel // 2 if block.stride == 1 else 0
        self.depthwise = Conv2d(
            inner, inner, block.kernel, stride=block.stride, padding=padding, groups=inner, bias=False
        )
        self.bn_depthwise = BatchNorm2d(inner, eps=_EPSILON)
        self.squeeze = Conv2d(inner, block.squeezed, 1)
        self.excite = Conv2d(block.squeezed, inner, 1)
        self.narrow = Conv2d(inner, block.out, 1, bias=False)
        self.bn_narrow = BatchNorm2d(block.out, eps=_EPSILON)
        self.has_shortcut = block.has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, s, s] to [B, out, s / stride, s / stride]."""
        y = x
        if self.widen is not None and self.bn_widen is not None:
            y = F.silu(self.bn_widen(self.widen(y)))
        y = F.silu(self.bn_depthwise(self.depthwise(self.pad(y))))
        gates = self.excite(F.silu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))).sigmoid()  # [B, inner, 1, 1]
        y = self.bn_narrow(self.narrow(y * gates))
        return x + y if self.has_shortcut else y
