"""captions/match.py: which queries a text matches."""

import sys

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.captions import match
from diptych.captions.match import Match, Matcher, queries_of
from diptych.captions.queries import Queries
from diptych.errors import DataError, MissingExtraError
from diptych.rows.columns import pair_key, pairs_table
from diptych.rows.stage import DROPPED, CurateStage, Whole

SPACED = ",.;:?!`"


def words_of(text):
    for mark in SPACED:
        text = text.replace(mark, f" {mark} ")
    return text.split()


def plain_word(text, queries):
    """Every query against every place of every line."""
    found = set()
    for line in text.split("\n"):
        words = words_of(line)
        for number, query in enumerate(queries):
            parts = words_of(query)
            if parts and any(words[i : i + len(parts)] == parts for i in range(len(words))):
                found.add(number)
    return first_of_equal(found, [tuple(words_of(query)) for query in queries])


def plain_substring(text, queries):
    found = {number for number, query in enumerate(queries) if any(query in line for line in text.split("\n"))}
    return first_of_equal(found, queries)


def first_of_equal(found, forms):
    return sorted(number for number in found if forms.index(forms[number]) == number)


def metaclip(text, queries):
    """MetaCLIP's rule as it is published: " entry " in the spaced text."""
    for mark in SPACED:
        text = text.replace(mark, f" {mark} ")
    spaced = f" {text} ".replace("\t", " ")
    return [number for number, query in enumerate(queries) if f" {query} " in spaced]


def matches(texts, queries, **options):
    found = Matcher(Queries(texts=tuple(queries)), **options).match(pa.array(texts, pa.string()))
    assert found.type == pa.list_(pa.int32())
    return found.to_pylist()


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "é", "a.b", ",", "a,", "ba", "c"]), max_size=8)
TEXTS = st.lists(WORDS, max_size=3).map(lambda lines: "\n".join(" ".join(words) for words in lines))
QUERIES = st.lists(WORDS.filter(bool).map(" ".join), min_size=1, max_size=12, unique=True)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXTS, max_size=6), queries=QUERIES)
def test_words_match_as_their_plain_twin_says(texts, queries):
    assert matches(texts, queries) == [plain_word(text, queries) for text in texts]


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXTS, max_size=6), queries=QUERIES)
def test_substrings_match_as_their_plain_twin_says(texts, queries):
    assert matches(texts, queries, rule="substring") == [plain_substring(text, queries) for text in texts]


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.sampled_from(["a", "B", "ab", "a,", "b.", "c!", "(a)"]), min_size=1).map(" ".join),
    queries=st.lists(
        st.lists(st.sampled_from(["a", "B", "b", "ab", "c", "(a)"]), min_size=1).map(" ".join), unique=True
    ),
)
def test_without_lower_and_punctuation_in_queries_the_rule_is_metaclips(text, queries):
    assert matches([text], queries, lower=False) == [metaclip(text, queries)]


def test_batches_change_nothing(monkeypatch):
    queries = ["a", "a b", "b c", "c"]
    texts = ["a b c", "", "c", "b\nc", "x" * 50, "a b"]
    expected = [plain_word(text, queries) for text in texts]
    for size in (1, 3, 7, 1000):
        monkeypatch.setattr(match._Trie, "batch_bytes", size)
        assert matches(texts, queries) == expected
        chunks = pa.chunked_array([texts[:2], texts[2:]], pa.string())
        assert Matcher(Queries(texts=tuple(queries))).match(chunks).to_pylist() == expected


@pytest.mark.parametrize(
    ("text", "queries", "found"),
    [
        ("St. Louis, MO", ["st. louis", "louis", "st louis", "st."], [0, 1, 3]),
        ("Learn C++ now!", ["c++", "c", "now"], [0, 2]),
        ("rock 'n' roll", ["rock 'n' roll", "n"], [0]),
        ("plan b", ["b", "plan"], [0, 1]),
        ("New\t York\u00a0City", ["new york city"], [0]),
        ("CAFE\u0301 au lait", ["caf\u00e9 au lait"], [0]),
        ("ＧＯＬＤＥＮ retriever", ["golden retriever"], [0]),
        ("İstanbul at night", ["istanbul"], [0]),
        ("dogs", ["dog"], []),
        ("new\nyork", ["new york", "york"], [1]),
        ("a\u2028b", ["a b"], [0]),
        ("", ["dog"], []),
        (" \n \t", ["dog"], []),
        ("...", [".", ". ."], [0, 1]),
        ("x", ["Dog", "dog"], []),
        ("dog", ["Dog", "dog"], [0]),
        ("dog dog dog", ["dog", "dog dog"], [0, 1]),
    ],
)
def test_texts_that_are_easily_matched_wrongly(text, queries, found):
    assert matches([text], queries) == [found]


