import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import png
from diptych.errors import ConfigError, DataError, ImageError, MissingExtraError
from diptych.pairs.samples import Columns, captions_of
from diptych.pairs.sources import Source, open_pairs
from diptych.pairs.tables import PairTable

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
            "a row must have 2 columns, as the header. Got 3: 'a.png,red, very'. Put quotes",
        ),
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


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ([1, 2], "caption must hold captions: texts or lists of texts. It holds int64"),
        ([{"en": "x"}, {"en": "y"}], "It holds struct<en: string>"),
        ([None, None], "It holds null"),
        ([[1], [2]], "It holds list<"),
    ],
)
def test_a_column_without_captions_is_named(tmp_path, caption, message):
    path = parquet(tmp_path / "p.parquet", {"image": [PICTURE] * 2, "caption": caption})
    with pytest.raises(ConfigError, match=message):
        PairTable(path, PLAIN)


@pytest.mark.parametrize("pictures", [[[PICTURE], [PICTURE]], [1, 2], [[[0, 1]], [[2]]], [{"url": "x"}, {"url": "y"}]])
def test_a_column_without_pictures_is_named(tmp_path, pictures):
    path = parquet(tmp_path / "p.parquet", {"image": pictures, "caption": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"image must hold pictures: paths, bytes, or structs of bytes and path\. It"):
        PairTable(path, PLAIN)


def test_every_type_of_text_and_of_bytes_is_read(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow as pa

    texts = pa.array(["a", None])
    kinds = [texts, texts.cast(pa.large_string()), texts.dictionary_encode(), pa.array([b"a", None])]
    kinds += [pa.array([["a"], None]), pa.array([["a", None], None], pa.large_list(pa.large_string()))]
    for number, captions in enumerate(kinds):
        pictures = pa.array([PICTURE, PICTURE], pa.large_binary() if number % 2 else pa.binary())
        table = PairTable(parquet(tmp_path / f"{number}.parquet", {"image": pictures, "caption": captions}), PLAIN)
        assert (table.captions(0), table[0].picture) == (["a"], PICTURE), captions.type
        with pytest.raises(DataError, match=r"^no caption$"):
            table.captions(1)


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    for number in range(2):
        name = f"data/train-0000{number}-of-00002.parquet"
        (tmp_path / "data").mkdir(exist_ok=True)
        parquet(tmp_path / name, {"image": [PICTURE] * 3, "text": [f"{number}{n}" for n in range(3)]}, row_group_size=2)
    table = PairTable(tmp_path, PLAIN)
    assert [captions_of(table[n]) for n in range(6)] == [[f"{file}{n}"] for file in range(2) for n in range(3)]
    assert table.shard_ends == [2, 3, 5, 6]
    assert table.check() == [f"{tmp_path}: pictures are read from the column image, captions from text."]


def test_splits_in_one_folder_are_said_and_a_pattern_takes_one(tmp_path):
    for number, split in enumerate(("train", "test")):
        parquet(tmp_path / f"{split}-00000-of-00001.parquet", {"image": [PICTURE], "caption": [str(number)]})
    assert "files of the splits test and train are read together" in PairTable(tmp_path, PLAIN).check()[0]
    table = open_pairs(Source(path=str(tmp_path / "train-*.parquet")))
    assert (len(table), table.captions(0), table.check()) == (1, ["0"], [])


def test_row_groups_without_rows_are_no_rows(tmp_path):
    files = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    import pyarrow as pa

    rows = pa.table({"image": [PICTURE], "caption": ["a"]})
    with files.ParquetWriter(tmp_path / "p.parquet", rows.schema) as writer:
        writer.write_table(rows.slice(0, 0))
        writer.write_table(rows)
    assert samples(PairTable(tmp_path / "p.parquet", PLAIN)) == [("000000000", ["a"])]


COCO = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
    "annotations": [
        {"image_id": 9, "caption": "one"},
        {"image_id": 7, "caption": "two"},
        {"image_id": 9, "caption": "three "},
    ],
}
KARPATHY = {
    "images": [
        {"filename": "b.png", "sentences": [{"raw": "one"}, {"raw": "three"}]},
        {"filename": "a.png", "sentences": [{"raw": "two"}]},
    ]
}
OBJECTS = [{"image": "b.png", "caption": ["one", "three"]}, {"image": "a.png", "caption": "two"}]


@pytest.mark.parametrize("content", [COCO, KARPATHY, OBJECTS])
def test_captions_in_one_json_are_read(write, content):
    table = PairTable(write(json.dumps(content), "captions.json"), PLAIN)
    assert samples(table) == [("b.png", ["one", "three"]), ("a.png", ["two"])]
    assert table[0].picture == PICTURE


@pytest.mark.parametrize("content", ["{", "{}", "3", '{"images": [1]}', "[1]"])
def test_a_json_without_captions_is_one_sentence(write, content):
    with pytest.raises(DataError, match=r"captions\.json must list pictures with captions: COCO's"):
        PairTable(write(content, "captions.json"), PLAIN)


def test_json_lines_with_a_number_for_a_caption_count_it(write):
    table = PairTable(write('{"image": "a.png", "caption": 5}\n{"image": "b.png", "caption": "x"}\n', "p.jsonl"), PLAIN)
    with pytest.raises(DataError, match=r"^caption is no text$"):
        table[0]
    assert table.captions(1) == ["x"]


def test_rows_of_json_without_a_picture_are_samples_of_their_own(write):
    text = '{"image": "a.png", "caption": "x"}\n{"caption": "y"}\n{"caption": "z", "image": ["b.png"]}\n'
    table = PairTable(write(text, "p.jsonl"), PLAIN)
    assert table.captions(1) == ["y"]
    assert table[1].picture is None
    with pytest.raises(DataError, match=r"^picture is no path$"):
        table[2]
    table = PairTable(write('[{"image": "a.png", "caption": "x"}, {"caption": "y"}]', "p.json"), PLAIN)
    assert table[1].picture is None


def test_pictures_may_lie_in_another_folder_and_are_looked_for_before_a_run(write, tmp_path):
    path = write("image,caption\na.png,x\n")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "pictures" / "a.png")
    with pytest.raises(DataError, match=r"None of the first 1 is, e\.g\. 'a\.png'\. Set image_folder"):
        PairTable(path, PLAIN).check()
    table = PairTable(path, PLAIN, pictures=tmp_path / "pictures")
    assert table.check() == []
    assert table[0].picture == PICTURE


def test_a_file_that_is_no_parquet_is_one_sentence(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    (tmp_path / "p.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"p\.parquet must be a Parquet file, and cannot be read"):
        PairTable(tmp_path / "p.parquet", PLAIN)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs an extra: pip install 'diptych\[parquet\]'"):
        PairTable(tmp_path / "p.parquet", PLAIN)
