"""captions/queries.py: lists of queries, read, merged and written."""

import json

import pyarrow as pa
import pytest

from diptych.captions.queries import QuerySource, folded, merged, read_queries
from diptych.errors import ConfigError, DataError
from diptych.files import sha256


def source(name, *texts):
    return QuerySource(name=name, licence="yours", rule="all", texts=texts)


def test_a_list_has_one_query_a_line_and_counts_what_is_left_out(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"dog\r\n\n golden   retriever \ndog\nDog\n \t\nc++\n")
    read = read_queries(path)
    assert read.texts == ("dog", "golden retriever", "Dog", "c++")
    assert (read.blank, read.repeated) == (2, 1)
    assert read.sentence == "4 queries; left out: 2 empty, 1 repeated"


def test_metaclips_metadata_is_read_as_it_is(tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(["dog", "new\nyork", "", "dog"]))
    read = read_queries(path)
    assert read.texts == ("dog", "new york")
    assert (read.blank, read.repeated) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\n \n", "must hold queries, one a line, and holds none"),
        ("a.txt", b"", "must hold queries, one a line, and holds none"),
        ("a.txt", b"caf\xe9", "must be UTF-8 text"),
        ("a.json", b'{"dog": 1}', "must be a JSON list of texts"),
        ("a.json", b'["dog", 1]', "must be a JSON list of texts"),
        ("a.json", b"dog", "must be a JSON list of texts"),
        ("a.json", b"[]", "holds none"),
    ],
)
def test_what_is_no_list_is_told(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_queries(path)


def test_a_list_that_is_absent_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt cannot be read"):
        read_queries(tmp_path / "absent.txt")


def test_the_same_letters_in_other_forms_are_the_same_text():
    forms = ["Café", "cafe\u0301", "ＣＡＦÉ", "İ", "I", "straße", "A\u00a0B"]
    assert folded(pa.array(forms)).to_pylist() == ["café", "café", "café", "i", "i", "straße", "a b"]
    assert folded(pa.array(forms[:3]), lower=False).to_pylist() == ["Café", "café", "CAFÉ"]
    assert folded(pa.array([], pa.string())).to_pylist() == []
    assert folded(pa.array(["DOG", None])).to_pylist() == ["dog", None]


def test_each_query_is_listed_once_under_the_source_that_had_it_first():
    made = merged([source("a", "Dog", "cat", "dog"), source("b", "CAT", "fox", "new  york")], limit=10)
    assert made.texts == ("dog", "cat", "fox", "new york")
    assert [(one.name, one.offered, one.added) for one in made.counts] == [("a", 3, 2), ("b", 3, 2)]
    assert made.cut == 0


def test_beyond_the_limit_the_last_are_cut_and_counted():
    made = merged([source("a", "1", "2"), source("b", "2", "3", "4"), source("c", "5")], limit=3)
    assert made.texts == ("1", "2", "3")
    assert [one.added for one in made.counts] == [2, 1, 0]
    assert made.cut == 2


def test_what_cannot_be_a_query_is_not_listed():
    made = merged([source("a", "", "  ", "...", "—", "x" * 257, "x" * 256, "c++", "7")], limit=10)
    assert made.texts == ("x" * 256, "c++", "7")


def test_beside_a_list_stands_what_it_is_from(tmp_path):
    made = merged([source("a", "dog", "é")], limit=10)
    out = tmp_path / "new" / "list.txt"
    beside = made.save(out)
    assert out.read_text("utf-8") == "dog\né\n"
    assert read_queries(out).texts == made.texts
    assert beside == tmp_path / "new" / "list.sources.json"
    assert json.loads(beside.read_text("utf-8")) == {
        "format": "diptych-queries-1",
        "queries": 2,
        "cut": 0,
        "sha256": sha256(out),
        "sources": [{"name": "a", "licence": "yours", "rule": "all", "offered": 2, "added": 2}],
    }


def test_a_list_of_lines_does_not_pose_as_json(tmp_path):
    with pytest.raises(ConfigError, match=r"must not end in \.json"):
        merged([source("a", "dog")], limit=10).save(tmp_path / "list.json")
