import json

import pytest

from diptych.errors import DataError, ShardError
from diptych.sets.captioned import read_retrieval
from toys import pack, png


@pytest.fixture
def folder(tmp_path):
    members = {"a.png": png("red"), "a.txt": b"red\n\n warm \n", "b.png": png("blue"), "b.txt": "blue é".encode()}
    pack(tmp_path / "set" / "test" / "0.tar", members)
    (tmp_path / "set" / "test" / "nshards.txt").write_text("1")
    (tmp_path / "set" / "dataset_type.txt").write_text("retrieval\n")
    return tmp_path / "set"


def test_each_line_is_a_caption_of_its_picture(folder):
    pictures = read_retrieval(folder)
    assert pictures.keys == ("0/a", "0/b")
    assert pictures.captions == (("red", "warm"), ("blue é",))
    assert [pictures.open(i).getpixel((0, 0)) for i in range(2)] == [(255, 0, 0), (0, 0, 255)]


def test_a_set_of_another_type_a_missing_split_and_a_missing_caption_are_named(folder):
    with pytest.raises(DataError, match=r"no split 'val'. It has: test"):
        read_retrieval(folder, split="val")
    with pytest.raises(DataError, match=r"There is no such folder"):
        read_retrieval(folder / "test" / "none")
    with pytest.raises(DataError, match=r"must hold shards"):
        read_retrieval(folder / "test")
    pack(folder / "test" / "0.tar", {"a.png": png("red"), "a.txt": b" \n"})
    with pytest.raises(ShardError, match=r"sample a must have a caption a line"):
        read_retrieval(folder)
    pack(folder / "test" / "0.tar", {"a.png": png("red")})
    with pytest.raises(ShardError, match=r"one txt and one picture .* It has png"):
        read_retrieval(folder)
    (folder / "dataset_type.txt").write_text("classification")
    with pytest.raises(DataError, match=r"must say retrieval. Got 'classification'"):
        read_retrieval(folder)


def test_karpathys_lists_name_the_pictures_of_a_split(tmp_path):
    rows = [("test", "a.jpg"), ("restval", "b.jpg"), ("train", "c.jpg"), ("val", "d.jpg")]
    images = [{"split": s, "filename": f, "sentences": [{"raw": f"{f} one "}, {"raw": "two"}]} for s, f in rows]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    (tmp_path / "val2014").mkdir()
    for _, name in rows:
        (tmp_path / "val2014" / name).write_bytes(png("red"))
    pictures = read_retrieval(tmp_path)
    assert (pictures.keys, pictures.captions) == (("a.jpg",), (("a.jpg one", "two"),))
    assert pictures.open(0).size == (4, 4)
    assert read_retrieval(tmp_path, split="train").keys == ("b.jpg", "c.jpg")
    assert read_retrieval(tmp_path, split="validation").keys == ("d.jpg",)
    (tmp_path / "dataset_coco.json").write_text("{}")
    with pytest.raises(DataError, match=r"one of Karpathy's lists. .*'images'"):
        read_retrieval(tmp_path)
