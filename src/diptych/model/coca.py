"""CoCaImageTower and CoCaTextTower, the two contrastive towers of CoCa as open_clip has them, and their configs.

Source: CoCa, arXiv:2205.01917, with the released code, which pools pictures by one step of attention for all queries
and reads the first of them; what it masks in texts is one place off, and so the weights have learned it. The third
part of a CoCa, which writes captions, is not here: no feature needs it. Letters: B, D, L, P, Q, S, W.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    Activation,
    Conv2d,
    Embedding,
    Linear,
    Stack,
    as_grid,
    attend,
    check_blocks,
    check_patches,
    check_sizes,
    draw_normal,
    draw_uniform,
    keep_patches,
    reset_to_defaults,
)
from diptych.model.cost import FLOAT, TowerCost, layer_norm_bytes, transformer_cost
from diptych.model.text_tower import draw_text
from diptych.model.vocabulary import GOLDEN_TEXTS, Vocabulary, check_pads, check_tokens_fit

_EPS = 1e-5  # of the pool's layer norms, whatever those of the blocks are


@dataclass(frozen=True, kw_only=True)
class CoCaImageTowerConfig:
    """Sizes of a vision transformer whose patches are pooled by queries.

    Raises:
        ConfigError: a size below 1, patches that do not fill the image, or heads that do not divide the width.
    """

    kind: Literal["coca"] = "coca"
    image_size: int = 224  # pixels of one side
    patch_size: int  # pixels of one side
    width: int  # channels of the residual stream
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-5
    queries: int = 256  # of the pool; the feature is what the first gathers, the others are a caption writer's
    pool_heads: int = 8

    can_drop_patches: ClassVar[bool] = True
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = True
    wants_channels_last: ClassVar[bool] = False
    has_grid: ClassVar[bool] = True
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        sizes = {"queries": self.queries, "pool_heads": self.pool_heads}
        check_sizes("image", image_size=self.image_size, patch_size=self.patch_size, **sizes)
        check_blocks("image", self)
        check_patches(self.image_size, self.patch_size)

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
        return f"CoCa ViT/{self.patch_size}, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "CoCaImageTower":
        """The tower; see `CLIP` for where its parameters are.

        Raises:
            ConfigError: its pool has heads that do not divide embed_dim.
        """
        if embed_dim % self.pool_heads:
            raise ConfigError(
                f"image.pool_heads must divide embed_dim. Got pool_heads={self.pool_heads}, embed_dim={embed_dim}."
            )
        return CoCaImageTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        """FLOPs and activations of one picture; see `ImageTowerConfig.cost`."""
        tokens = 1 + (self.patches if kept_patches is None else kept_patches)
        first = 2 * self.patches * self.width * 3 * self.patch_size**2
        # Keys and values of all, what one query makes of them, and two projections. The query is one for a batch.
        pool = 4 * tokens * self.width * embed_dim + 4 * tokens * embed_dim + 2 * embed_dim**2
        # Pixels; of each token both layer norms outside the blocks, the last as it enters the matrix, keys and values.
        outside = element * 3 * self.image_size**2 + tokens * 2 * layer_norm_bytes(self.width)
        outside += tokens * element * (self.width + 2 * embed_dim)
        outside += layer_norm_bytes(embed_dim) + element * 2 * embed_dim
        last = pool + 2 * embed_dim**2
        return transformer_cost(self, tokens, element, first=first, last=last, outside=outside)


@dataclass(frozen=True, kw_only=True)
class CoCaTextTowerConfig:
    """Sizes of a causal text transformer whose last position is a class token.

    Raises:
        ConfigError: a size below 1, heads that do not divide the width, or a pad token outside the vocabulary.
    """

    kind: Literal["coca"] = "coca"
    context_length: int = 76  # tokens, start, end and padding included, the class token not
    vocab_size: int = 49_408
    width: int = 512  # channels of the residual stream
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 0  # by which padding is known, wherever it stands

    reads_padding: ClassVar[bool] = True  # one place of it
    has_blocks: ClassVar[bool] = True
    rows_are_features: ClassVar[bool] = False
    golden_texts: ClassVar[tuple[str, ...]] = GOLDEN_TEXTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("text", context_length=self.context_length, vocab_size=self.vocab_size)
        check_blocks("text", self)
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ConfigError(
                "text.pad_token_id must be an id of the vocabulary, 0 to text.vocab_size - 1. "
                f"Got pad_token_id={self.pad_token_id}, vocab_size={self.vocab_size}."
            )

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"{self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "CoCaTextTower":
        """The tower; see `CLIP` for where its parameters are."""
        return CoCaTextTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int) -> TowerCost:
        """FLOPs and activations of one text; see `ImageTowerConfig.cost`."""
        positions = self.context_length + 1
        outside = FLOAT * positions * self.width  # the last position is read through a view of the stream
        last = 2 * self.width * embed_dim
        return transformer_cost(self, positions, element, first=0, last=last, outside=outside)

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            ConfigError: it gives more tokens than the tower takes, or pads to another length or with another token.
        """
        check_tokens_fit(tokenizer, context_length=self.context_length, vocab_size=self.vocab_size)
        check_pads(tokenizer, self.context_length)
        if tokenizer.pad_token_id != self.pad_token_id:
            ids = f"{self.pad_token_id} and {tokenizer.pad_token_id}"
            raise ConfigError(f"text tower and tokenizer must have the same pad token. Got {ids}: of the same model?")


