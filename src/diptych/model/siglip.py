"""SigLIPImageTower and SigLIPTextTower, the transformers of SigLIP and SigLIP 2, and their configs.

Source: SigLIP, arXiv:2303.15343, and SigLIP 2, arXiv:2502.14786 (fixed resolution), with the released code.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.blocks import (
    MLP,
    Activation,
    Attention,
    BlockSizes,
    Conv2d,
    Embedding,
    Linear,
    Stack,
    as_grid,
    check_blocks,
    check_sizes,
    draw_normal,
    draw_uniform,
    keep_patches,
)
from diptych.model.cost import FLOAT, TowerCost, layer_norm_bytes, transformer_cost
from diptych.model.vocabulary import GOLDEN_TEXTS, Vocabulary, check_pads, check_tokens_fit

Projection = Literal["biased", "plain", "none"]


@dataclass(frozen=True, kw_only=True)
class SigLIPImageTowerConfig:
    """Sizes of SigLIP's vision transformer.

    Raises:
        ConfigError: a size below 1, a patch larger than the image, or heads that do not divide the width.
    """

    kind: Literal["siglip"] = "siglip"
    image_size: int = 224  # pixels of one side; what is left over beyond whole patches is not looked at
    patch_size: int  # pixels of one side
    width: int  # channels of the residual stream, and of the feature: there is no projection
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "gelu_tanh"
    layer_norm_eps: float = 1e-6

    can_drop_patches: ClassVar[bool] = True
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = True
    wants_channels_last: ClassVar[bool] = False
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("image", image_size=self.image_size, patch_size=self.patch_size)
        check_blocks("image", self)
        if self.patch_size > self.image_size:
            raise ConfigError(
                "image.patch_size must be at most image.image_size. "
                f"Got patch_size={self.patch_size}, image_size={self.image_size}."
            )

    @property
    def patches(self) -> int:
        """P."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def token_width(self) -> int:
        """W of the image tokens."""
        return self.width

    @property
    def fixed_embed_dim(self) -> int | None:
        """D: there is no projection to any other."""
        return self.width

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"SigLIP ViT/{self.patch_size}, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "SigLIPImageTower":
        """The tower; see `CLIP` for where its parameters are."""
        assert embed_dim == self.fixed_embed_dim
        return SigLIPImageTower(self)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        assert embed_dim == self.fixed_embed_dim
        tokens = self.patches if kept_patches is None else kept_patches
        first = 2 * self.patches * self.width * 3 * self.patch_size**2
        return pooled_cost(self, tokens, element, first=first, pixels=3 * self.image_size**2)


@dataclass(frozen=True, kw_only=True)
class SigLIPTextTowerConfig:
    """Sizes of SigLIP's text transformer, which is that of CLIPA but for the projection behind it.

    Raises:
        ConfigError: a size below 1, heads that do not divide the width, or an unknown projection.
    """

    kind: Literal["siglip"] = "siglip"
    context_length: int = 64  # tokens, end and padding included
    vocab_size: int = 32_000
    width: int  # channels of the residual stream
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "gelu_tanh"
    layer_norm_eps: float = 1e-6
    projection: Projection = "biased"  # CLIPA's has no bias, one SigLIP has no projection

    reads_padding: ClassVar[bool] = True
    has_blocks: ClassVar[bool] = True
    rows_are_features: ClassVar[bool] = False
    golden_texts: ClassVar[tuple[str, ...]] = ("A Photo of a CAT.", *GOLDEN_TEXTS[1:])  # its tokenizers clean that away

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("text", context_length=self.context_length, vocab_size=self.vocab_size)
        check_blocks("text", self)
        if self.projection not in get_args(Projection):
            known = unknown_name(self.projection, "", get_args(Projection), "a projection")
            raise ConfigError(f"text.projection: {known}")

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"{self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "SigLIPTextTower":
        """The tower; see `CLIP` for where its parameters are.

        Raises:
            ConfigError: there is no projection, and embed_dim is not its width.
        """
        if self.projection == "none" and embed_dim != self.width:
            raise ConfigError(
                f"embed_dim must be text.width where there is no text.projection. Got {embed_dim} and {self.width}."
            )
        return SigLIPTextTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int) -> TowerCost:
        """FLOPs and activations of one text; see `ImageTowerConfig.cost`."""
        outside = FLOAT * self.context_length * self.width  # the last position is read through a view of the stream
        last = 0 if self.projection == "none" else 2 * self.width * embed_dim
        return transformer_cost(self, self.context_length, element, first=0, last=last, outside=outside)

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            ConfigError: it gives more tokens than the tower takes, or pads to another length.
        """
        check_tokens_fit(tokenizer, context_length=self.context_length, vocab_size=self.vocab_size)
        check_pads(tokenizer, self.context_length)


class SigLIPImageTower(nn.Module):
    """Vision transformer without a class token: a learned probe pools the patches by attention.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file. Letters: B, S, P, W; D is W.
    """

    def __init__(self, config: SigLIPImageTowerConfig) -> None:
        super().__init__()
        self.patch_embedding = Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Parameter(torch.empty(config.patches, config.width))
        self.blocks = Stack.of(config, is_causal=False)
        self.ln_post = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.pool = ProbePool(config)

    def trunk(self, images: Tensor) -> Tensor:
        """Features that linear probes are fitted on: there is no projection, so they are those of `forward`.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, W], not unit length.
        """
        return self(images)

    def project(self, trunk: Tensor) -> Tensor:
        """The last step of the other towers; this one has none, D is W."""
        return trunk

    def forward(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, W], not yet unit length; `CLIP.encode_image` makes it so.
        """
        return self.tokens_and_feature(images, kept_patches)[1]

    def tokens_and_feature(self, images: Tensor, kept_patches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What becomes of each patch, [B, P, W] (of K kept ones [B, K, W]), and what `forward` gives, [B, W]."""
        x = self._positions(images, kept_patches)
        return x, self.pool(x)

    def _positions(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, P, W]
        x = x + self.position_embedding
        return self.ln_post(self.blocks(x if kept_patches is None else keep_patches(x, kept_patches)))

    def grid(self, images: Tensor) -> Tensor:
        """What each patch says in the space of the words; see `ProbePool.of_each_alone`.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, W], not unit length, h = w = S / patch size.
        """
        return as_grid(self.pool.of_each_alone(self._positions(images, None)))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does."""
        reset_as_released(self, generator)
        width = self.position_embedding.shape[1]
        draw_normal(self.position_embedding, width**-0.5, generator)
        draw_uniform(self.pool.probe, (6 / (1 + width)) ** 0.5, generator)  # Xavier


