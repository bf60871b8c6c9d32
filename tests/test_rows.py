from pathlib import Path

import pytest

from diptych.errors import ConfigError, DataError
from diptych.pairs.rows import Dialect, LineRows
from diptych.pairs.samples import Columns

PLAIN = Columns("image", ("caption",), "")


@pytest.fixture
def read(tmp_path: Path):
    def read(content: str | bytes, name: str = "pairs.csv", columns: Columns = PLAIN, **options) -> LineRows:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return LineRows(tmp_path / name, columns, **options)

    return read


def pairs(rows: LineRows) -> list[tuple[str, str]]:
    columns = rows.columns
    each = (rows[number] for number in range(rows.ends[-1]))
    return [(row[columns.image], row[columns.captions[0]]) for row in each]


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ('a,"b, c"', ["a", "b, c"]),
        ('a,"b ""c"""', ["a", 'b "c"']),
        ('a,""', ["a", ""]),
        ('a,""""', ["a", '"']),
        ('"a","b"', ["a", "b"]),
        ('a,"Stop" sign', ["a", '"Stop" sign']),
        ('a,12" pipe', ["a", '12" pipe']),
        ('a,"open', None),
        ('a,"open ""', None),
        ('a,"one\ntwo"', ["a", "one\ntwo"]),
        ('a,"one\nb,two "three" four"', []),  # no field in quotes, so the line end is of the row
    ],
)
def test_a_field_stands_in_quotes_only_when_they_close_it(row, fields):
    assert Dialect(",", True).fields(row, is_whole=False) == fields


def test_a_quote_that_is_not_closed_is_a_letter_in_a_whole_row():
    assert Dialect(",", True).fields('a,"open', is_whole=True) == ["a", '"open']
    assert Dialect("\t", False).fields('a\t"one" two', is_whole=True) == ["a", '"one" two']


def test_an_unbalanced_quote_glues_no_rows(read):
    lines = [f"{n}.png,thing {n}" for n in range(40)]
    lines[7] = '7.png,"thing 7'
    lines[20] = '20.png,"Stop" sign'
    rows = read("image,caption\n" + "\n".join(lines))
    assert [name for name, _ in pairs(rows)] == [f"{n}.png" for n in range(40)]
    assert (pairs(rows)[7][1], pairs(rows)[20][1]) == ('"thing 7', '"Stop" sign')
    assert rows.notes == ["a quote is not closed in 1 rows, the first in line 9: it is read as a letter"]


def test_rows_and_lines_that_differ_are_both_said(read):
    rows = read('image,caption\na.png,"one\nb.png,two"\nc.png,three\n')
    assert pairs(rows) == [("a.png", "one\nb.png,two"), ("c.png", "three")]
    assert rows.notes[0].startswith("2 rows stand on 3 lines: 1 go over several, within quotes; one from line 2.")
    rows = read('image,caption\na.png,"one\nb.png,two"\nc.png,three\n', quoting="none")
    assert len(pairs(rows)) == 3
    assert not rows.notes


def test_a_quote_is_a_letter_where_tabs_separate(read):
    text = 'image\tcaption\na.png\t"Stop" sign\nb.png\t"two\nc.png\t"three"\n'
    rows = read(text, "pairs.tsv")
    assert pairs(rows) == [("a.png", '"Stop" sign'), ("b.png", '"two'), ("c.png", '"three"')]
    assert rows.notes == [
        "1 fields stand in quotes, which are letters in a table of this kind. Where they are none, set quoting to "
        "quotes"
    ]
    quoted = read('image\tcaption\na.png\t"one\ttwo"\n', "pairs.tsv", quoting="quotes")
    assert pairs(quoted) == [("a.png", "one\ttwo")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("filepath\ttitle\na.png\tone, two\n", "open_clip.csv"),
        ("image;caption\na.png;one, two\n", "pairs.csv"),
        ("image_name| comment_number| comment\na.png| 0| one, two\n", "results.csv"),  # Flickr30k
        ("image,caption\na.png\tone, two\n".replace(",", "\t", 1), "pairs.tsv"),
        ('\ufeff"image","caption"\r\n"a.png","one, two"\r\n', "pairs.csv"),
        ("image\tcaption\ra.png\tone, two\r", "mac.tsv"),
        ("\n\nimage,caption\na.png,\"one, two\"\n\n  \n".lstrip(), "pairs.csv"),
        ('{"image": "a.png", "caption": "one, two"}\n\n', "pairs.jsonl"),
        ('\ufeff{"file_name": "a.png", "text": "one, two"}', "metadata.jsonl"),
    ],
)  # fmt: skip
def test_tables_as_others_write_them(read, text, name):
    rows = read(text, name)
    assert pairs(rows) == [("a.png", "one, two")]
    assert all("separated by" in note for note in rows.notes)


def test_a_separator_is_an_option(read):
    assert pairs(read("image^caption\na.png^one,two\n", separator="^")) == [("a.png", "one,two")]


def test_rows_that_are_none_are_left_out_up_to_a_limit_and_said(read):
    lines = [f"{n}.png,thing" for n in range(99)]
    text = "\n".join(["image,caption", *lines[:50], "bad.png", *lines[50:]])
    rows = read(text, max_bad=0.01)
    assert len(pairs(rows)) == 99
    assert rows.notes == ["1 of 100 rows cannot be read and are left out; one is in line 52"]
    with pytest.raises(DataError, match=r"must have 2 columns.* Got 1: '9\.pngthing'.*This is line 11, of 10 such"):
        read(text.replace("9.png,", "9.png"), max_bad=0.01)
    assert len(pairs(read("image,caption\na.png,x\nb.png\n", max_bad=0.01))) == 1
    with pytest.raises(DataError, match="This is line 2, of 1 such"):
        read("image,caption\nb.png\n", max_bad=0.01)
    with pytest.raises(DataError, match=r"each line must be a JSON object\. Got '\[1\]'"):
        read('{"image": "a.png", "caption": "x"}\n[1]\n', "pairs.jsonl")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("image,caption\n".encode("utf-16"), "is UTF-16"),
        ("image,caption\n".encode("utf-16-le"), "has NUL bytes"),
        (b"image,caption\na.png,x\0y\n", "has NUL bytes"),
    ],
)
def test_what_is_no_utf8_is_one_sentence(read, content, what):
    with pytest.raises(DataError, match=rf"must be UTF-8 text, and {what}\. Save it as UTF-8"):
        read(content)


def test_a_caption_of_a_megabyte_is_read(read):
    assert len(pairs(read(f'image,caption\na.png,"{"x" * 2**20}"\n'))[0][1]) == 2**20


def test_a_column_that_is_not_there_is_named_with_those_that_are(read):
    with pytest.raises(ConfigError, match=r"caption is not a column\. .*Options: image, name"):
        read("image,name\na.png,x\n")
