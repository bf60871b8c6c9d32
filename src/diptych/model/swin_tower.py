"""SwinTower, a vision transformer that attends within windows of a grid that is halved on the way, and its config.

Source: Swin Transformer, arXiv:2103.14030, section 3.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import MLP, Conv2d, Linear, check_sizes, draw_normal, reset_to_defaults
from diptych.model.cost import FLOAT, TowerCost, layer_norm_bytes, without_blocks

_PATCH = 4  # pixels of one side that become one position of the first stage; each later one halves the grid
_EXPANSION = 4  # channels inside of an MLP, in units of those outside


@dataclass(frozen=True, kw_only=True)
class SwinTowerConfig:
    """Sizes of a Swin transformer: those of Swin-B are what the defaults say.

    Raises:
        ConfigError: a size below 1, other numbers of heads than of layers, heads that do not divide a stage's width, or
            a picture whose grids are no whole number of windows.
    """

    kind: Literal["swin"] = "swin"
    image_size: int = 224  # pixels of one side
    width: int = 128  # channels of the first stage; each later one doubles them
    layers: tuple[int, ...] = (2, 2, 18, 2)  # blocks of each stage
    heads: tuple[int, ...] = (4, 8, 16, 32)  # of each stage
    window: int = 7  # positions of one side of a window
    layer_norm_eps: float = 1e-5

    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = False
    wants_channels_last: ClassVar[bool] = False
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_sizes("image", image_size=self.image_size, width=self.width, window=self.window)
        for name in ("layers", "heads"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1:
                raise ConfigError(f"image.{name} must be numbers of at least 1, one a stage. Got {list(sizes)}.")
        if len(self.heads) != len(self.layers):
            raise ConfigError(
                "image.heads and image.layers must be as many as there are stages. "
                f"Got {len(self.heads)} and {len(self.layers)}."
            )
        if any(self.width_of(stage) % heads for stage, heads in enumerate(self.heads)):
            raise ConfigError(
                "image.heads must divide the width of each stage, which doubles from one to the next. "
                f"Got heads={list(self.heads)}, width={self.width}."
            )
        if self.image_size % (self.stride * self.window):
            raise ConfigError(
                f"image.image_size must be a multiple of {self.stride * self.window}, so that windows of "
                f"{self.window} fill the grid of each stage. Got {self.image_size}."
            )
        if not 0 < self.layer_norm_eps < 1:
            raise ConfigError(f"image.layer_norm_eps must lie between 0 and 1. Got {self.layer_norm_eps}.")

    def width_of(self, stage: int) -> int:
        """Channels of a stage."""
        return self.width * 2**stage

    @property
    def stride(self) -> int:
        """Pixels of one side that become one position of the last grid."""
        return _PATCH * 2 ** (len(self.layers) - 1)

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.width_of(len(self.layers) - 1)

    @property
    def patches(self) -> int:
        """P, positions of the last grid."""
        return (self.image_size // self.stride) ** 2

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"Swin, {'-'.join(map(str, self.layers))} blocks, windows of {self.window}, {self.width} wide at first"

    def build(self, embed_dim: int) -> "SwinTower":
        """The tower; see `CLIP` for where its parameters are."""
        return SwinTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        assert kept_patches is None
        positions, width, seen = (self.image_size // _PATCH) ** 2, self.width, self.window**2
        first = 2 * 3 * _PATCH**2 * width * positions
        flops, kept = first, element * 3 * self.image_size**2 + positions * layer_norm_bytes(width)
        for stage, (layers, heads) in enumerate(zip(self.layers, self.heads, strict=True)):
            if stage:
                positions //= 4
                kept += positions * (layer_norm_bytes(4 * width) + element * 4 * width)
                flops += 2 * positions * 4 * width * 2 * width
                width *= 2
            flops += layers * positions * (2 * width * (4 + 2 * _EXPANSION) * width + 4 * seen * width)
            # Of each position: inputs of both layer norms; inputs of the attention, query, key, value, its output, the
            # input of the MLP and both sides of its activation; and the attention's matrix, once in each type.
            matrix = heads * seen * (FLOAT + (element if element < FLOAT else 0))
            inside = element * (6 + 2 * _EXPANSION) * width + matrix
            kept += layers * positions * (2 * layer_norm_bytes(width) + inside)
        kept += positions * layer_norm_bytes(width) + element * width
        return without_blocks(forward=flops + 2 * width * embed_dim, first=first, activations=kept)


class SwinTower(nn.Module):
    """Swin transformer: an image in, one feature out, the mean of the last grid.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file. Letters: B, S, P, W (final), D, H (heads), K (positions of a window).
    """

    def __init__(self, config: SwinTowerConfig, embed_dim: int) -> None:
        super().__init__()
        epsilon = config.layer_norm_eps
        self.patch_embedding = Conv2d(3, config.width, _PATCH, stride=_PATCH)
        self.ln_pre = nn.LayerNorm(config.width, eps=epsilon)
        self.stages = nn.Sequential()
        for number, (layers, heads) in enumerate(zip(config.layers, config.heads, strict=True)):
            side = config.image_size // (_PATCH * 2**number)
            stage = nn.Sequential()
            if number:
                stage.add_module("downsample", Merge(config.width_of(number - 1), epsilon))
            blocks = [
                # Every second block has its windows between those of the first, where there is more than one.
                WindowBlock(config, number, heads, config.window // 2 if block % 2 and side > config.window else 0)
                for block in range(layers)
            ]
            stage.add_module("blocks", nn.Sequential(*blocks))
            self.stages.append(stage)
        self.ln_post = nn.LayerNorm(config.token_width, eps=epsilon)
        self.projection = Linear(config.token_width, embed_dim, bias=False)

    def trunk(self, images: Tensor) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not unit length.
        """
        return self._grid(images).mean(dim=(1, 2))

    def tokens_and_feature(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of the last grid, [B, P, W], and what `forward` gives, [B, D]."""
        x = self._grid(images)
        return x.flatten(1, 2), self.project(x.mean(dim=(1, 2)))

    def grid(self, images: Tensor) -> Tensor:
        """What each position of the last grid adds to the feature: its mean over positions is what `forward` gives.

        Source: class activation mapping, arXiv:1512.04150, by the projection in place of a class's weights.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / stride.
        """
        return self.project(self._grid(images))

    def _grid(self, images: Tensor) -> Tensor:
        x = self.ln_pre(self.patch_embedding(images).permute(0, 2, 3, 1))  # [B, S / 4, S / 4, first width]
        return self.ln_post(self.stages(x))  # [B, S / stride, S / stride, W]

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
        """Draw all parameters as the released code does."""
        reset_to_defaults(self, generator)
        for module in self.modules():
            if isinstance(module, Linear):
                draw_normal(module.weight, 0.02, generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, WindowAttention):
                draw_normal(module.position_table, 0.02, generator)


class Merge(nn.Module):
    """Four neighbours become one, of twice the width."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=epsilon)
        self.reduction = Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, width] to [B, h / 2, w / 2, 2 width]."""
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, h / 2, 2, w / 2, 2, width]
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))  # column by column, as released


class WindowAttention(nn.Module):
    """Multi-head self-attention among the positions of a window, with a bias for how far apart two of them are."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.position_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.in_projection = Linear(width, 3 * width)
        self.out_projection = Linear(width, width)

    def forward(self, x: Tensor, apart: Tensor | None) -> Tensor:
        """[B, N, K, W], N windows, to the same.

        Args:
            x: [B, N, K, W].
            apart: [N, K, K] bool, pairs that may not look at each other; None: all may.
        """
        qkv = self.in_projection(x).unflatten(-1, (3, self.heads, -1))  # [B, N, K, 3, H, W / H]
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).unbind()  # [B, N, H, K, W / H] each
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + self._bias()  # [B, N, H, K, K]
        if apart is not None:
            logits = logits.masked_fill(apart[:, None], -torch.inf)
        x = logits.float().softmax(dim=-1).to(value.dtype) @ value
        return self.out_projection(x.transpose(2, 3).flatten(3))

    def _bias(self) -> Tensor:
        """[H, K, K]."""
        steps = torch.arange(self.window, device=self.position_table.device)
        down, right = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
        reach = 2 * self.window - 1
        rows = (down[:, None] - down + self.window - 1) * reach + right[:, None] - right + self.window - 1  # [K, K]
        return self.position_table[rows].permute(2, 0, 1)


