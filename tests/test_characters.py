"""captions/characters.py: what is counted and hashed of many texts at once."""

import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.captions.characters import DENSE, DIGIT, LETTER, SPACE, Characters, before, hashes_of, mixed, most_frequent

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=8)


def plain(text: str) -> list[str]:
    """The characters of one text, slowly."""
    kept = []
    for character in unicodedata.normalize("NFC", text):
        if unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) < 0xFE10:
            continue
        same = unicodedata.normalize("NFKC", character)
        if unicodedata.category(character)[0] in "LM":
            same = same.casefold()
        is_folded = unicodedata.category(character)[0] in "LMN" and len(same) == 1
        kept.append(same if is_folded else character)
    return kept


def plain_words(text: str) -> list[str]:
    words, word = [], ""
    for character in plain(text):
        alone = bool(Characters.of(pa.array([character])).flags[0] & 24)
        if unicodedata.category(character)[0] in "LMN" and not alone:
            word += character
            continue
        words += [word] if word else []
        words += [character] if alone else []
        word = ""
    return words + ([word] if word else [])


# Python and Arrow know different versions of Unicode: both know these scripts.
SCRIPTS = st.text(st.sampled_from("aB é\u0301ßЖ小犬かカรูขב ́ 12-_'\u200f\u200d\ufe0f😀Ａ１\x00\t\n"), max_size=14)


@settings(max_examples=150, deadline=None)
@given(st.lists(SCRIPTS, max_size=6))
def test_characters_and_words_are_those_of_the_plain_twin(texts):
    characters = Characters.of(pa.array(texts, pa.string()))
    got = [
        "".join(map(chr, characters.codes[start:end]))
        for start, end in zip(characters.starts[:-1], characters.starts[1:], strict=True)
    ]
    assert got == ["".join(plain(text)) for text in texts]
    words = characters.words
    read = ["".join(map(chr, characters.codes[a : b + 1])) for a, b in zip(words.first, words.last, strict=True)]
    by_text = [read[a:b] for a, b in zip(words.starts[:-1], words.starts[1:], strict=True)]
    assert by_text == [plain_words(text) for text in texts]
    assert words.of_text.tolist() == [i for i, some in enumerate(by_text) for _ in some]
    same = {(a, b): read[a] == read[b] for a in range(len(read)) for b in range(len(read))}
    assert same == {(a, b): bool(words.hashes[a] == words.hashes[b]) for a, b in same}


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_any_text_that_arrow_holds_can_be_counted(texts):
    characters = Characters.of(pa.array(texts, pa.string()))
    assert len(characters) == len(texts)
    assert (characters.visible <= [len(unicodedata.normalize("NFD", text)) for text in texts]).all()
    assert len(characters.hashes()) == len(texts)


def test_letters_digits_and_spaces_are_counted_by_text():
    characters = Characters.of(pa.array(["a1 ü", "小狗 9", None, "", "กี่"]))
    assert characters.count(LETTER).tolist() == [2, 2, 0, 0, 3]  # a mark counts as a letter
    assert characters.count(DIGIT).tolist() == [1, 1, 0, 0, 0]
    assert characters.count(SPACE).tolist() == [1, 1, 0, 0, 0]
    assert characters.count(DENSE).tolist() == [0, 2, 0, 0, 0]


def test_a_slice_and_chunks_are_read_as_what_they_show():
    array = pa.array(["小", "a b", "c"])
    whole = pa.chunked_array([array.slice(1, 1), array.slice(2)])
    for texts in (array.slice(1), whole):
        characters = Characters.of(texts)
        assert "".join(map(chr, characters.codes)) == "a bc"
        assert characters.words.starts.tolist() == [0, 2, 3]


def test_hashes_are_equal_where_only_case_and_white_space_differ():
    texts = ["A  dog\n", "a dog", "a dot", "😀", "😁", "ab", "ba", "caf\u00e9", "cafe\u0301", "", " "]
    hashes = Characters.of(pa.array(texts)).hashes().tolist()
    assert hashes[0] == hashes[1]
    assert hashes[7] == hashes[8]
    assert hashes[9] == hashes[10]
    assert len(set(hashes)) == len(texts) - 3


def test_a_hash_does_not_depend_on_what_stands_beside_it():
    texts = ["a red kite", "小狗", "x" * 1000]
    together = Characters.of(pa.array(texts)).hashes()
    assert together.tolist() == [Characters.of(pa.array([text])).hashes()[0] for text in texts]
    many = pa.chunked_array([texts * 3000, texts])
    assert hashes_of(many).tolist() == together.tolist() * 3001
    assert hashes_of(pa.array([], pa.string())).tolist() == []


def test_mixing_is_that_of_splitmix64():
    # The first number of splitmix64 from seed 0: the finaliser of its increment.
    assert mixed(np.array([0x9E3779B97F4A7C15], np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_the_most_frequent_value_of_each_group():
    groups, values = np.array([0, 0, 0, 2, 2], np.uint32), mixed(np.array([5, 6, 5, 5, 7], np.uint64))
    assert most_frequent(groups, values, 4).tolist() == [2, 0, 1, 0]
    assert most_frequent(groups[:0], values[:0], 2).tolist() == [0, 0]


def test_counts_before_each_place():
    assert before(np.array([True, False, True])).tolist() == [0, 1, 1, 2]
