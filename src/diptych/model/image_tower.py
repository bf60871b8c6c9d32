"""ImageTower, a vision transformer, and its config."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.batch_norm import BatchNorm2d
from diptych.model.blocks import (
    Activation,
    Conv2d,
    Stack,
    as_grid,
    check_blocks,
    check_patches,
    check_sizes,
    draw_normal,
    keep_patches,
    reset_to_defaults,
)
from diptych.model.cost import FLOAT, TowerCost, layer_norm_bytes, transformer_cost

Pool = Literal["class", "mean"]
Stem = Literal["patch", "convolutions"]
_HALVINGS = 4  # by the second and third convolution of a stem
_NARROWER = 4  # channels behind the first two are the width by this


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig:
    """Sizes of a vision transformer; its options are those of CLIPA, MobileCLIP, BLIP and BiomedCLIP.

    Raises:
        ConfigError: a size below 1, patches that do not fill the image, heads that do not divide the width, or an
            option that is none.
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
    pool: Pool = "class"  # read at the class token; or the mean of the patches, and the layer norm after it
    has_ln_pre: bool = True  # a layer norm before the blocks
    has_projection_bias: bool = False
    has_patch_bias: bool = False
    norms_twice: bool = False  # the layer norm behind the blocks is taken of its own result again
    stem: Stem = "patch"  # one linear map of a patch; or three convolutions, and no position for the class token

    can_drop_patches: ClassVar[bool] = True
    has_blocks: ClassVar[bool] = True
    wants_channels_last: ClassVar[bool] = False
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("image", image_size=self.image_size, patch_size=self.patch_size)
        check_blocks("image", self)
        check_patches(self.image_size, self.patch_size)
        for name, found, options in (("pool", self.pool, get_args(Pool)), ("stem", self.stem, get_args(Stem))):
            if found not in options:
                raise ConfigError(f"image.{name}: {unknown_name(found, '', options, 'an option')}")
        if self.stem == "convolutions" and (self.patch_size % _HALVINGS or self.width % _NARROWER):
            raise ConfigError(
                f"image.patch_size and image.width must be multiples of {_HALVINGS} for a stem of convolutions. "
                f"Got patch_size={self.patch_size}, width={self.width}."
            )

    @property
    def patches(self) -> int:
        """P, the class token not counted."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def needs_whole_batch(self) -> bool:
        """Whether it has batch norms, which a stem of convolutions has."""
        return self.stem == "convolutions"

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.width

    @property
    def summary(self) -> str:
        """In a few words."""
        stem = " behind convolutions" if self.stem == "convolutions" else ""
        return f"ViT/{self.patch_size}{stem}, {self.layers} layers of {self.width}"

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
        first, later, stem = self._stem_cost(element)
        # The stem's, the input of the first layer norm, and the last residual stream, where a view of it is kept.
        stream = FLOAT * self.width if self.pool == "class" else 0
        outside = stem + tokens * (self.has_ln_pre * layer_norm_bytes(self.width) + stream)
        last = later + 2 * self.width * embed_dim
        return transformer_cost(self, tokens, element, first=first, last=last, outside=outside)

    def _stem_cost(self, element: int) -> tuple[int, int, int]:
        """FLOPs of the layer that pixels enter and of those behind it, and bytes kept."""
        pixels = element * 3 * self.image_size**2
        if self.stem == "patch":
            return 2 * self.patches * self.width * 3 * self.patch_size**2, 0, pixels
        narrow, step = self.width // _NARROWER, self.patch_size // _HALVINGS
        fine, middle = 16 * self.patches * narrow, 4 * self.patches * narrow  # numbers that the first two give
        first = 2 * fine * 3 * step**2
        later = 2 * middle * narrow * 4 + 2 * self.patches * self.width * narrow * 4
        # Of the first two: what batch norm, activation and next convolution are given.
        return first, later, pixels + (fine + middle) * 3 * element


class ImageTower(nn.Module):
    """Vision transformer: an image in, one feature out.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: CLIP, arXiv:2103.00020, section 2.4. Letters: B, S, P, W, D.
    """

    def __init__(self, config: ImageTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.pools_mean = config.pool == "mean"
        self.norms_twice = config.norms_twice
        if config.stem == "patch":
            side, bias = config.patch_size, config.has_patch_bias
            self.patch_embedding = Conv2d(3, config.width, side, stride=side, bias=bias)
        else:
            self.patch_embedding = _convolutions(config)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.has_class_position = config.stem == "patch"
        self.position_embedding = nn.Parameter(torch.empty(self.has_class_position + config.patches, config.width))
        self.ln_pre = nn.LayerNorm(config.width, eps=config.layer_norm_eps) if config.has_ln_pre else nn.Identity()
        self.blocks = Stack.of(config, is_causal=False)
        self.ln_post = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = nn.Parameter(torch.empty(config.width, embed_dim))
        self.projection_bias = nn.Parameter(torch.empty(embed_dim)) if config.has_projection_bias else None

    def trunk(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Features before the projection, which linear probes are fitted on (CLIP, section 3.2).

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, W], not unit length.
        """
        return self._pooled(self._stream(images, kept_patches))  # [B, W]

    def tokens_and_feature(self, images: Tensor, kept_patches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What becomes of each patch, [B, P, W] (of K kept ones [B, K, W]), and what `forward` gives, [B, D]."""
        x = self._stream(images, kept_patches)  # [B, 1 + P, W]
        return x[:, 1:], self.project(self._pooled(x))

    def grid(self, images: Tensor) -> Tensor:
        """What each patch says in the space of the words.

        In the last block each position looks at itself alone, as the class token, which is not asked, would gather
        what is far apart. Source: MaskCLIP, arXiv:2112.01071, section 3.2. Where the feature is the mean of the
        patches, each is its own part of that.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / patch size.
        """
        x = self._embedded(images, None)
        x = self.blocks(x) if self.pools_mean else self.blocks.of_each_alone(x)
        return as_grid(self.project(self._normalised(x[:, 1:])))

    def _stream(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        return self.blocks(self._embedded(images, kept_patches))

    def _pooled(self, x: Tensor) -> Tensor:
        """[B, 1 + P, W] to [B, W]."""
        return self._normalised(x[:, 1:].mean(dim=1) if self.pools_mean else x[:, 0])

    def _normalised(self, x: Tensor) -> Tensor:
        x = self.ln_post(x)
        return self.ln_post(x) if self.norms_twice else x

    def _embedded(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, P, W]
        if not self.has_class_position:
            x = x + self.position_embedding
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)  # [B, 1 + P, W]
        if self.has_class_position:
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
        x = trunk @ self.projection
        return x if self.projection_bias is None else x + self.projection_bias

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: the blocks as torch does, the rest by width."""
        reset_to_defaults(self, generator)
        std = self.class_embedding.numel() ** -0.5
        for parameter in (self.class_embedding, self.position_embedding, self.projection):
            draw_normal(parameter, std, generator)
        if self.projection_bias is not None:
            nn.init.zeros_(self.projection_bias)


def _convolutions(config: ImageTowerConfig) -> nn.Sequential:
    """Pixels to patches in three steps, as MobileCLIP's ViT-B does: [B, 3, S, S] to [B, W, h, w]."""
    narrow, step = config.width // _NARROWER, config.patch_size // _HALVINGS
    return nn.Sequential(
        Conv2d(3, narrow, step, stride=step, bias=False),
        BatchNorm2d(narrow),
        nn.GELU(),
        Conv2d(narrow, narrow, 2, stride=2, bias=False),
        BatchNorm2d(narrow),
        nn.GELU(),
        Conv2d(narrow, config.width, 2, stride=2),
    )
