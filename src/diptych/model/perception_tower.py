"""PerceptionTower, the vision transformer of PE-Core (Perception Encoder), and its config.

Source: Perception Encoder, arXiv:2504.13181, section 2, with the released code. Letters: B, S, P, K, L, W, D.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    Activation,
    Conv2d,
    Linear,
    Stack,
    as_grid,
    check_blocks,
    check_patches,
    check_sizes,
    draw_normal,
    draw_uniform,
    keep_patches,
    reset_to_defaults,
)
from diptych.model.cost import TowerCost, layer_norm_bytes, transformer_cost
from diptych.model.rotary import check_rotary, rotation_of, rotation_of_kept
from diptych.model.siglip import ProbePool, pool_cost


@dataclass(frozen=True, kw_only=True)
class PerceptionTowerConfig:
    """Sizes of PE-Core's vision transformer.

    Raises:
        ConfigError: a size below 1, patches that do not fill the image, heads that do not divide the width or cannot
            be rotated.
    """

    kind: Literal["perception"] = "perception"
    image_size: int = 224  # pixels of one side
    patch_size: int  # pixels of one side
    width: int  # channels of the residual stream
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    pool_heads: int = 8  # of the attention pool, whose MLP has 4 * width hidden channels
    class_token: bool = True  # whether the pool sees one beside the patches
    rotary_grid: int = 0  # patches of one side that rotary positions count; 0 is replaced by those of the image
    activation: Activation = "gelu"
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
        check_sizes("image", image_size=self.image_size, patch_size=self.patch_size, pool_heads=self.pool_heads)
        check_blocks("image", self)
        check_patches(self.image_size, self.patch_size)
        if self.width % self.pool_heads:
            raise ConfigError(
                f"image.pool_heads must divide image.width. Got pool_heads={self.pool_heads}, width={self.width}."
            )
        object.__setattr__(self, "rotary_grid", self.rotary_grid or self.image_size // self.patch_size)
        check_rotary(self.width // self.heads, self.rotary_grid)

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
        return f"PE ViT/{self.patch_size}, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "PerceptionTower":
        """The tower; see `CLIP` for where its parameters are."""
        return PerceptionTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        tokens = self.class_token + (self.patches if kept_patches is None else kept_patches)
        pool, kept = pool_cost(self.width, 4 * self.width, tokens, element)
        # Pixels, the input of the first layer norm, that of the projection.
        outside = element * (3 * self.image_size**2 + self.width) + tokens * layer_norm_bytes(self.width)
        first = 2 * self.patches * self.width * 3 * self.patch_size**2
        last = pool + 2 * self.width * embed_dim
        return transformer_cost(self, tokens, element, first=first, last=last, outside=outside + kept, rotates=True)


class PerceptionTower(nn.Module):
    """Vision transformer: an image in, one feature out; a learned probe pools all positions by attention.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file.
    """

    def __init__(self, config: PerceptionTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width)) if config.class_token else None
        self.position_embedding = nn.Parameter(torch.empty(config.class_token + config.patches, config.width))
        self.ln_pre = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.blocks = Stack.of(config, is_causal=False)
        self.ln_post = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.pool = ProbePool(_PoolSizes(config))
        self.projection = Linear(config.width, embed_dim)

    def trunk(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, W], not unit length.
        """
        return self.pool(self._positions(images, kept_patches))

    def project(self, trunk: Tensor) -> Tensor:
        """The last step: [B, W] to [B, D], not yet unit length."""
        return self.projection(trunk)

    def forward(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.project(self.trunk(images, kept_patches))

    def tokens_and_feature(self, images: Tensor, kept_patches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What becomes of each patch, [B, P, W] (of K kept ones [B, K, W]), and what `forward` gives, [B, D]."""
        x = self._positions(images, kept_patches)
        return x[:, self.config.class_token :], self.project(self.pool(x))

    def grid(self, images: Tensor) -> Tensor:
        """What each patch says in the space of the words; see `ProbePool.of_each_alone`.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / patch size.
        """
        x = self._positions(images, None)[:, self.config.class_token :]  # [B, P, W]
        return as_grid(self.project(self.pool.of_each_alone(x)))

    def _positions(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        """[B, L, W], L the class token where there is one, and the patches."""
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, P, W]
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)  # [B, 1 + P, W]
        x = x + self.position_embedding
        if kept_patches is not None:
            before = self.config.class_token
            x = torch.cat([x[:, :before], keep_patches(x[:, before:], kept_patches)], dim=1)
        return self.ln_post(self.blocks(self.ln_pre(x), None, None, self._rotation(images, kept_patches)))

    def _rotation(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        config = self.config
        rotation = rotation_of(
            config.image_size // config.patch_size,
            config.width // config.heads,
            grid=config.rotary_grid,
            # The class token stands at 0. Without one nothing depends on where the count begins, as turning tells
            # distances alone; the released towers without one begin at 0.
            first=int(config.class_token),
            columns_first=True,
            device=images.device,
        )
        return rotation_of_kept(rotation, kept_patches)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: the blocks as torch does, the rest by width."""
        reset_to_defaults(self, generator)
        std = self.position_embedding.shape[1] ** -0.5
        for parameter in (self.class_embedding, self.position_embedding, self.projection.weight):
            if parameter is not None:
                draw_normal(parameter, std, generator)
        nn.init.zeros_(self.projection.bias)
        draw_uniform(self.pool.probe, (6 / (1 + self.position_embedding.shape[1])) ** 0.5, generator)  # Xavier


class _PoolSizes:
    """Sizes of the attention pool, which has heads and an MLP of its own."""

    layers = 1

    def __init__(self, config: PerceptionTowerConfig) -> None:
        self.width = config.width
        self.heads = config.pool_heads
        self.mlp_width = 4 * config.width
        self.activation: Activation = config.activation
        self.layer_norm_eps = config.layer_norm_eps