def test_substrings_are_found_within_words_and_where_no_spaces_are_written():
    assert matches(["東京タワーの夜景", "hotdogs"], ["東京", "夜景", "dog", "大阪"], rule="substring") == [[0, 1], [2]]


@pytest.mark.parametrize("rule", ["word", "substring"])
def test_a_text_of_a_megabyte_is_read_to_its_end(rule):
    text = "x y " * 250_000 + "golden retriever"
    assert matches([text, "y"], ["golden retriever", "y", "retriever x"], rule=rule) == [[0, 1], [1]]


def test_a_query_across_two_windows_of_the_automaton_is_found(monkeypatch):
    monkeypatch.setattr(match, "_WINDOW", 5)
    for place in range(12):
        assert matches(["-" * place + "golden" + "-" * 4], ["golden", "den"], rule="substring") == [[0, 1]]


@pytest.mark.parametrize("rule", ["word", "substring"])
def test_no_texts_and_texts_that_are_null_match_nothing(rule):
    assert matches([], ["dog"], rule=rule) == []
    assert matches([None, "dog", None], ["dog"], rule=rule) == [[], [0], []]


def rows_of(*texts):
    return pairs_table([{"key": pair_key("u", text), "text": text, "source": 0} for text in texts])


def test_the_stage_adds_numbers_and_drops_what_matches_none(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("dog\ngolden retriever\n\ndog\ncat\n")
    stage = Match(queries=str(path))
    assert isinstance(stage, CurateStage)
    assert stage.files() == (str(path),)
    judged = stage.apply(rows_of("A cat, a dog", "fish", "golden retriever"), Whole())
    assert judged.kept["text"].to_pylist() == ["A cat, a dog", "golden retriever"]
    assert judged.kept["queries"].to_pylist() == [[0, 2], [1]]
    assert judged.dropped.schema == DROPPED
    limit = "one of 3 queries; left out: 1 empty, 1 repeated"
    assert judged.dropped.to_pylist() == [
        {"key": pair_key("u", "fish"), "cause": "no query", "value": None, "limit": limit}
    ]
    assert Match(queries=str(path), lower=False).apply(rows_of("Dog"), Whole()).kept.num_rows == 0
    none = stage.apply(rows_of(), Whole())
    assert none.kept.schema == judged.kept.schema
    assert len(none.dropped) == 0


def test_languages_without_spaces_are_matched_by_substring_among_others(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("東京\ndog\n夜景\n", encoding="utf-8")
    texts = ["a dog", "東京タワーの夜景", "hotdog", "hotdog 東京", "夜景 dog"]
    languages = ["en", "ja", "en", "ja", None]
    rows = pairs_table(
        [
            {"key": pair_key("u", text), "text": text, "source": 0, "language": language}
            for text, language in zip(texts, languages, strict=True)
        ]
    )
    judged = Match(queries=str(path), unspaced=("ja", "zh")).apply(rows, Whole())
    assert judged.kept["text"].to_pylist() == [texts[0], texts[1], texts[3], texts[4]]
    assert judged.kept["queries"].to_pylist() == [[1], [0, 2], [0, 1], [1, 2]]
    by_words = Match(queries=str(path)).apply(rows, Whole())
    assert by_words.kept["queries"].to_pylist() == [[1], [0], [1, 2]]


def test_a_list_is_read_once_and_again_when_it_changed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("dog\n")
    before = queries_of(str(path))
    assert queries_of(str(path)) is before
    path.write_text("cat\n")
    assert queries_of(str(path)).texts == ("cat",)
    assert Match(queries=str(path)).apply(rows_of("a cat"), Whole()).kept.num_rows == 1


def test_a_list_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt cannot be read"):
        Match(queries=str(tmp_path / "gone.txt")).apply(rows_of("a"), Whole())


def test_the_missing_automaton_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ahocorasick_rs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[curate\]'"):
        Matcher(Queries(texts=("dog",)), rule="substring")
