"""An image tower that sees the mean colour of a picture, and no more."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from diptych.model.cost import TowerCost, without_blocks


@dataclass(frozen=True, kw_only=True)
class ColourConfig:
    kind: str = "mypackage.towers:ColourConfig"  # what recipes call it
    image_size: int = 32  # px; further options of yours go here
    patches: ClassVar[int] = 1
    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False
    wants_channels_last: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = False
    fixed_embed_dim: ClassVar[int | None] = None
    token_width: ClassVar[int] = 0
    has_grid: ClassVar[bool] = False
    row_width: ClassVar[int] = 0
    summary: ClassVar[str] = "mean colour"

    def build(self, embed_dim: int) -> nn.Module:
        return Colour(embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        return without_blocks(forward=6 * embed_dim, first=0, activations=3 * element)


class Colour(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.empty(3, embed_dim))

    def trunk(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))  # [B, 3]

    def project(self, trunk: Tensor) -> Tensor:
        return trunk @ self.projection  # [B, D]

    def forward(self, images: Tensor) -> Tensor:
        return self.project(self.trunk(images))

    def reset_parameters(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.projection, generator=generator)