class WindowBlock(nn.Module):
    """Pre-LN residual block of a transformer whose attention stays within windows, which may be shifted."""

    def __init__(self, config: SwinTowerConfig, stage: int, heads: int, shift: int) -> None:
        super().__init__()
        width, epsilon = config.width_of(stage), config.layer_norm_eps
        self.window, self.shift = config.window, shift
        self.ln_attention = nn.LayerNorm(width, eps=epsilon)
        self.attention = WindowAttention(width, heads, config.window)
        self.ln_mlp = nn.LayerNorm(width, eps=epsilon)
        self.mlp = MLP(width, _EXPANSION * width, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, W] to the same."""
        x = x + self._attended(self.ln_attention(x))
        return x + self.mlp(self.ln_mlp(x))

    def _attended(self, x: Tensor) -> Tensor:
        high, wide = x.shape[1:3]
        if not self.shift:
            return self._joined(self.attention(self._windows(x), None), high, wide)
        x = self._windows(torch.roll(x, (-self.shift, -self.shift), (1, 2)))
        x = self._joined(self.attention(x, self._apart(high, wide, x.device)), high, wide)
        return torch.roll(x, (self.shift, self.shift), (1, 2))

    def _windows(self, x: Tensor) -> Tensor:
        """[B, h, w, W] to [B, N, K, W]."""
        x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _joined(self, x: Tensor, high: int, wide: int) -> Tensor:
        """[B, N, K, W] to [B, h, w, W]."""
        x = x.unflatten(2, (self.window, -1)).unflatten(1, (high // self.window, wide // self.window))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _apart(self, high: int, wide: int, device: torch.device) -> Tensor:
        """Pairs of a window that came together from the two ends of the grid, [N, K, K]."""

        def part(side: int) -> Tensor:
            """Of each position whether it is before the last window, in its first part, or in what was moved."""
            steps = torch.arange(side, device=device)
            return (steps >= side - self.window).long() + (steps >= side - self.shift).long()

        parts = self._windows((3 * part(high)[:, None] + part(wide))[None, :, :, None])[0, :, :, 0]  # [N, K]
        return parts[:, :, None] != parts[:, None]
