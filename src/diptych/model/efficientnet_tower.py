"""EfficientNetTower, the convolutional network EfficientNet-Lite with a projection on top, and its config.

Source: EfficientNet, arXiv:1905.11946, and the released code of its Lite variants: no squeeze-and-excitation, ReLU6 as
the only activation, and a stem and a last layer that do not grow with the rest.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import Conv2d, Linear, check_sizes, reset_to_defaults
from diptych.model.cost import FLOAT, TowerCost, without_blocks

# Of each stage at width 1 and depth 1: blocks, kernel (px), stride of the first block, expansion, output channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM = 32  # channels after the first convolution
_STRIDE = 32  # pixels of one side that become one position of the last grid
# Pixels of a thread's share of a batch: with more, what one layer hands to the next no longer stays in the cache.
# benchmarks/efficientnet_pieces.py
_CACHED = 150_000


@dataclass(frozen=True, kw_only=True)
class EfficientNetTowerConfig:
    """Sizes of an EfficientNet-Lite: lite0 is width 1, depth 1, 224 px; lite2 is width 1.1, depth 1.2, 260 px.

    Raises:
        ConfigError: a size below 1, or a factor that is not above 0.
    """

    kind: Literal["efficientnet-lite"] = "efficientnet-lite"
    image_size: int = 224  # pixels of one side
    second_size: int = 0  # pixels of one side for a second look at the same picture; 0: there is none
    width: float = 1.0  # factor on the channels of the stages
    depth: float = 1.0  # factor on the blocks of all stages but the first and the last
    final_width: int = 1280  # W, channels that the last grid is pooled from

    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False  # its batch norms are folded
    has_blocks: ClassVar[bool] = False
    token_width: ClassVar[int] = 0  # it looks twice, at two sizes
    # Its first picture then takes a fifth of the time: fewer kernels are compiled on the spot.
    wants_channels_last: ClassVar[bool] = True
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_sizes("image", image_size=self.image_size, final_width=self.final_width)
        for name in ("width", "depth"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"image.{name} must be above 0. Got {getattr(self, name)}.")
        if self.second_size < 0:
            raise ConfigError(f"image.second_size must be pixels, or 0 for no second look. Got {self.second_size}.")

    @property
    def stages(self) -> tuple[tuple[int, int, int, int, int], ...]:
        """Of each stage: blocks, kernel, stride of the first block, expansion, output channels."""
        last = len(STAGES) - 1
        return tuple(
            (
                blocks if number in (0, last) else math.ceil(blocks * self.depth),
                kernel,
                stride,
                expansion,
                to_eights(channels * self.width),
            )
            for number, (blocks, kernel, stride, expansion, channels) in enumerate(STAGES)
        )

    @property
    def patches(self) -> int:
        """P, positions of the last grid."""
        return math.ceil(self.image_size / _STRIDE) ** 2

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"EfficientNet-Lite, {'-'.join(str(stage[0]) for stage in self.stages)} blocks"

    def build(self, embed_dim: int) -> "EfficientNetTower":
        """The tower; see `CLIP` for where its parameters are."""
        return EfficientNetTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture, both looks; see `ImageTowerConfig.cost`."""
        assert kept_patches is None
        sides = (self.image_size, self.second_size) if self.second_size else (self.image_size,)
        looks = [self._look(side) for side in sides]
        forward = sum(look.flops for look in looks) + len(looks) * 2 * self.final_width * embed_dim
        # Of each look its input of the projection, and, as it is made a direction, vectors of D floats.
        head = len(looks) * (element * self.final_width + (FLOAT + element) * embed_dim)
        return without_blocks(
            forward=forward,
            first=sum(look.first for look in looks),
            activations=element * sum(look.kept for look in looks) + head,
        )

    def _look(self, side: int) -> "_Look":
        """What a picture of one size costs."""
        look = _Look(side)
        look.convolve(3, STEM, kernel=3, stride=2)
        look.first = look.flops
        channels = STEM
        for blocks, kernel, stride, expansion, out in self.stages:
            for block in range(blocks):
                inner = channels * expansion
                if expansion > 1:
                    look.convolve(channels, inner)
                look.convolve(inner, inner, kernel=kernel, stride=stride if block == 0 else 1, groups=inner)
                look.convolve(inner, out, is_clipped=False)
                channels = out
        look.convolve(channels, self.final_width)
        return look


class _Look:
    """A chain of convolutions, counted while it grows."""

    def __init__(self, side: int) -> None:
        self.side = side  # pixels, of what comes next
        self.flops = 0
        self.first = 0  # FLOPs of the layer that pixels enter
        self.kept = 0  # numbers, for the backward pass

    def convolve(
        self, channels: int, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, is_clipped: bool = True
    ) -> None:
        """One more `_SameConv`, with a ReLU6 behind it or without."""
        padding = _padding(self.side, kernel, stride)
        self.kept += channels * (self.side + padding * (padding % 2)) ** 2  # its input; an odd padding makes a copy
        self.side = math.ceil(self.side / stride)
        self.flops += 2 * channels // groups * out * kernel**2 * self.side**2
        self.kept += is_clipped * out * self.side**2  # in place, ReLU6 keeps a copy of what it was given


