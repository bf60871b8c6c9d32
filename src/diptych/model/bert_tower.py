"""BertTower, the encoder of BERT, RoBERTa and XLM-R with a head on it, and its config.

Source: BERT, arXiv:1810.04805; RoBERTa, arXiv:1907.11692; XLM-R, arXiv:1911.02116; the released code.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.blocks import Activation, Embedding, check_blocks, check_sizes, draw_normal
from diptych.model.cost import TowerCost, layer_norm_bytes, transformer_cost, without_blocks
from diptych.model.sentence_tower import PostBlock
from diptych.model.text_head import (
    Head,
    Pool,
    TextHead,
    check_head,
    check_head_width,
    cut_padding,
    head_bytes,
    head_flops,
)
from diptych.model.vocabulary import GOLDEN_TEXTS, Vocabulary, check_pad_token, check_same_padding, check_tokens_fit

_STD = 0.02  # of all weights at the start

Places = Literal["index", "words"]


@dataclass(frozen=True, kw_only=True)
class BertTowerConfig:
    """Sizes of an encoder of BERT's kind. The defaults are those of BERT base.

    Raises:
        ConfigError: a size below 1, heads that do not divide the width, padding that is no token, fewer positions than
            the context has, or a head that there is not.
    """

    kind: Literal["bert"] = "bert"
    context_length: int = 77  # tokens, start and end included
    vocab_size: int = 30_522
    width: int = 768  # channels of the residual stream
    layers: int = 12
    heads: int = 12
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0  # tokens that are not looked at
    positions: int = 512  # rows of the position embedding, of which the context may need fewer
    # index: position i has row i; words: words are counted, from the row behind that of the padding's id (RoBERTa)
    places: Places = "index"
    token_types: int = 2  # rows of an embedding whose first is added to each token; 0: it has none
    pool: Pool = "first"
    head: Head = "linear"
    head_width: int = 0  # hidden channels of the heads that have two layers
    head_bias: bool = False  # of the head linear

    reads_padding: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = False  # its own take a mask beside their input
    rows_are_features: ClassVar[bool] = False
    golden_texts: ClassVar[tuple[str, ...]] = GOLDEN_TEXTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("text", context_length=self.context_length, vocab_size=self.vocab_size)
        check_blocks("text", self)
        check_head(self)
        check_pad_token(self.pad_token_id, self.vocab_size)
        if self.token_types < 0:
            raise ConfigError(f"text.token_types must be at least 0, which stands for none. Got {self.token_types}.")
        if self.places not in get_args(Places):
            raise ConfigError(f"text.places: {unknown_name(self.places, '', get_args(Places), 'an option')}")
        most = self.positions - (self.pad_token_id + 1 if self.places == "words" else 0)
        if self.context_length > most:
            raise ConfigError(
                f"text.context_length must be at most {most}, which text.positions={self.positions} leaves room for. "
                f"Got {self.context_length}."
            )

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"BERT, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "BertTower":
        """The tower; see `CLIP` for where its parameters are.

        Raises:
            ConfigError: it has no projection, and `embed_dim` is not its width.
        """
        check_head_width(self, embed_dim)
        return BertTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int) -> TowerCost:
        """FLOPs and activations of one text at full context length; see `ImageTowerConfig.cost`."""
        length = self.context_length
        outside = length * layer_norm_bytes(self.width) + head_bytes(self, length, element)
        last = head_flops(self, embed_dim)
        cost = transformer_cost(self, length, element, first=0, last=last, outside=outside)
        return without_blocks(forward=cost.forward, first=0, activations=cost.activations)

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            ConfigError: it gives more tokens than the tower takes, or pads with another one.
        """
        check_tokens_fit(tokenizer, context_length=self.context_length, vocab_size=self.vocab_size)
        check_same_padding(tokenizer, self.pad_token_id)


class BertTower(nn.Module):
    """Post-LN transformer without a causal mask: tokens in, one feature out; padding is not looked at.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file. Letters: B, L, W, D.
    """

    def __init__(self, config: BertTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.places: Places = config.places
        self.token_embedding = Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.positions, config.width))
        self.type_embedding = (
            nn.Parameter(torch.empty(config.token_types, config.width)) if config.token_types else None
        )
        self.ln_embedding = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(PostBlock(config) for _ in range(config.layers))
        self.head = TextHead(config, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length; how much padding there is changes nothing.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_text` makes it so.
        """
        tokens = cut_padding(tokens, self.pad_token_id)
        is_word = tokens != self.pad_token_id  # [B, L]
        x = self.token_embedding(tokens)  # [B, L, W]
        if self.type_embedding is not None:
            x = x + self.type_embedding[0]
        x = self.ln_embedding(x + self._positions(is_word))
        for block in self.blocks:
            x = block(x, is_word[:, None, None])
        return self.head(x, is_word)

    def _positions(self, is_word: Tensor) -> Tensor:
        """[L, W] or [B, L, W]."""
        if self.places == "index":
            return self.position_embedding[: is_word.shape[1]]
        # A pad token that a text itself names is no word, and is not counted.
        places = is_word.long().cumsum(dim=1) * is_word + self.pad_token_id
        return F.embedding(places, self.position_embedding)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code of BERT does."""
        reset_as_bert(self, generator)
        for parameter in (self.position_embedding, self.type_embedding):
            if parameter is not None:
                draw_normal(parameter, _STD, generator)


def reset_as_bert(tower: nn.Module, generator: torch.Generator) -> None:
    """Draw the parameters of a tower's layers as the released code of BERT does; what lies in no layer is the tower's.

    Args:
        tower: whose.
        generator: where they are drawn from.
    """
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()  # ones and zeros: nothing is drawn
        elif isinstance(module, nn.Linear | nn.Embedding):
            draw_normal(module.weight, _STD, generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
