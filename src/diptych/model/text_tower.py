"""TextTower, a transformer that is causal but for one option, and its config."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    Activation,
    Block,
    Embedding,
    Stack,
    check_blocks,
    check_sizes,
    draw_normal,
    reset_to_defaults,
)
from diptych.model.cost import TowerCost, transformer_cost
from diptych.model.packing import Packing, packed
from diptych.model.vocabulary import GOLDEN_TEXTS, Vocabulary, check_pads, check_tokens_fit


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """Sizes of a text transformer.

    Raises:
        ConfigError: a size below 1, heads that do not divide the width, or an end token outside the vocabulary.
    """

    kind: Literal["clip"] = "clip"
    context_length: int = 77  # tokens, start and end included
    vocab_size: int = 49_408
    width: int  # channels of the residual stream
    layers: int
    heads: int
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5
    end_token_id: int | None = None  # None: the end token is the highest id of a text, as in the released vocabulary
    is_causal: bool = True  # or all positions see all, padding too, as in two of MobileCLIP 2

    has_blocks: ClassVar[bool] = True
    rows_are_features: ClassVar[bool] = False
    golden_texts: ClassVar[tuple[str, ...]] = GOLDEN_TEXTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("text", context_length=self.context_length, vocab_size=self.vocab_size)
        check_blocks("text", self)
        if self.end_token_id is not None and not 0 <= self.end_token_id < self.vocab_size:
            raise ConfigError(
                "text.end_token_id must be an id of the vocabulary, 0 to text.vocab_size - 1. "
                f"Got end_token_id={self.end_token_id}, vocab_size={self.vocab_size}."
            )

    @property
    def reads_padding(self) -> bool:
        """Whether what comes after the end token counts."""
        return not self.is_causal

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"{self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "TextTower":
        """The tower; see `CLIP` for where its parameters are."""
        return TextTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int) -> TowerCost:
        """FLOPs and activations of one text at full context length; see `ImageTowerConfig.cost`."""
        last = 2 * self.width * embed_dim
        return transformer_cost(self, self.context_length, element, first=0, last=last, outside=0)

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            ConfigError: it gives more tokens than the tower takes, ends a text otherwise, or pads to another length
                where the padding is read.
        """
        check_tokens_fit(tokenizer, context_length=self.context_length, vocab_size=self.vocab_size)
        if self.reads_padding:
            check_pads(tokenizer, self.context_length)
        if self.end_token_id not in (None, tokenizer.end_token_id):
            ids = f"{self.end_token_id} and {tokenizer.end_token_id}"
            raise ConfigError(f"text tower and tokenizer must have the same end token. Got {ids}: of the same model?")


class TextTower(nn.Module):
    """Transformer: tokens in, one feature out, read at the end token.

    There is no padding mask: padding comes after the end token, where a causal position cannot look. Where positions
    are not causal, the padding is part of the model.
    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: CLIP, arXiv:2103.00020, section 2.4. Letters: B, L, W, D.

    Attributes:
        packs: in training leave out the padding of a batch where that is faster, see `packed`. The features differ
            by rounding.
    """

    packs = False

    def __init__(self, config: TextTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.end_token_id = config.end_token_id
        self.token_embedding = Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.blocks = Stack.of(config, is_causal=config.is_causal)
        self.is_causal = config.is_causal
        self.ln_final = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.projection = nn.Parameter(torch.empty(config.width, embed_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length. Where positions are causal, texts cut to the longest of
                a batch cost less and give the same features. A row without an end token is read at its highest id, or,
                when the config names the end token, at position 0.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_text` makes it so.
        """
        ends = self._end_positions(tokens)
        packing = packed(tokens, ends) if self.packs and self.training and self.is_causal else None
        x = self._padded(tokens, ends) if packing is None else self._packed(packing)  # [B, W]
        return self.ln_final(x) @ self.projection  # [B, D]

    def _padded(self, tokens: Tensor, ends: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.position_embedding[: tokens.shape[1]]  # [B, L, W]
        x = self.blocks(x)
        return x[torch.arange(x.shape[0], device=x.device), ends]

    def _packed(self, packing: Packing) -> Tensor:
        # Not by an index: the sums of its gradient come in the order of threads.
        x = self.token_embedding(packing.tokens) + F.embedding(packing.positions, self.position_embedding)  # [T, W]
        return self.blocks(x, None, packing).index_select(0, packing.ends)

    def _end_positions(self, tokens: Tensor) -> Tensor:
        # argmax gives the first of equals: some tokenizers pad with the end token itself.
        is_end = tokens if self.end_token_id is None else (tokens == self.end_token_id).int()
        return is_end.argmax(dim=1)  # [B]

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code does: smaller where a layer writes to the residual stream."""
        reset_to_defaults(self, generator)
        draw_text(self.token_embedding, self.position_embedding, self.blocks, self.projection, generator)


def draw_text(
    token_embedding: nn.Embedding,
    position_embedding: Tensor,
    blocks: Stack,
    projection: Tensor,
    generator: torch.Generator,
) -> None:
    """Draw the weights of a text transformer as CLIP's released code does: smaller where they write to the stream."""
    draw_normal(token_embedding.weight, 0.02, generator)
    draw_normal(position_embedding, 0.01, generator)
    width = token_embedding.embedding_dim
    for block in blocks:
        assert isinstance(block, Block)
        residual_std = width**-0.5 * (2 * len(blocks)) ** -0.5
        draw_normal(block.attention.in_projection.weight, width**-0.5, generator)
        draw_normal(block.attention.out_projection.weight, residual_std, generator)
        draw_normal(block.mlp.up.weight, (2 * width) ** -0.5, generator)
        draw_normal(block.mlp.down.weight, residual_std, generator)
    draw_normal(projection, width**-0.5, generator)