class CoCaImageTower(nn.Module):
    """Vision transformer whose class token and patches are pooled by a learned query.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file.
    """

    def __init__(self, config: CoCaImageTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.patch_embedding = Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = nn.Parameter(torch.empty(1 + config.patches, config.width))
        self.ln_pre = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.blocks = Stack.of(config, is_causal=False)
        self.pool = QueryPool(config.width, embed_dim, queries=config.queries, heads=config.pool_heads)
        self.ln_post = nn.LayerNorm(embed_dim, eps=config.layer_norm_eps)
        self.projection = nn.Parameter(torch.empty(embed_dim, embed_dim))

    def trunk(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Features before the projection, which linear probes are fitted on.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: [B, K] int64, numbers of the patches that are looked at; all when not given.

        Returns:
            [B, D], not unit length.
        """
        return self.ln_post(self.pool(self._stream(images, kept_patches)))

    def tokens_and_feature(self, images: Tensor, kept_patches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What becomes of each patch, [B, P, W] (of K kept ones [B, K, W]), and what `forward` gives, [B, D]."""
        x = self._stream(images, kept_patches)  # [B, 1 + P, W]
        return x[:, 1:], self.project(self.ln_post(self.pool(x)))

    def grid(self, images: Tensor) -> Tensor:
        """What each patch says in the space of the words; see `QueryPool.of_each_alone`.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, h = w = S / patch size.
        """
        x = self.pool.of_each_alone(self._stream(images, None)[:, 1:])  # [B, P, D]
        return as_grid(self.project(self.ln_post(x)))

    def _stream(self, images: Tensor, kept_patches: Tensor | None) -> Tensor:
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, P, W]
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)  # [B, 1 + P, W]
        x = x + self.position_embedding
        if kept_patches is not None:
            x = torch.cat([x[:, :1], keep_patches(x[:, 1:], kept_patches)], dim=1)  # [B, 1 + K, W]
        return self.blocks(self.ln_pre(x))

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
        """The last step: [B, D] to [B, D], not yet unit length."""
        return trunk @ self.projection

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: the blocks as torch does, the rest by width."""
        reset_to_defaults(self, generator)
        self.pool.reset_parameters(generator)
        std = self.class_embedding.numel() ** -0.5
        for parameter in (self.class_embedding, self.position_embedding, self.projection):
            draw_normal(parameter, std, generator)


class QueryPool(nn.Module):
    """One attention step in which a learned query asks and all positions answer.

    There are more queries than the one that is asked here: they gather what a caption is written from, and are kept
    for who writes it.
    """

    def __init__(self, width: int, embed_dim: int, *, queries: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Parameter(torch.empty(queries, embed_dim))
        self.ln_query = nn.LayerNorm(embed_dim, eps=_EPS)
        self.ln_position = nn.LayerNorm(width, eps=_EPS)
        self.query = Linear(embed_dim, embed_dim, bias=False)
        self.key_value = Linear(width, 2 * embed_dim, bias=False)
        self.bias = nn.Parameter(torch.empty(3 * embed_dim))  # of queries, keys and values
        self.out_projection = Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, D], what the first query gathers."""
        embed_dim = self.queries.shape[1]
        query_bias, bias = self.bias.split([embed_dim, 2 * embed_dim])
        query = (self.query(self.ln_query(self.queries[:1])) + query_bias).expand(x.shape[0], 1, -1)  # [B, 1, D]
        answers = (self.key_value(self.ln_position(x)) + bias).chunk(2, dim=-1)  # [B, L, D] each
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, *answers))
        x = attend(query, key, value, is_causal=False)  # [B, H, 1, D / H]
        return self.out_projection(x.transpose(1, 2).flatten(2))[:, 0]

    def of_each_alone(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, D]: what `forward` would give if the query looked at one position alone.

        Source: MaskCLIP's value path, arXiv:2112.01071, section 3.2, through this pool.
        """
        embed_dim = self.queries.shape[1]
        return self.out_projection((self.key_value(self.ln_position(x)) + self.bias[embed_dim:])[..., embed_dim:])

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does."""
        draw_normal(self.queries, 1.0, generator)
        for weight in (self.query.weight, *self.key_value.weight.chunk(2)):
            draw_uniform(weight, (6 / sum(weight.shape)) ** 0.5, generator)  # Xavier
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.out_projection.bias)


class CoCaTextTower(nn.Module):
    """Causal transformer with a class token behind the text: tokens in, one feature out, read there.

    A token is not looked at where the one before it is padding: the text, its end and one place of padding are, and
    the class token itself where the text fills all places.
    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file.
    """

    def __init__(self, config: CoCaTextTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.token_embedding = Embedding(config.vocab_size, config.width)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = nn.Parameter(torch.empty(config.context_length + 1, config.width))
        self.blocks = Stack.of(config, is_causal=False)  # the mask that it is given is
        self.ln_final = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = nn.Parameter(torch.empty(config.width, embed_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L the context length, as the bundle's `tokenizer` pads them.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_text` makes it so.
        """
        x = self.token_embedding(tokens)  # [B, L, W]
        x = torch.cat([x, self.class_embedding.expand(x.shape[0], 1, -1)], dim=1)  # [B, L + 1, W]
        is_seen = torch.cat([torch.ones_like(tokens[:, :1], dtype=torch.bool), tokens != self.pad_token_id], dim=1)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril() & is_seen[:, None, None]
        x = self.blocks(x + self.position_embedding, mask)
        return self.ln_final(x[:, -1]) @ self.projection  # [B, D]

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: smaller where a layer writes to the residual stream."""
        reset_to_defaults(self, generator)
        draw_normal(self.class_embedding, 0.01, generator)
        draw_text(self.token_embedding, self.position_embedding, self.blocks, self.projection, generator)
