"""BagTower, a text tower that adds up the rows of a text's tokens, and its config.

Source: bag of words against pictures, Joulin et al., arXiv:1511.02251; as the text side of CLIP's own comparison of
objectives, arXiv:2103.00020, section 2.3.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import Embedding, check_sizes, draw_normal
from diptych.model.cost import TowerCost, without_blocks
from diptych.model.vocabulary import GOLDEN_TEXTS, Vocabulary, check_pad_token, check_tokens_fit


@dataclass(frozen=True, kw_only=True)
class BagTowerConfig:
    """Sizes of a bag of words; the width of its rows is `embed_dim`.

    Raises:
        ConfigError: a size below 1, or padding that is no token.
    """

    kind: Literal["bag-of-words"] = "bag-of-words"
    context_length: int = 77  # tokens, start and end included
    vocab_size: int = 49_408
    pad_token_id: int = 0  # tokens that are not looked at

    reads_padding: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = False
    rows_are_features: ClassVar[bool] = True
    golden_texts: ClassVar[tuple[str, ...]] = GOLDEN_TEXTS

    def __post_init__(self) -> None:
        check_sizes("text", context_length=self.context_length, vocab_size=self.vocab_size)
        check_pad_token(self.pad_token_id, self.vocab_size)

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"bag of {self.vocab_size:,} words"

    def build(self, embed_dim: int) -> "BagTower":
        """The tower; see `CLIP` for where its parameters are."""
        return BagTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int) -> TowerCost:
        """FLOPs and activations of one text at full context length; see `ImageTowerConfig.cost`."""
        forward = 2 * self.context_length * embed_dim  # the weights of the tokens need no gradient, and are kept
        kept = self.context_length * (element + 8)  # and the tokens, whose rows learn
        return without_blocks(forward=forward, first=forward, activations=kept)

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            ConfigError: it gives more tokens than the tower takes, or pads with another one.
        """
        check_tokens_fit(tokenizer, context_length=self.context_length, vocab_size=self.vocab_size)
        if tokenizer.pad_token_id != self.pad_token_id:
            ids = f"{self.pad_token_id} and {tokenizer.pad_token_id}"
            raise ConfigError(f"text tower and tokenizer must have the same padding. Got {ids}: of the same model?")


class BagTower(nn.Module):
    """Tokens in, one feature out: the weighted mean of their rows, in whatever order they stand.

    `token_weights` says how much each token of the vocabulary counts; a run fills it from its captions (rare words
    count most, see `diptych.train.word_classes`), and until then all count alike.
    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file. Letters: B, L, D; V tokens.
    """

    def __init__(self, config: BagTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.token_embedding = Embedding(config.vocab_size, embed_dim)
        self.register_buffer("token_weights", torch.empty(config.vocab_size))
        self.token_weights: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length; how much padding there is changes nothing. In a text of
                tokens that count nothing, such as one without words, all count alike.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_text` makes it so.
        """
        is_token = (tokens != self.pad_token_id).to(self.token_weights)  # [B, L]
        weights = self.token_weights[tokens] * is_token
        weights = torch.where(weights.sum(dim=1, keepdim=True) > 0, weights, is_token)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return (weights[:, None] @ self.token_embedding(tokens))[:, 0]  # [B, D]

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the rows as an embedding of their width; all tokens count alike, and padding nothing."""
        draw_normal(self.token_embedding.weight, self.token_embedding.embedding_dim**-0.5, generator)
        nn.init.ones_(self.token_weights)
        self.token_weights[self.pad_token_id] = 0
