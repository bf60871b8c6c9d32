"""EvaTower, the vision transformer of EVA-CLIP, and its config.

Source: EVA, arXiv:2211.07636; EVA-02, arXiv:2303.11331; EVA-CLIP, arXiv:2303.15389. Letters: B, S, P, K, W, D.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.blocks import (
    Activation,
    Block,
    Conv2d,
    GatedMLP,
    Linear,
    Stack,
    as_grid,
    attended,
    check_blocks,
    check_patches,
    check_sizes,
    draw_normal,
    keep_patches,
    reset_to_defaults,
)
from diptych.model.cost import FLOAT, TowerCost, attention_bytes, attention_flops, layer_norm_bytes, stack_cost
from diptych.model.rotary import check_rotary, rotation_of, rotation_of_kept

# plain: layer norms before attention and MLP (EVA). post_norm: behind them, before what came in is added (EVA02-E).
# trv: SwiGLU, layer norms inside of attention and MLP too, rotary positions (EVA-02, section 2.1).
BlockKind = Literal["plain", "post_norm", "trv"]

_STD = 0.02  # of all weights at the start


@dataclass(frozen=True, kw_only=True)
class EvaTowerConfig:
    """Sizes of EVA-CLIP's vision transformer.

    Raises:
        ConfigError: a size below 1, patches that do not fill the image, heads that do not divide the width, an unknown
            kind of block, or rotary positions where there are none or heads that cannot be rotated.
    """

    kind: Literal["eva"] = "eva"
    image_size: int = 224  # pixels of one side
    patch_size: int  # pixels of one side
    width: int  # channels of the residual stream
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    block: BlockKind = "trv"
    rotary_grid: int = 0  # of trv, patches of one side that rotary positions count; 0 is replaced by those of the image
    layer_norm_eps: float = 1e-6

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
        check_patches(self.image_size, self.patch_size)
        if self.block not in get_args(BlockKind):
            raise ConfigError(f"image.block: {unknown_name(self.block, '', get_args(BlockKind), 'a kind of block')}")
        if self.block == "trv":
            object.__setattr__(self, "rotary_grid", self.rotary_grid or self.image_size // self.patch_size)
            check_rotary(self.width // self.heads, self.rotary_grid)
        elif self.rotary_grid:
            raise ConfigError(f"image.rotary_grid must be 0 for {self.block} blocks. Got {self.rotary_grid}.")

    @property
    def patches(self) -> int:
        """P, the class token not counted."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.width

    @property
    def activation(self) -> Activation:
        """Of an MLP without a gate."""
        return "gelu"

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"EVA ViT/{self.patch_size}, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "EvaTower":
        """The tower; see `CLIP` for where its parameters are."""
        return EvaTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        tokens = 1 + (self.patches if kept_patches is None else kept_patches)
        width, hidden = self.width, self.mlp_width
        is_trv = self.block == "trv"
        block = attention_flops(width, tokens) + (6 if is_trv else 4) * tokens * width * hidden
        kept = attention_bytes(width, self.heads, tokens, element, rotates=is_trv)
        kept += tokens * (layer_norm_bytes(width) + element * width)
        if is_trv:
            # Gate before and after SiLU, and what it opens; of the inner layer norms what they are given, which in
            # attention is kept anyhow, and what they give.
            kept += tokens * (layer_norm_bytes(hidden, element) + element * 4 * hidden)
            kept += tokens * layer_norm_bytes(width, element)
            kept += tokens * element * width if element < FLOAT else 0  # autocast has a copy for the gate, one for up
        else:
            kept += tokens * 2 * element * hidden
        if self.block == "post_norm":  # their input is that of a matrix product's type
            kept -= tokens * 2 * (FLOAT - element) * width
        return stack_cost(
            layers=self.layers,
            block=block,
            kept=kept,
            stream=tokens * width * FLOAT,
            first=2 * self.patches * width * 3 * self.patch_size**2,
            last=2 * width * embed_dim,
            outside=element * 3 * self.image_size**2 + tokens * FLOAT * width,  # pixels, and the last residual stream
        )


