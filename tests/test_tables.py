import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import png
from diptych.errors import ConfigError, DataError, ImageError, MissingExtraError
from diptych.pairs.shards import captions_of
from diptych.pairs.tables import Columns, PairTable

PICTURE = png(Image.new("RGB", (4, 4), "red"))
PLAIN = Columns("image", ("caption",), "")


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes, name: str = "pairs.csv") -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        for picture in ("a.png", "b.png"):
            (tmp_path / picture).write_bytes(PICTURE)
        return tmp_path / name

    return write


def samples(table: PairTable) -> list[tuple[str, list[str]]]:
    both = [(table[n].key, captions_of(table[n])) for n in range(len(table))]
    assert [captions for _, captions in both] == [table.captions(n) for n in range(len(table))]
    return both


def test_rows_with_the_same_picture_are_one_sample_in_the_order_of_their_first(write):
    table = PairTable(write("image,n,caption\nb.png,0,one\na.png,0,two\nb.png,1,three\nb.png,2,one\n"), PLAIN)
    assert samples(table) == [("b.png", ["one", "three"]), ("a.png", ["two"])]
    assert table[0].picture == PICTURE
    assert table.shard_ends == [2]


def test_quotes_breaks_and_empty_lines_are_read_as_csv_says(write):
    text = '\ufeffcaption,image\r\n"red, ""very""\r\n  red",a.png\r\n\r\nblue,b.png'
    assert samples(PairTable(write(text), PLAIN)) == [("a.png", ['red, "very" red']), ("b.png", ["blue"])]


def test_columns_are_named_and_several_may_be_captions(write):
    path = write("id\tfile\ttitle\talt\n7\ta.png\tone\ttwo\n8\tb.png\t\tthree\n", "pairs.tsv")
    assert samples(PairTable(path, Columns("file", ("title", "alt"), "id"))) == [
        ("7", ["one", "two"]),
        ("8", ["three"]),
    ]
    with pytest.raises(
        ConfigError, match=r"pairs\.tsv: titel is not a column\. Did you mean title\? Options: alt, file"
    ):
        PairTable(path, Columns("file", ("titel",), ""))


def test_a_caption_that_is_not_utf8_is_bad_and_no_other(write):
    table = PairTable(write("image,caption\na.png,caf\xe9\nb.png,fine\n".encode("latin-1")), PLAIN)
    with pytest.raises(DataError, match=r"^caption not UTF-8$"):
        table.captions(0)
    with pytest.raises(DataError, match=r"^caption not UTF-8$"):
        captions_of(table[0])
    assert table.captions(1) == ["fine"]


def test_a_picture_that_is_missing_has_that_cause(write):
    table = PairTable(write("image,caption\ngone.png,x\n"), PLAIN)
    with pytest.raises(ImageError, match=r"gone\.png must be a picture") as caught:
        table[0]
    assert caught.value.cause == "missing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,caption\n", "must hold a row for each pair. It has none"),
        (
            "image,caption\na.png,red, very\n",
            "must have 2 columns in each row, as its header. Got 3: 'a.png,red, very'",
        ),
        ('image,caption\na.png,"red\n', "cannot be read after row 0"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(write, text, message):
    with pytest.raises(DataError, match=message):
        PairTable(write(text), PLAIN)


def test_a_key_with_two_pictures_is_named(write):
    path = write("id,image,caption\n7,a.png,x\n7,b.png,y\n")
    with pytest.raises(DataError, match=r"rows with the same id must name one picture. Row 1 names another"):
        PairTable(path, Columns("image", ("caption",), "id"))


def test_the_fingerprint_changes_with_the_table_and_the_columns(write):
    path = write("image,caption,alt\na.png,x,y\n")
    before = PairTable(path, PLAIN).fingerprint()
    assert PairTable(path, PLAIN).fingerprint() == before
    assert PairTable(path, Columns("image", ("alt",), "")).fingerprint() != before
    assert PairTable(write("image,caption,alt\na.png,x,z\n"), PLAIN).fingerprint() != before


def test_a_table_that_changes_during_a_run_is_noticed(write):
    table = PairTable(path := write("image,caption\na.png,xxxxxxxx\nb.png,y\n"), PLAIN)
    with path.open("r+b") as file:
        file.truncate(20)
    with pytest.raises(DataError, match=r"^pairs\.csv changed during the run$"):
        table[1]


def parquet(path: Path, columns: dict, **options) -> Path:
    files = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    files.write_table(sys.modules["pyarrow"].table(columns), path, **options)
    return path


def test_parquet_holds_pictures_as_bytes_or_as_hugging_face_does(tmp_path):
    for number, pictures in enumerate([[PICTURE] * 5, [{"bytes": PICTURE, "path": None}] * 5]):
        columns = {"image": pictures, "caption": list("abcde")}
        table = PairTable(parquet(tmp_path / f"{number}.parquet", columns, row_group_size=2), PLAIN)
        assert samples(table) == [(f"{n:09d}", [caption]) for n, caption in enumerate("abcde")]
        assert table[4].picture == PICTURE
        assert table.shard_ends == [2, 4, 5]


def test_parquet_names_pictures_and_lists_captions(tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    columns = {"image": ["a.png", "b.png", "a.png"], "caption": [["x", "y"], [], ["z"]]}
    table = PairTable(parquet(tmp_path / "p.parquet", columns, row_group_size=2), PLAIN)
    assert (table[0].key, captions_of(table[0]), table[0].picture) == ("a.png", ["x", "y", "z"], PICTURE)
    with pytest.raises(DataError, match=r"^no caption$"):
        table.captions(1)
    assert table.shard_ends == [2]
    keyed = {"id": [5, 6], "image": [PICTURE, None], "caption": ["a", "b"]}
    table = PairTable(parquet(tmp_path / "k.parquet", keyed), Columns("image", ("caption",), "id"))
    assert samples(table) == [("5", ["a"]), ("6", ["b"])]
    assert table[1].picture is None


def test_a_file_that_is_no_parquet_is_one_sentence(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    (tmp_path / "p.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"p\.parquet must be a Parquet file, and cannot be read"):
        PairTable(tmp_path / "p.parquet", PLAIN)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs an extra: pip install 'diptych\[parquet\]'"):
        PairTable(tmp_path / "p.parquet", PLAIN)
