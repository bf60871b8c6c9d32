"""FastViTTower, the convolutional network of MobileCLIP with attention at its end, and its config.

Source: FastViT, arXiv:2303.14189, section 3; its sizes MCi0 to MCi2: MobileCLIP, arXiv:2311.17049, section 4.2; MCi3
and MCi4: MobileCLIP 2, arXiv:2508.20691. Parallel branches: MobileOne, arXiv:2206.04040, section 3.3.
"""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import Linear, check_sizes, draw_normal, reset_to_defaults
from diptych.model.convolutions import Branch, branched
from diptych.model.cost import TowerCost, without_blocks
from diptych.model.fastvit_blocks import HEAD, AttentionBlock, GridMLP, MixerBlock, Places, Squeeze, Unit
from diptych.model.fastvit_cost import Count

# Positions of one side that branches look at, where the grid is halved and before the pool.
_HALVING, _LAST = (7, 3), (3, 1)
_INITIAL_SCALE = 1e-5  # of what a block adds


@dataclass(frozen=True, kw_only=True)
class FastViTTowerConfig:
    """Sizes of a FastViT as MobileCLIP has it: MCi0 is what the defaults say.

    Raises:
        ConfigError: a size below 1, other numbers of widths than of layers, more stages of a sort than there are, an
            unknown norm, or a width of a stage with attention that is no multiple of 32.
    """

    kind: Literal["fastvit"] = "fastvit"
    image_size: int = 256  # pixels of one side
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of each stage
    layers: tuple[int, ...] = (2, 6, 10, 2)  # blocks of each stage
    expansion: int = 3  # channels inside of an MLP, in units of those outside
    attention_stages: int = 1  # of the last stages so many attend, and the others look around
    attention_norm: Literal["batch", "layer"] = "batch"  # before attention
    squeezed_stages: int = 2  # of the last stages so many weigh the channels where the grid is halved
    stem_scales: bool = True  # whether the stem's convolutions have a branch that looks at single positions
    fused: bool = False  # whether parallel branches are one convolution already, and no more can be learned apart

    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = True
    has_blocks: ClassVar[bool] = False
    wants_channels_last: ClassVar[bool] = True
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_sizes("image", image_size=self.image_size, expansion=self.expansion)
        for name in ("widths", "layers"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1:
                raise ConfigError(f"image.{name} must be numbers of at least 1, one a stage. Got {list(sizes)}.")
        stages = len(self.layers)
        if len(self.widths) != stages:
            raise ConfigError(
                "image.widths and image.layers must be as many as there are stages. "
                f"Got {len(self.widths)} and {stages}."
            )
        if any(width % before for before, width in itertools.pairwise(self.widths)):
            raise ConfigError(f"image.widths must be multiples, each of the one before it. Got {list(self.widths)}.")
        for name in ("attention_stages", "squeezed_stages"):
            if not 0 <= getattr(self, name) < stages:  # the first neither attends nor halves the grid
                raise ConfigError(f"image.{name} must be from 0 to {stages - 1}. Got {getattr(self, name)}.")
        if self.attention_norm not in ("batch", "layer"):
            raise ConfigError(f"image.attention_norm must be 'batch' or 'layer'. Got {self.attention_norm!r}.")
        for stage, width in enumerate(self.widths):
            if self.attends(stage) and width % HEAD:
                raise ConfigError(
                    f"image.widths must be multiples of {HEAD} in stages with attention. Got {list(self.widths)}."
                )

    def attends(self, stage: int) -> bool:
        """Whether the blocks of a stage attend."""
        return stage >= len(self.layers) - self.attention_stages

    def squeezes(self, stage: int) -> bool:
        """Whether channels are weighed where the grid is halved before a stage."""
        return stage >= len(self.layers) - self.squeezed_stages

    @property
    def final_width(self) -> int:
        """W, channels that the last grid is pooled from."""
        return 2 * self.widths[-1]

    @property
    def stem_kernels(self) -> tuple[int, ...]:
        """Of the branches of the stem's first two convolutions."""
        return (3, 1) if self.stem_scales else (3,)

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.final_width

    @property
    def patches(self) -> int:
        """P, positions of the last grid."""
        return math.ceil(self.image_size / 2 ** (1 + len(self.layers))) ** 2

    @property
    def summary(self) -> str:
        """In a few words."""
        form = ", branches fused" if self.fused else ""
        return f"FastViT, {'-'.join(map(str, self.layers))} blocks, {self.widths[0]} to {self.widths[-1]} wide{form}"

    def build(self, embed_dim: int) -> "FastViTTower":
        """The tower; see `CLIP` for where its parameters are."""
        return FastViTTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture in training; see `ImageTowerConfig.cost`."""
        assert kept_patches is None
        count = Count(self.image_size, element, fused=self.fused)
        width, final = self.widths[0], self.final_width
        count.unit(3, width, self.stem_kernels, stride=2)
        first = count.flops
        count.unit(width, width, self.stem_kernels, stride=2, groups=width)
        count.unit(width, width, (1,))
        for stage, (width, layers) in enumerate(zip(self.widths, self.layers, strict=True)):
            if stage:
                before = self.widths[stage - 1]
                squeezed = _squeezed(width) if self.squeezes(stage) else 0
                count.unit(before, width, _HALVING, stride=2, groups=before, squeezed=squeezed)
                count.unit(width, width, (1,))
            if self.attends(stage):
                count.places(width)
            for _ in range(layers):
                if self.attends(stage):
                    count.attention(width, norm=self.attention_norm)
                else:
                    count.mixer(width)
                count.mlp(width, self.expansion * width)
        count.unit(width, final, _LAST, groups=width, squeezed=_last_squeezed(final))
        return without_blocks(
            forward=count.flops + 2 * final * embed_dim, first=first, activations=count.kept + element * final
        )


class FastViTTower(nn.Module):
    """FastViT: an image in, one feature out.

    In training most convolutions are parallel branches with a batch norm each. Otherwise their sum is one convolution,
    whose kernel is computed from theirs: the same features up to rounding, and the parameters stay what they are.
    In `torch.channels_last` memory, no step of the forward pass copies to another order but attention.

    Source: see the file. Letters: B, S, P, W (final), D.
    """

    def __init__(self, config: FastViTTowerConfig, embed_dim: int) -> None:
        super().__init__()
        width, fused = config.widths[0], config.fused
        kernels = config.stem_kernels
        self.stem = nn.Sequential(
            Unit(branched(3, width, kernels, stride=2, fused=fused)),
            Unit(branched(width, width, kernels, stride=2, groups=width, fused=fused)),
            Unit(branched(width, width, (1,), has_identity=True, fused=fused)),
        )
        self.stages = nn.Sequential(*(_stage(config, stage) for stage in range(len(config.layers))))
        width, final = config.widths[-1], config.final_width
        look = branched(width, final, _LAST, groups=width, fused=fused)
        self.last = Unit(look, Squeeze(final, _last_squeezed(final)))
        self.projection = Linear(final, embed_dim)

    def trunk(self, images: Tensor) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not unit length.
        """
        return self._grid(images).mean(dim=(2, 3))

    def tokens_and_feature(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of the last grid, [B, P, W], and what `forward` gives, [B, D]."""
        x = self._grid(images)
        return x.flatten(2).transpose(1, 2), self.project(x.mean(dim=(2, 3)))

    def grid(self, images: Tensor) -> Tensor:
        """What each position of the last grid adds to the feature: its mean over positions is what `forward` gives.

        Source: class activation mapping, arXiv:1512.04150, by the projection in place of a class's weights.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length.
        """
        return self.project(self._grid(images).permute(0, 2, 3, 1))

    def _grid(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # [B, first width, S / 4, S / 4]
        return self.last(self.stages(x))  # [B, W, S / stride, S / stride]

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
        reset_to_defaults(self, generator)
        for module in self.modules():
            if isinstance(module, GridMLP):
                look = module.look.branches[0]
                assert isinstance(look, Branch)
                for layer in (look.conv, module.up, module.down):
                    draw_normal(layer.weight, 0.02, generator)
                for layer in (module.up, module.down):
                    assert layer.bias is not None
                    layer.bias.zero_()
            elif isinstance(module, Linear):
                draw_normal(module.weight, 0.02, generator)
                if module.bias is not None:
                    module.bias.zero_()
        for name, parameter in self.named_parameters():
            if name.endswith("scale"):
                parameter.fill_(_INITIAL_SCALE)


def _stage(config: FastViTTowerConfig, stage: int) -> nn.Sequential:
    """What halves the grid, where it is halved; positions, where there is attention; and the blocks."""
    width, fused = config.widths[stage], config.fused
    hidden = config.expansion * width
    parts = nn.Sequential()
    if stage:
        before = config.widths[stage - 1]
        look = branched(before, width, _HALVING, stride=2, groups=before, fused=fused)
        squeeze = Squeeze(width, _squeezed(width)) if config.squeezes(stage) else None
        mix = branched(width, width, (1,), has_identity=True, fused=fused)
        parts.add_module("downsample", nn.Sequential(Unit(look, squeeze), Unit(mix)))
    if config.attends(stage):
        parts.add_module("places", Places(width, fused=fused))
        blocks = [AttentionBlock(width, hidden, config.attention_norm) for _ in range(config.layers[stage])]
    else:
        blocks = [MixerBlock(width, hidden, fused=fused) for _ in range(config.layers[stage])]
    parts.add_module("blocks", nn.Sequential(*blocks))
    return parts


def _squeezed(width: int) -> int:
    """Channels that the weights of `width` channels are computed through: a quarter, in eights."""
    return max(8, int(width / 4 + 4) // 8 * 8)


def _last_squeezed(width: int) -> int:
    """The same before the pool: a sixteenth."""
    return max(1, int(width / 16 + 0.5))