class EfficientNetTower(nn.Module):
    """EfficientNet-Lite: an image in, one feature out.

    Batch norms are folded into the convolutions, as a network whose weights stay as they are needs none. A second look
    at a smaller size helps with pictures that were small or blurred and have been enlarged: shrunk again, they are
    sharp. Each look gives a direction, and the feature is the sum of both.
    In `torch.channels_last` memory, no step of the forward pass copies to another order.

    Source: see the file. Letters: B, S, W, D.
    """

    def __init__(self, config: EfficientNetTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.second_size = config.second_size
        self.stem = _SameConv(3, STEM, 3, stride=2)
        self.stages = nn.Sequential()
        channels = STEM
        for blocks, kernel, stride, expansion, out in config.stages:
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(InvertedBottleneck(channels, out, kernel, stride if block == 0 else 1, expansion))
                channels = out
            self.stages.append(stage)
        self.last = _SameConv(channels, config.final_width, 1)
        self.projection = Linear(config.final_width, embed_dim)

    def trunk(self, images: Tensor) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, n W], not unit length: the looks, n of them, side by side.
        """
        return torch.cat(self.looks(images), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.project(self.trunk(images))

    def grid(self, images: Tensor) -> Tensor:
        """What each position of the last grid adds to the feature: its mean over positions is what `forward` gives.

        The grid of the second look is stretched to that of the first, and its mean put right.
        Source: class activation mapping, arXiv:1512.04150, by the projection in place of a class's weights.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / 32, rounded up.
        """
        whole: Tensor | None = None
        for pixels in self._sizes(images):
            x = self.projection(self._last_grid(pixels).permute(0, 2, 3, 1))  # [B, h, w, D]
            mean = x.mean(dim=(1, 2), keepdim=True)  # what the look makes of the picture
            if whole is not None:
                x = F.interpolate(x.permute(0, 3, 1, 2), whole.shape[1:3], mode="bilinear", align_corners=False)
                x = x.permute(0, 2, 3, 1)
                x = x + mean - x.mean(dim=(1, 2), keepdim=True)
            x = x / mean.norm(dim=-1, keepdim=True)
            whole = x if whole is None else whole + x
        assert whole is not None
        return whole

    def project(self, trunk: Tensor) -> Tensor:
        """What `trunk` gave, [B, n W], to [B, D]: the sum of the looks' directions."""
        looks = trunk.unflatten(-1, (-1, self.projection.in_features))  # [B, n, W]
        return F.normalize(self.projection(looks), dim=-1).sum(dim=1)

    def looks(self, images: Tensor) -> list[Tensor]:
        """What the network makes of [B, 3, S, S] at each size, [B, W] each: all that training of a head needs."""
        return [self._pooled(pixels) for pixels in self._sizes(images)]

    def _sizes(self, images: Tensor) -> list[Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        if not self.second_size:
            return [images]
        if torch.compiler.is_compiling():  # engines resize within a graph each in its own way, and agree on products
            weights = cubic_weights(images.shape[-1], self.second_size, images.device)  # [second size, S]
            return [images, weights @ images @ weights.T]
        side = (self.second_size, self.second_size)
        return [images, F.interpolate(images, side, mode="bicubic", align_corners=False, antialias=True)]

    def _pooled(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, W]; on a processor in pieces, as large as its cache can hold."""
        if images.device.type != "cpu" or torch.compiler.is_compiling():  # an exported batch may have any size
            return self._last_grid(images).mean(dim=(2, 3))
        at_once = _CACHED * torch.get_num_threads() // (images.shape[2] * images.shape[3])
        return torch.cat([self._last_grid(piece).mean(dim=(2, 3)) for piece in images.split(max(1, at_once))])

    def _last_grid(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, W, S / 32, S / 32]."""
        x = F.relu6(self.stem(images), inplace=True)  # [B, stem, S / 2, S / 2]
        x = self.stages(x)  # [B, channels, S / 32, S / 32]
        return F.relu6(self.last(x), inplace=True)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as torch does by default: to train such a tower from the start, take another kind."""
        reset_to_defaults(self, generator)


class InvertedBottleneck(nn.Module):
    """Widen, look around in each channel by itself, narrow; what came in is added where the shape is the same."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.widen = _SameConv(channels, inner, 1) if expansion > 1 else None
        self.depthwise = _SameConv(inner, inner, kernel, stride=stride, groups=inner)
        self.narrow = _SameConv(inner, out, 1)
        self.has_shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, S, S] to [B, out, S / stride, S / stride], rounded up."""
        y = x if self.widen is None else F.relu6(self.widen(x), inplace=True)
        y = self.narrow(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.has_shortcut else y


class _SameConv(Conv2d):
    """A convolution whose output has the input's side over the stride, rounded up: padded as TensorFlow does.

    Where the padding of a side is odd, the end gets one pixel more than the beginning.
    """

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        kernel, stride, side = self.kernel_size[0], self.stride[0], x.shape[-1]
        padding = _padding(side, kernel, stride)
        before = padding // 2
        if padding % 2:
            x = F.pad(x, (before, before + 1, before, before + 1))
            before = 0
        return F.conv2d(x, self.weight, self.bias, stride, before, 1, self.groups)


def _padding(side: int, kernel: int, stride: int) -> int:
    """Pixels that a side gets, both ends together."""
    return max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)


def to_eights(channels: float) -> int:
    """The nearest multiple of 8 that is not below 90% of it."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def cubic_weights(side: int, wanted: int, device: torch.device) -> Tensor:
    """[wanted, side]: how much each of a line's pixels counts for each of `F.interpolate`'s, bicubic with antialias.

    Source: Keys's cubic convolution with a = -1/2, as wide as a pixel that is wanted covers of the line.
    """
    step = side / wanted
    centre = (torch.arange(wanted, device=device) + 0.5) * step
    away = (torch.arange(side, device=device) + 0.5 - centre[:, None]).abs() / max(step, 1.0)
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = torch.where(away < 1, near, torch.where(away < 2, far, 0.0))
    return weights / weights.sum(dim=1, keepdim=True)
