"""The words of a caption as classes of its picture: a row of numbers for each word of the vocabulary.

A word is a token of the tokenizer: a frequent one is whole, a rare one is in pieces. The rows of the words are a
zero-shot classifier as they stand: the feature of a name is the weighted mean of its words' rows.

Sources: Joulin et al., arXiv:1511.02251 (bag of words); SuperClass, arXiv:2411.03313 (softmax, tokens as classes).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model.blocks import draw_normal
from diptych.model.clip import CLIPConfig
from diptych.model.cost import FLOAT, TowerCost, without_blocks
from diptych.train.seen import Need, Seen

_TEXTS_AT_ONCE = 4096


class WordCounts(NamedTuple):
    """In how many texts each word of the vocabulary is."""

    texts: int  # N
    with_word: Tensor  # [V] int64

    def weights(self) -> Tensor:
        """[V] float32, how much each word counts: log((1 + N) / (1 + n)), 0 for one that is in every text."""
        return (torch.tensor(1.0 + self.texts) / (1 + self.with_word)).log()

    def log_odds(self) -> Tensor:
        """[V] float32, of a word being in a text, half a text added on both sides."""
        return (self.with_word + 0.5).log() - (self.texts - self.with_word + 0.5).log()


class WordEncoder(Protocol):
    """What counting asks of a tokenizer."""

    @property
    def pad_token_id(self) -> int: ...
    def encode(self, texts: list[str], /, *, truncate: bool) -> np.ndarray: ...


def count_words(texts: Iterable[str], tokenizer: WordEncoder, *, vocab_size: int) -> WordCounts:
    """Count the texts that each word is in; start and end are in all, and padding counts as if it were.

    Args:
        texts: all captions, in their templates.
        tokenizer: of the model.
        vocab_size: V of the text tower, at least that of the tokenizer.
    """
    total, counts = 0, torch.zeros(vocab_size, dtype=torch.int64)
    for some in _batches(texts):
        tokens = torch.from_numpy(tokenizer.encode(some, truncate=True))  # [B, L]
        total += len(tokens)
        counts += words_in(tokens, vocab_size).sum(dim=0)
    counts[tokenizer.pad_token_id] = total
    return WordCounts(total, counts)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for text in texts:
        some.append(text)
        if len(some) == _TEXTS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def words_in(tokens: Tensor, vocab_size: int) -> Tensor:
    """[B, L] tokens to [B, V] bool: which words a text has, however often."""
    found = torch.zeros(len(tokens), vocab_size, dtype=torch.bool, device=tokens.device)
    return found.scatter_(1, tokens, value=True)


@dataclass(frozen=True, kw_only=True)
class BagOfWords:
    """Which words does the caption have? Asked of each word by itself; rare ones count more."""

    kind: Literal["bag-of-words"] = "bag-of-words"
    weight: float = 1.0  # factor on the loss, beside other objectives

    is_per_sample: ClassVar[Literal[True]] = True
    wants_counts: ClassVar[bool] = True

    def needs(self, model: CLIPConfig) -> frozenset[Need]:
        """What the forward pass must give."""
        return _needs(model)

    def build(self, model: CLIPConfig, tokenizer: object) -> "BagOfWordsHead":  # noqa: ARG002
        """Its head, on torch's default device."""
        return BagOfWordsHead(model)

    def cost(self, model: CLIPConfig, *, element: int) -> TowerCost:
        """FLOPs and activations of one pair."""
        return _cost(model, element)


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Which words does the caption have? The words compete; rare ones get a larger share of the target (SuperClass)."""

    kind: Literal["classification"] = "classification"
    weight: float = 1.0  # factor on the loss, beside other objectives

    is_per_sample: ClassVar[Literal[True]] = True
    wants_counts: ClassVar[bool] = True

    def needs(self, model: CLIPConfig) -> frozenset[Need]:
        """What the forward pass must give."""
        return _needs(model)

    def build(self, model: CLIPConfig, tokenizer: object) -> "ClassificationHead":  # noqa: ARG002
        """Its head, on torch's default device."""
        return ClassificationHead(model)

    def cost(self, model: CLIPConfig, *, element: int) -> TowerCost:
        """FLOPs and activations of one pair."""
        return _cost(model, element)