class EvaTower(nn.Module):
    """Vision transformer: an image in, one feature out, read off the class token.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file.
    """

    def __init__(self, config: EvaTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = nn.Parameter(torch.empty(1 + config.patches, config.width))
        block = PostNormBlock if config.block == "post_norm" else EvaBlock
        self.blocks = Stack(*(block(config) for _ in range(config.layers)))
        self.ln_post = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = Linear(config.width, embed_dim)

    def trunk(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, W], not unit length.
        """
        return self.ln_post(self._stream(images, kept_patches)[:, 0])

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
        x = self._stream(images, kept_patches)  # [B, 1 + P, W]
        return x[:, 1:], self.project(self.ln_post(x[:, 0]))

    def grid(self, images: Tensor) -> Tensor:
        """What each patch says in the space of the words; see `ImageTower.grid`.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / patch size.
        """
        x = self.blocks.of_each_alone(self._embedded(images, None), *self._rotation(images, None))[:, 1:]  # [B, P, W]
        return as_grid(self.project(self.ln_post(x)))

    def _stream(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        return self.blocks(self._embedded(images, kept_patches), *self._rotation(images, kept_patches))

    def _embedded(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, P, W]
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)  # [B, 1 + P, W]
        x = x + self.position_embedding
        if kept_patches is not None:
            x = torch.cat([x[:, :1], keep_patches(x[:, 1:], kept_patches)], dim=1)  # [B, 1 + K, W]
        return x

    def _rotation(self, images: Tensor, kept_patches: Tensor | None) -> tuple[Tensor, ...]:
        """What the blocks take beside the stream."""
        config = self.config
        if config.block != "trv":
            return ()
        rotation = rotation_of(
            config.image_size // config.patch_size,
            config.width // config.heads,
            grid=config.rotary_grid,
            first=0,
            columns_first=False,
            device=images.device,
        )
        return (rotation_of_kept(rotation, kept_patches),)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: smaller where a layer writes to the residual stream."""
        reset_to_defaults(self, generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw_normal(module.weight, _STD, generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, EvaAttention):
                nn.init.zeros_(module.query_bias)
                nn.init.zeros_(module.value_bias)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, EvaBlock)
            for layer in (block.attention.out_projection, block.mlp.down):
                draw_normal(layer.weight, _STD / (2 * (number + 1)) ** 0.5, generator)
        for parameter in (self.class_embedding, self.position_embedding):
            draw_normal(parameter, _STD, generator)


class EvaBlock(Block):
    """Pre-LN residual block, whose MLP is SwiGLU and has a layer norm inside where its kind is trv."""

    def __init__(self, config: EvaTowerConfig) -> None:
        super().__init__(
            width=config.width,
            heads=config.heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            layer_norm_eps=config.layer_norm_eps,
            is_causal=False,
        )
        self.attention = EvaAttention(config)
        if config.block == "trv":
            self.mlp = SwiGLU(config)


class PostNormBlock(EvaBlock):
    """Residual block whose layer norms are behind attention and MLP."""

    def forward(self, x: Tensor, *beside: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        x = x + self.ln_attention(self.attention(x, *beside))
        return x + self.ln_mlp(self.mlp(x))

    def of_each_alone(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]; see `Attention.of_each_alone`."""
        x = x + self.ln_attention(self.attention.of_each_alone(x))
        return x + self.ln_mlp(self.mlp(x))


class EvaAttention(nn.Module):
    """Multi-head self-attention whose keys have no bias, with a layer norm before its last projection in trv blocks."""

    def __init__(self, config: EvaTowerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.in_projection = Linear(config.width, 3 * config.width, bias=False)
        self.query_bias = nn.Parameter(torch.empty(config.width))
        self.value_bias = nn.Parameter(torch.empty(config.width))
        is_trv = config.block == "trv"
        self.ln_inside = nn.LayerNorm(config.width, eps=config.layer_norm_eps) if is_trv else nn.Identity()
        self.out_projection = Linear(config.width, config.width)

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """[B, L, W] to [B, L, W]; see `rotate` for the rotation of queries and keys."""
        bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = F.linear(x, self.in_projection.weight, bias)  # [B, L, 3 W]
        return self.out_projection(self.ln_inside(attended(qkv, self.heads, rotation=rotation)))

    def of_each_alone(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]; see `Attention.of_each_alone`."""
        value = F.linear(x, self.in_projection.weight[2 * x.shape[-1] :], self.value_bias)
        return self.out_projection(self.ln_inside(value))


class SwiGLU(GatedMLP):
    """A gated MLP with a layer norm inside."""

    def __init__(self, config: EvaTowerConfig) -> None:
        super().__init__(config.width, config.mlp_width, F.silu)
        self.ln_inside = nn.LayerNorm(config.mlp_width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        return self.down(self.ln_inside(self.hidden(x)))
