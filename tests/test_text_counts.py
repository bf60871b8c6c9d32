"""captions/text_counts.py: length, letters and repetition of captions."""

import itertools
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.captions.text_counts import Length, Letters, Repetition
from diptych.errors import ConfigError
from pair_tables import captions_of, kept_by, measured_by


@pytest.mark.parametrize(
    ("text", "words", "characters"),
    [
        ("red kite", 2, 7),
        ("  a   dog - runs!  ", 3, 10),  # a sign that stands alone is no word
        ("well-known T-shirt", 2, 17),  # what no space parts is one
        ("小狗在跑", 2, 8),  # two of them are a word, and each counts twice
        ("小狗 runs 3 km", 4, 11),
        ("สุนัขวิ่ง", 3, 9),  # nine, marks included, at four a word
        ("눈밭을 달리는 개", 3, 7),  # Korean has spaces
        ("كلب يركض", 2, 7),
        ("\u200fab\u200e cd", 2, 4),  # what directs the flow is not there
        ("e\u0301te\u0301 bleu", 2, 7),  # a letter and its mark are one
        ("😀 😀", 0, 2),
        ("", 0, 0),
        ("\x00", 0, 0),
    ],
)
def test_words_and_characters_are_counted_as_people_of_each_script_would(text, words, characters):
    assert measured_by(Length(), text) == f"words: {words}, characters: {characters}"


def test_length_has_a_limit_at_both_ends_and_keeps_what_is_on_it():
    rule = Length(min_words=2, max_words=3, min_characters=4, max_characters=8)
    texts = ["ab cd", "ab", "a bc", "ab cd ef gh", "a b cd", "abcd efgh", "abcd efghi", ""]
    assert kept_by(rule, *texts) == [True, False, False, False, True, True, False, False]
    assert rule.limit == "2 to 3 words, 4 to 8 characters"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab -", max_size=12), max_size=6))
def test_lengths_are_those_of_the_plain_twin(texts):
    values = Length().judge(captions_of(*texts)).values(np.arange(len(texts)))
    for text, value in zip(texts, values, strict=True):
        words = [word for word in text.split() if any(c.isalnum() for c in word)]
        assert value == f"words: {len(words)}, characters: {len(text.replace(' ', ''))}"


def test_digits_signs_and_emoji_are_no_caption():
    texts = [
        "$19.99",
        "2019-01-01 12:00",
        "😀😀😀😀😀",
        "+++ +++",
        "Boeing 747-400",
        "a dog",
        "小狗",
        "Ünï cödé",
        "สุนัข",
    ]
    assert kept_by(Letters(), *texts) == [False] * 4 + [True] * 5
    assert measured_by(Letters(), "ab 12 34") == "2 letters of 6"
    assert Letters().limit == "at least 4 letters, and 40% of the characters"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("aé1 -😀", max_size=12), max_size=6), st.sampled_from([0.3, 0.5, 1.0]))
def test_letters_are_those_of_the_plain_twin(texts, share):
    def plain(text: str) -> bool:
        visible = [c for c in text if not c.isspace()]
        letters = [c for c in visible if unicodedata.category(c)[0] == "L"]
        return len(letters) >= 2 and len(letters) >= share * len(visible)

    assert kept_by(Letters(min_letters=2, min_share=share), *texts) == [plain(text) for text in texts]


def test_what_says_the_same_again_is_dropped():
    texts = [
        "shoes buy shoes red shoes cheap shoes",  # one word is 4 of 7
        "cheap flights cheap flights cheap flights",  # one pair is 3 of 5
        "hahahahahaha",
        "=-=-=-=-=-=-",
        "哈哈哈哈哈哈哈哈",
        "a dog and a cat and a bird in a house",
        "A football player holding a football.",
        "blue on blue on",  # too short to judge by its words
        "きらきら星",  # as is this: five characters are three words
    ]
    assert kept_by(Repetition(), *texts) == [False] * 5 + [True] * 4
    assert measured_by(Repetition(), texts[1]) == "one word 50%, pair 60%, character 0%"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=5))
def test_repetition_is_that_of_the_plain_twin(texts):
    rule = Repetition(min_words=2, min_characters=3)

    def plain(text: str) -> str:
        words = text.split()
        pairs = list(itertools.pairwise(words))
        enough = len(words) >= 2
        word = max(Counter(words).values(), default=0) / max(len(words), 1) * enough
        pair = max(Counter(pairs).values(), default=0) / max(len(pairs), 1) * enough
        again = max(sum(text[i] == text[i - gap] for i in range(gap, len(text))) for gap in (1, 2, 3))
        character = again / max(len(text), 1) * (len(text) >= 3)
        return f"one word {word:.0%}, pair {pair:.0%}, character {character:.0%}"

    values = rule.judge(captions_of(*texts)).values(np.arange(len(texts)))
    assert list(values) == [plain(text) for text in texts]


@pytest.mark.parametrize("rule", [Length(), Letters(), Repetition()])
@pytest.mark.parametrize(
    "text", ["a" * 1_000_000, "dog " * 250_000, "\u0301" * 1000, "😀" * 1000, "\u202e" * 50, "\x00"]
)
def test_hostile_texts_are_dropped_by_one_rule_or_another(rule, text):
    judged = [kept_by(other, text)[0] for other in (Length(), Letters(), Repetition())]
    assert not all(judged)
    assert rule.judge(captions_of()).keep.tolist() == []


def test_options_that_cannot_be_are_named():
    with pytest.raises(ConfigError, match=r"min_words must be from 0 to max_words\. Got 5 and 4"):
        Length(min_words=5, max_words=4)
    with pytest.raises(ConfigError, match=r"min_share must be a share"):
        Letters(min_share=40)
    with pytest.raises(ConfigError, match=r"max_pair must be a share"):
        Repetition(max_pair=-1)
