import json
import pickle

import pytest

from diptych.errors import DataError, ImageError
from diptych.sets.captioned import read_retrieval
from diptych.sets.open import read_labelled
from toys import png

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

FEATURES = {
    "image": {"_type": "Image"},
    "coarse_label": {"_type": "ClassLabel", "names": ["x"]},
    "fine_label": {"_type": "ClassLabel", "names": ["red_thing", "blue_thing"]},
}


def write(path, columns: dict, features: dict | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=2)


def images(*colours: str) -> list[dict]:
    return [{"bytes": png(colour), "path": None} for colour in colours]


def test_the_schema_names_the_classes_and_files_of_a_split_are_joined(tmp_path):
    for part, colours in enumerate((("red", "blue", "red"), ("blue",))):
        columns = {"coarse_label": [0] * len(colours), "image": images(*colours)}
        columns["fine_label"] = [int(colour == "blue") for colour in colours]
        write(tmp_path / "data" / f"test-0000{part}-of-00002.parquet", columns, FEATURES)
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", columns, FEATURES)
    data = pickle.loads(pickle.dumps(read_labelled(tmp_path)))
    assert data.classnames == ("red thing", "blue thing")
    assert data.targets.tolist() == [0, 1, 0, 1]
    assert [data.open(i).getpixel((0, 0)) for i in range(4)] == [(255, 0, 0), (0, 0, 255)] * 2
    assert len(read_labelled(tmp_path, split="val")) == 1
    with pytest.raises(DataError, match=r"no split 'train'. It has: test, validation"):
        read_labelled(tmp_path, split="train")


def test_without_a_schema_columns_go_by_name_and_classes_by_value(tmp_path):
    write(tmp_path / "test" / "0000.parquet", {"img": [png("red"), png("blue")], "label": [10, 9]})
    data = read_labelled(tmp_path)
    assert (data.classnames, data.targets.tolist()) == (("9", "10"), [1, 0])
    assert data.open(1).getpixel((0, 0)) == (0, 0, 255)


def test_hidden_classes_and_pictures_elsewhere_are_named(tmp_path):
    path = tmp_path / "test-0.parquet"
    write(path, {"image": images("red"), "fine_label": [-1]}, FEATURES)
    with pytest.raises(DataError, match=r"from 0 to 1. Some are hidden"):
        read_labelled(tmp_path)
    write(path, {"image": [{"bytes": None, "path": "a.png"}], "fine_label": [0]}, FEATURES)
    with pytest.raises(ImageError, match=r"Row 0 only names one"):
        read_labelled(tmp_path).open(0)
    write(path, {"image": images("red"), "kind": [0]})
    with pytest.raises(DataError, match=r"label is not a column.*Options: image, kind"):
        read_labelled(tmp_path)
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"test-0.parquet must be a Parquet file"):
        read_labelled(tmp_path)


def test_captions_may_be_one_or_several(tmp_path):
    write(tmp_path / "test-0.parquet", {"image": images("red", "blue"), "caption": [["a", "b"], ["c"]]})
    assert read_retrieval(tmp_path).captions == (("a", "b"), ("c",))
    write(tmp_path / "test-0.parquet", {"image": images("red", "blue"), "text": ["a", None]})
    with pytest.raises(DataError, match=r"must have a caption. 1 have none, e.g. 00000001"):
        read_retrieval(tmp_path)