def _needs(model: CLIPConfig) -> frozenset[Need]:
    own: tuple[Need, ...] = ("image_features", "tokens")
    return frozenset((*own, "word_rows") if model.text.rows_are_features else own)


def _cost(model: CLIPConfig, element: int) -> TowerCost:
    classes, width = model.text.vocab_size, model.embed_dim
    # The feature times the scale, in the matrix type; logits in both types, the target, and what their softmax keeps.
    kept = element * (width + classes) + 3 * FLOAT * classes
    return without_blocks(forward=2 * classes * width, first=0, activations=kept)


class WordHead(nn.Module):
    """Rows and biases of the words of a vocabulary: an image feature in, one logit a word out.

    The rows are those of the text tower where these are features, and the head has its own elsewhere. The factor of the
    logits is the model's. Parameters are empty until `reset_parameters` is called or weights are loaded.
    Letters: B, C, D, L, N, V.
    """

    def __init__(self, model: CLIPConfig) -> None:
        super().__init__()
        self.names_by_bundle = model.text.rows_are_features
        self.bias = nn.Parameter(torch.empty(model.text.vocab_size))
        self.rows = None
        if not self.names_by_bundle:
            self.rows = nn.Parameter(torch.empty(model.text.vocab_size, model.embed_dim))
            self.register_buffer("weights", torch.empty(model.text.vocab_size))
            self.weights: Tensor

    def reset_parameters(self, generator: torch.Generator, counts: WordCounts | None) -> None:
        """Rows are drawn, the biases begin at how often each word comes."""
        assert counts is not None
        with torch.no_grad():
            self.bias.copy_(counts.log_odds())
            if self.rows is not None:
                draw_normal(self.rows, self.rows.shape[1] ** -0.5, generator)
                self.weights.copy_(counts.weights())

    def logits(self, seen: Seen) -> Tensor:
        """[B, V], float32 at least."""
        rows, _ = self._words(seen)
        logits = (seen.logit_scale * seen.image_features) @ rows.T
        return logits.to(torch.promote_types(logits.dtype, torch.float32)) + self.bias

    def targets(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Which words the captions have, [B, V] bool, and how much each counts, [V]."""
        _, weights = self._words(seen)
        return words_in(seen.tokens, len(weights)), weights

    def scores(self, seen: Seen, names: Tensor) -> Tensor:
        """Cosine of a picture with the weighted mean of the rows of a name's words.

        Args:
            seen: of N pictures.
            names: [C, L] int64.

        Returns:
            [N, C].
        """
        rows, weights = self._words(seen)
        return seen.image_features @ F.normalize((weights[names][:, None] @ rows[names])[:, 0], dim=-1).T

    def _words(self, seen: Seen) -> tuple[Tensor, Tensor]:
        rows, weights = (seen.word_rows, seen.word_weights) if self.rows is None else (self.rows, self.weights)
        assert rows is not None
        assert weights is not None
        return rows, weights


class BagOfWordsHead(WordHead):
    """A logistic loss for each word."""

    def forward(self, seen: Seen) -> Tensor:
        """[B] in nats: the weighted sum over words of -log sigmoid(±logit), plus where the caption has the word."""
        has_word, weights = self.targets(seen)
        losses = F.binary_cross_entropy_with_logits(self.logits(seen), has_word.to(weights), reduction="none")
        return losses @ weights


class ClassificationHead(WordHead):
    """One softmax over all words."""

    def forward(self, seen: Seen) -> Tensor:
        """[B] in nats: the cross-entropy to the caption's words, weights over their sum; 0 where none counts."""
        has_word, weights = self.targets(seen)
        target = has_word * weights  # [B, V]
        target = target / target.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return -(target * self.logits(seen).log_softmax(dim=1)).sum(dim=1)
