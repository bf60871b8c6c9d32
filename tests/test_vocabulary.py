from dataclasses import dataclass

import numpy as np
import pytest

from diptych.errors import ConfigError
from diptych.model.sentence_tower import SentenceTowerConfig
from diptych.model.siglip import SigLIPTextTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.model.vocabulary import GOLDEN_TEXTS, check_tokens_fit, text_lengths

SIZES = {"context_length": 16, "vocab_size": 100, "width": 8, "layers": 1, "heads": 1}


@dataclass(frozen=True)
class Words:
    """The facts of a tokenizer alone."""

    context_length: int = 16
    vocab_size: int = 100
    end_token_id: int = 99
    pad_token_id: int = 0


def test_tokens_fit_up_to_the_sizes_of_the_tower_and_no_further():
    check_tokens_fit(Words(), context_length=16, vocab_size=100)
    check_tokens_fit(Words(), context_length=17, vocab_size=101)
    for sizes in ({"context_length": 15, "vocab_size": 100}, {"context_length": 16, "vocab_size": 99}):
        with pytest.raises(ConfigError, match=r"must take all tokens: .* the tokenizer 16 and 100\. Are they of"):
            check_tokens_fit(Words(), **sizes)


@pytest.mark.parametrize(
    ("tower", "tokenizer", "message"),
    [
        (TextTowerConfig(**SIZES), Words(end_token_id=7), None),  # the highest id of a text is its end, whichever it is
        (TextTowerConfig(**SIZES, end_token_id=99), Words(), None),
        (TextTowerConfig(**SIZES, end_token_id=99), Words(end_token_id=7), r"same end token\. Got 99 and 7"),
        (TextTowerConfig(**SIZES), Words(context_length=9, pad_token_id=5), None),
        (SigLIPTextTowerConfig(**SIZES), Words(end_token_id=7, pad_token_id=5), None),
        (SigLIPTextTowerConfig(**SIZES), Words(context_length=9), r"must pad to the context length .* Got 9 and 16"),
        (SentenceTowerConfig(**SIZES), Words(context_length=9, end_token_id=7), None),
        (SentenceTowerConfig(**SIZES), Words(pad_token_id=5), r"same padding\. Got 0 and 5"),
    ],
)
def test_each_tower_refuses_the_tokens_that_it_would_misread_and_no_others(tower, tokenizer, message):
    if message is None:
        tower.check_tokenizer(tokenizer)
    else:
        with pytest.raises(ConfigError, match=message):
            tower.check_tokenizer(tokenizer)


def test_a_text_reaches_to_its_last_token_that_is_no_padding_or_where_ends_are_padding_to_its_first_end():
    padded = np.array([[5, 9, 0, 0], [5, 9, 7, 9], [5, 0, 9, 0]])  # one names an end token, another padding
    assert text_lengths(padded, end_token_id=9, pad_token_id=0).tolist() == [2, 4, 3]
    with_ends = np.array([[5, 9, 9, 9], [5, 6, 7, 9], [9, 1, 2, 9]])
    assert text_lengths(with_ends, end_token_id=9, pad_token_id=9).tolist() == [2, 4, 1]


def test_golden_texts_reach_beyond_ascii_and_are_all_different():
    assert len(set(GOLDEN_TEXTS)) == len(GOLDEN_TEXTS)
    assert not all(text.isascii() for text in GOLDEN_TEXTS)
