"""captions/phrases.py: phrases of a list, found in texts."""

import itertools
import tomllib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.captions.characters import Characters
from diptych.captions.phrases import SHIPPED, Phrases, phrases_of_kind, phrases_of_lines
from diptych.errors import ConfigError, DataError


def found(phrases: Phrases, *texts: str) -> list[str | None]:
    numbers = phrases.find(Characters.of(pa.array(texts, pa.string()))).tolist()
    return [None if number < 0 else phrases.phrases[number] for number in numbers]


def test_a_phrase_is_found_as_whole_words_in_its_order():
    phrases = Phrases.of(["click here", "cat"])
    texts = ["CLICK   here!", "please click-here", "here click", "clicks here", "concatenate", "a cat.", "", "click"]
    assert found(phrases, *texts) == ["click here", "click here", None, None, None, "cat", None, None]


def test_a_phrase_does_not_go_over_the_end_of_a_text():
    assert found(Phrases.of(["click here"]), "click", "here") == [None, None]


def test_a_phrase_that_counts_only_whole_is_all_of_the_text():
    phrases = Phrases.of(["site logo"], whole=["logo"])
    assert found(phrases, "Logo", "[logo]", "a logo", "logo logo", "the site logo") == [
        "logo",
        "logo",
        None,
        None,
        "site logo",
    ]


def test_the_first_phrase_counts_and_of_those_at_one_word_the_longest():
    phrases = Phrases.of(["red", "red car", "blue"])
    assert found(phrases, "a blue red car", "the red car", "red") == ["blue", "red car", "red"]


def test_scripts_without_spaces_are_searched_at_every_character():
    phrases = Phrases.of(["点击这里", "คลิก"])
    assert found(phrases, "请点击这里看", "击这里", "โปรดคลิกที่นี่") == ["点击这里", None, "คลิก"]


def test_letters_with_marks_are_found_however_they_are_written():
    assert found(Phrases.of(["añadir"]), "an\u0303adir", "ＡÑADIR", "anadir") == ["añadir", "añadir", None]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(" ".join), min_size=1, max_size=5),
    st.lists(st.lists(st.sampled_from("abc"), max_size=7).map(" ".join), max_size=5),
)
def test_what_is_found_is_what_the_plain_twin_finds(phrases, texts):
    def plain(text: str) -> str | None:
        words = text.split()
        for start, length in itertools.product(range(len(words)), (3, 2, 1)):
            if start + length <= len(words) and (phrase := " ".join(words[start : start + length])) in phrases:
                return phrase
        return None

    assert found(Phrases.of(phrases), *texts) == [plain(text) for text in texts]


def test_a_phrase_without_a_word_is_named():
    with pytest.raises(DataError, match=r"must have a letter or a digit\. Got '!!'"):
        Phrases.of(["a", "!!"])


def test_the_lists_that_ship_can_be_read_and_name_nothing_twice():
    tables = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    assert sorted(tables) == ["boilerplate", "watermarks"]
    for kind, languages in tables.items():
        assert len(phrases_of_kind(kind).phrases) > 30
        for language, lists in languages.items():
            for name, phrases in lists.items():
                folded = [phrase.casefold() for phrase in phrases]
                assert len(folded) == len(set(folded)), (kind, language, name)


def test_a_file_of_ones_own_takes_the_place_of_the_lists(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('[boilerplate.en]\nanywhere = ["lorem ipsum"]\n', encoding="utf-8")
    assert phrases_of_kind("boilerplate", own).phrases == ("lorem ipsum",)
    with pytest.raises(ConfigError, match="watermarks is not a table"):
        phrases_of_kind("watermarks", own)
    own.write_text('[watermarks.en]\neverywhere = ["x"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"watermarks\.en\.everywhere is not an option"):
        phrases_of_kind("watermarks", own)
    own.write_text("watermarks = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="watermarks must be a table of languages"):
        phrases_of_kind("watermarks", own)
    phrases_of_kind.cache_clear()


def test_lines_of_a_file_are_phrases(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("Bad word\n\n worse \n", encoding="utf-8")
    assert phrases_of_lines(file).phrases == ("Bad word", "worse")