class SigLIPTextTower(nn.Module):
    """Transformer without a causal mask: tokens in, one feature out, read at the last position.

    That position is padding in all but the longest texts, and all positions see it: the padding to the context length
    is part of the model.
    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file. Letters: B, L, W, D.
    """

    def __init__(self, config: SigLIPTextTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.blocks = Stack.of(config, is_causal=False)
        self.ln_final = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        if config.projection == "none":
            self.projection = nn.Identity()
        else:
            self.projection = Linear(config.width, embed_dim, bias=config.projection == "biased")

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L the context length, as the bundle's `tokenizer` pads them.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_text` makes it so.
        """
        x = self.blocks(self.token_embedding(tokens) + self.position_embedding)  # [B, L, W]
        return self.projection(self.ln_final(x[:, -1]))  # [B, D]

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does."""
        reset_as_released(self, generator)
        for embedding in (self.token_embedding.weight, self.position_embedding):
            draw_normal(embedding, embedding.shape[1] ** -0.5, generator)


class ProbePool(nn.Module):
    """One attention step in which a learned probe asks and all positions answer, then an MLP."""

    def __init__(self, config: BlockSizes) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.width))
        self.attention = Attention(config.width, config.heads, is_causal=False)
        self.ln_mlp = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, P, W] to [B, W]; of a mask [B, 1, 1, P] those positions answer that it names."""
        x = self.attention.pool(self.probe, x, mask)  # [B, 1, W]
        return (x + self.mlp(self.ln_mlp(x)))[:, 0]

    def of_each_alone(self, x: Tensor) -> Tensor:
        """[B, P, W] to [B, P, W]: what `forward` would give if the probe looked at one position alone.

        Source: MaskCLIP's value path, arXiv:2112.01071, section 3.2, through this pool.
        """
        x = self.attention.of_each_alone(x)
        return x + self.mlp(self.ln_mlp(x))


def pooled_cost(sizes: BlockSizes, tokens: int, element: int, *, first: int, pixels: int) -> TowerCost:
    """A stack of blocks with an attention pool behind it; see `transformer_cost`.

    Args:
        sizes: of the blocks and of the pool.
        tokens: positions that pass through them.
        element: bytes of one number in matrix products.
        first: FLOPs of the layer that pixels enter.
        pixels: numbers that enter it.
    """
    flops, kept = pool_cost(sizes.width, sizes.mlp_width, tokens, element)
    return transformer_cost(sizes, tokens, element, first=first, last=flops, outside=element * pixels + kept)


def pool_cost(width: int, hidden: int, tokens: int, element: int) -> tuple[int, int]:
    """FLOPs of an attention pool, and bytes that it keeps with the layer norm before it."""
    # Keys and values of all, what one query makes of them, and an MLP. The query is the same for a batch.
    flops = 4 * tokens * width**2 + 4 * tokens * width + 2 * width**2 + 4 * width * hidden
    # Of each token the last layer norm, the stream it leaves in the matrix type, keys and values; the MLP.
    kept = tokens * (layer_norm_bytes(width) + element * 3 * width)
    return flops, kept + layer_norm_bytes(width) + element * (4 * width + 2 * hidden)


@torch.no_grad()
def reset_as_released(tower: nn.Module, generator: torch.Generator) -> None:
    """Draw the parameters of a tower's layers as the released code does; what lies in no layer is the tower's."""
    for module in reversed(list(tower.modules())):  # children first: Attention and MLP have the last word on theirs
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()  # ones and zeros: nothing is drawn
        elif isinstance(module, nn.Conv2d | nn.Linear):
            draw_normal(module.weight, module.weight[0].numel() ** -0.5, generator)  # LeCun
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, Attention):
            for weight in (*module.in_projection.weight.chunk(3), module.out_projection.weight):
                draw_uniform(weight, (6 / sum(weight.shape)) ** 0.5, generator)  # Xavier
        elif isinstance(module, MLP):
            for layer in (module.up, module.down):
                draw_uniform(layer.weight, (6 / sum(layer.weight.shape)) ** 0.5, generator)
                draw_normal(layer.bias, 1e-6, generator)
