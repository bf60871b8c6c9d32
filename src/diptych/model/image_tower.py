"""ImageTower, a vision transformer, and its config."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    Activation,
    Conv2d,
    Stack,
    as_grid,
    check_blocks,
    check_sizes,
    draw_normal,
    keep_patches,
    reset_to_defaults,
)
from diptych.model.cost import FLOAT, TowerCost, layer_norm_bytes, transformer_cost


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig:
    """Sizes of a vision transformer.

    Raises:
        ConfigError: a size below 1, patches that do not fill the image, or heads that do not divide the width.
    """

    kind: Literal["vit"] = "vit"
    image_size: int = 224  # pixels of one side
    patch_size: int  # pixels of one side
    width: int  # channels of the residual stream
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5

    can_drop_patches: ClassVar[bool] = True
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = True
    wants_channels_last: ClassVar[bool] = False
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("image", image_size=self.image_size, patch_size=self.patch_size)
        check_blocks("image", self)
        if self.image_size % self.patch_size:
            raise ConfigError(
                "image.patch_size must divide image.image_size. "
                f"Got patch_size={self.patch_size}, image_size={self.image_size}."
            )

    @property
    def patches(self) -> int:
        """P, the class token not counted."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.width

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"ViT/{self.patch_size}, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "ImageTower":
        """The tower; see `CLIP` for where its parameters are."""
        return ImageTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture.

        Args:
            embed_dim: D.
            element: bytes of one number in matrix products, 4 or 2.
            kept_patches: under patch dropout; all when not given.
        """
        tokens = 1 + (self.patches if kept_patches is None else kept_patches)
        first = 2 * self.patches * self.width * 3 * self.patch_size**2
        # Pixels, the input of the first layer norm, and the last residual stream, of which a view is kept.
        outside = element * 3 * self.image_size**2 + tokens * (layer_norm_bytes(self.width) + FLOAT * self.width)
        last = 2 * self.width * embed_dim
        return transformer_cost(self, tokens, element, first=first, last=last, outside=outside)


class ImageTower(nn.Module):
    """Vision transformer: an image in, one feature out.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: CLIP, arXiv:2103.00020, section 2.4. Letters: B, S, P, W, D.
    """

    def __init__(self, config: ImageTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.patch_embedding = Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = nn.Parameter(torch.empty(1 + config.patches, config.width))
        self.ln_pre = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.blocks = Stack.of(config, is_causal=False)
        self.ln_post = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = nn.Parameter(torch.empty(config.width, embed_dim))

    def trunk(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Features before the projection, which linear probes are fitted on (CLIP, section 3.2).

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, W], not unit length.
        """
        return self.ln_post(self._stream(images, kept_patches)[:, 0])  # [B, W], read off the class token

    def tokens_and_feature(self, images: Tensor, kept_patches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What becomes of each patch, [B, P, W] (of K kept ones [B, K, W]), and what `forward` gives, [B, D]."""
        x = self._stream(images, kept_patches)  # [B, 1 + P, W]
        return x[:, 1:], self.project(self.ln_post(x[:, 0]))

    def grid(self, images: Tensor) -> Tensor:
        """What each patch says in the space of the words.

        In the last block each position looks at itself alone, as the class token, which is not asked, would gather
        what is far apart. Source: MaskCLIP, arXiv:2112.01071, section 3.2.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / patch size.
        """
        x = self.blocks.of_each_alone(self._embedded(images, None))[:, 1:]  # [B, P, W]
        return as_grid(self.project(self.ln_post(x)))

    def _stream(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        return self.blocks(self._embedded(images, kept_patches))

    def _embedded(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, P, W]
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)  # [B, 1 + P, W]
        x = x + self.position_embedding
        if kept_patches is not None:
            x = torch.cat([x[:, :1], keep_patches(x[:, 1:], kept_patches)], dim=1)  # [B, 1 + K, W]
        return self.ln_pre(x)

    def forward(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.project(self.trunk(images, kept_patches))

    def project(self, trunk: Tensor) -> Tensor:
        """The last step: [B, W] to [B, D], not yet unit length."""
        return trunk @ self.projection

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: the blocks as torch does, the rest by width."""
        reset_to_defaults(self, generator)
        std = self.class_embedding.numel() ** -0.5
        for parameter in (self.class_embedding, self.position_embedding, self.projection):
            draw_normal(parameter, std, generator)
