"""What a text tower and a tokenizer must agree on, and the texts that a saved model is checked with."""

from typing import Protocol

import numpy as np

from diptych.errors import ConfigError

GOLDEN_TEXTS = ("a photo of a cat", "two red kites, 3 blue boats & a dog", "naïve café ½ 🙂")


class Vocabulary(Protocol):
    """What a tokenizer tells of its tokens."""

    @property
    def context_length(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def end_token_id(self) -> int: ...
    @property
    def pad_token_id(self) -> int: ...


def check_tokens_fit(tokenizer: Vocabulary, *, context_length: int, vocab_size: int) -> None:
    """Refuse a tokenizer that gives more tokens than a text tower takes.

    Args:
        tokenizer: whose tokens they are.
        context_length: of the tower.
        vocab_size: of the tower.

    Raises:
        ConfigError: its texts are longer, or its vocabulary larger.
    """
    if tokenizer.context_length > context_length or tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the text tower must take all tokens: it has context_length={context_length}, "
            f"vocab_size={vocab_size}, the tokenizer {tokenizer.context_length} and {tokenizer.vocab_size}. "
            "Are they of the same model?"
        )


def check_pads(tokenizer: Vocabulary, context_length: int) -> None:
    """Refuse a tokenizer that pads to another length than a text tower reads.

    Raises:
        ConfigError: it does.
    """
    if tokenizer.context_length != context_length:
        raise ConfigError(
            "the tokenizer must pad to the context length of a text tower that reads the padding. "
            f"Got {tokenizer.context_length} and {context_length}: of the same model?"
        )


def check_pad_token(pad_token_id: int, vocab_size: int) -> None:
    """Refuse a padding token of a text tower that is none of its vocabulary.

    Raises:
        ConfigError: it is not.
    """
    if not 0 <= pad_token_id < vocab_size:
        raise ConfigError(f"text.pad_token_id must be one of {vocab_size:,} tokens. Got {pad_token_id}.")


def check_same_padding(tokenizer: Vocabulary, pad_token_id: int) -> None:
    """Refuse a tokenizer that pads with another token than a text tower takes for padding.

    Args:
        tokenizer: whose tokens they are.
        pad_token_id: of the tower.

    Raises:
        ConfigError: it is another one.
    """
    if tokenizer.pad_token_id != pad_token_id:
        ids = f"{pad_token_id} and {tokenizer.pad_token_id}"
        raise ConfigError(f"text tower and tokenizer must have the same padding. Got {ids}: of the same model?")


def text_lengths(tokens: np.ndarray, end_token_id: int, pad_token_id: int) -> np.ndarray:
    """[B, L] to [B] tokens of each text, its end included.

    A text may name special tokens, "[SEP]" in a caption from a page: its end is the last one. Where the padding is made
    of end tokens it is the first, and a tower that is padded so reads nothing behind it.
    """
    if pad_token_id == end_token_id:
        return 1 + (tokens == end_token_id).argmax(axis=1)
    return tokens.shape[1] - (tokens[:, ::-1] != pad_token_id).argmax(axis=1)
