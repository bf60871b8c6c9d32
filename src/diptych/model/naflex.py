"""NaFlexTower, the vision transformer of SigLIP 2 for pictures that keep their shape, and its config.

Source: NaFlex of SigLIP 2, arXiv:2502.14786, with the released code; many lengths in training, NaViT, arXiv:2307.06304.
Letters: B, N, P, W; D is W.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ShapeError
from diptych.model.blocks import (
    Activation,
    Linear,
    Stack,
    check_blocks,
    check_patches,
    check_sizes,
    draw_normal,
    draw_uniform,
)
from diptych.model.cost import TowerCost
from diptych.model.siglip import ProbePool, pooled_cost, reset_as_released

_PLACE = 2  # numbers of a row before its pixels: row and column of the patch, from 1


@dataclass(frozen=True, kw_only=True)
class NaFlexTowerConfig:
    """Sizes of a vision transformer for pictures of any shape and of any number of patches.

    Raises:
        ConfigError: a size below 1, patches that do not fill the image, or heads that do not divide the width.
    """

    kind: Literal["naflex"] = "naflex"
    image_size: int = 256  # pixels of one side of a square picture; others have at most as many patches
    patch_size: int  # pixels of one side
    position_grid: int = 0  # learned positions of one side, stretched to each picture's grid; 0: those of image_size
    width: int  # channels of the residual stream, and of the feature: there is no projection
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "gelu_tanh"
    layer_norm_eps: float = 1e-6

    can_drop_patches: ClassVar[bool] = False  # they are as many as there is time for anyhow
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = True
    wants_channels_last: ClassVar[bool] = False
    has_grid: ClassVar[bool] = True
    token_width: ClassVar[int] = 0  # some of its tokens are padding, which no objective is told

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("image", image_size=self.image_size, patch_size=self.patch_size)
        check_blocks("image", self)
        check_patches(self.image_size, self.patch_size)
        object.__setattr__(self, "position_grid", self.position_grid or self.image_size // self.patch_size)
        check_sizes("image", position_grid=self.position_grid)

    @property
    def patches(self) -> int:
        """P, of a square picture of `image_size`."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def row_width(self) -> int:
        """Numbers of a patch's row: its place and its pixels."""
        return _PLACE + 3 * self.patch_size**2

    @property
    def fixed_embed_dim(self) -> int | None:
        """D: there is no projection to any other."""
        return self.width

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"NaFlex ViT/{self.patch_size}, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "NaFlexTower":
        """The tower; see `CLIP` for where its parameters are."""
        assert embed_dim == self.fixed_embed_dim
        return NaFlexTower(self)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture of so many patches; see `ImageTowerConfig.cost`."""
        assert embed_dim == self.fixed_embed_dim
        tokens = self.patches if kept_patches is None else kept_patches
        pixels = tokens * 3 * self.patch_size**2
        return pooled_cost(self, tokens, element, first=2 * pixels * self.width, pixels=pixels)


class NaFlexTower(nn.Module):
    """Vision transformer over patches with their places; a learned probe pools them. It is SigLIP's, but for its input.

    Padding is looked at by nobody: a picture has the same feature however long the sequence that it comes in.
    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file.
    """

    def __init__(self, config: NaFlexTowerConfig) -> None:
        super().__init__()
        self.patch_embedding = Linear(3 * config.patch_size**2, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.position_grid**2, config.width))
        self.blocks = Stack.of(config, is_causal=False)
        self.ln_post = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.pool = ProbePool(config)

    def trunk(self, images: Tensor) -> Tensor:
        """Features that linear probes are fitted on: there is no projection, so they are those of `forward`.

        Args:
            images: [B, N, 2 + 3 p^2] float, see `forward`.

        Returns:
            [B, W], not unit length.
        """
        return self(images)

    def project(self, trunk: Tensor) -> Tensor:
        """The last step of the other towers; this one has none, D is W."""
        return trunk

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, N, 2 + 3 p^2] float, N of any number: a row for each patch, as the bundle's `preprocess` makes
                them: row and column in the picture's grid, from 1, then its pixels. Rows whose place is 0 are padding.

        Returns:
            [B, W], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.pool(*self._seen(images))

    def grid(self, images: Tensor) -> Tensor:
        """What each patch says in the space of the words; see `ProbePool.of_each_alone`.

        Args:
            images: [B, N, 2 + 3 p^2] float, of B pictures of one shape; see `forward`.

        Returns:
            [B, h, w, W], not unit length, rows and columns of the pictures' grid.

        Raises:
            ShapeError: the pictures have grids of several shapes.
        """
        places = images[..., :_PLACE].long().amax(dim=1)  # [B, 2]
        if (places != places[:1]).any():
            found = sorted({f"{rows} x {columns}" for rows, columns in places.tolist()})
            raise ShapeError(
                f"pictures must have one shape for one grid. Got {', '.join(found)}. Give them one by one."
            )
        rows, columns = places[0].tolist()
        x, _ = self._seen(images)
        return self.pool.of_each_alone(x[:, : rows * columns]).unflatten(1, (rows, columns))

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, N, W], what becomes of each patch, and which are no padding: [B, 1, 1, N], or None where all."""
        places, pixels = images[..., :_PLACE].long(), images[..., _PLACE:]  # [B, N, 2] and [B, N, 3 p^2]
        is_patch = places[..., 0] > 0  # [B, N]
        is_patch[:, 0] = True  # also of a blank, whose softmax over nothing would be NaN
        # An exported graph has no branches, and masks nothing where nothing is to be masked.
        is_whole = not torch.compiler.is_compiling() and bool(is_patch.all())
        mask = None if is_whole else is_patch[:, None, None]  # [B, 1, 1, N]
        x = self.patch_embedding(pixels) + self._positions(places)  # [B, N, W]
        return self.ln_post(self.blocks(x, mask)), mask

    def _positions(self, places: Tensor) -> Tensor:
        """[B, N, 2] to [B, N, W]: the learned grid, stretched once to each kind of grid that pictures have."""
        if torch.compiler.is_compiling():
            return self._positions_one_by_one(places)
        side = math.isqrt(len(self.position_embedding))
        # Contiguous: in channels-last order torch 2.13 stretches to a single column wrongly.
        learned = self.position_embedding.T.reshape(1, -1, side, side).contiguous()  # [1, W, side, side]
        sizes, kind = places.amax(dim=1).clamp(min=1).unique(dim=0, return_inverse=True)  # [kinds, 2], [B]
        stretched = [
            F.interpolate(learned, (rows, columns), mode="bilinear", align_corners=False, antialias=True)[0].flatten(1)
            for rows, columns in sizes.tolist()
        ]  # [W, rows * columns] each
        counts = sizes.prod(dim=1)
        first = (counts.cumsum(dim=0) - counts)[kind]  # [B], where the positions of a picture's kind begin
        row, column = (places - 1).clamp(min=0).unbind(dim=-1)  # [B, N] each; padding has a place that counts nothing
        index = first[:, None] + row * sizes[kind, 1, None] + column
        return F.embedding(index, torch.cat(stretched, dim=1).T)

    def _positions_one_by_one(self, places: Tensor) -> Tensor:
        """What `_positions` gives, each as a weighted sum of all learned ones: no shape depends on what pictures have.

        The filter is that of `F.interpolate`: a triangle over the learned grid, as wide as a patch covers of it, and
        one place at least.
        """
        side = math.isqrt(len(self.position_embedding))
        sizes = places.amax(dim=1, keepdim=True).clamp(min=1)  # [B, 1, 2]
        step = side / sizes.float()  # learned places that a patch covers
        centre = ((places - 1).clamp(min=0).float() + 0.5) * step  # [B, N, 2]
        away = torch.arange(side, device=places.device) + 0.5 - centre[..., None]  # [B, N, 2, side]
        weights = (1 - away.abs() / step.clamp(min=1)[..., None]).clamp(min=0)
        rows, columns = (weights / weights.sum(dim=-1, keepdim=True)).unbind(dim=2)  # [B, N, side] each
        return (rows[..., None] * columns[..., None, :]).flatten(2) @ self.position_embedding

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as SigLIP's released code does."""
        reset_as_released(self, generator)
        width = self.position_embedding.shape[1]
        draw_normal(self.position_embedding, width**-0.5, generator)
        draw_uniform(self.pool.probe, (6 / (1 + width)) ** 0.5, generator)  # Xavier
