import pickle
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import DataError, ImageError, ShardError
from diptych.sets.open import read_labelled
from toys import pack, png

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "colours"
    pack(folder / "test" / "0.tar", {"0.png": png("red"), "0.cls": b"0\n", "1.png": png("blue"), "1.cls": b"2"})
    pack(folder / "test" / "1.tar.gz", {"0.webp": png("lime"), "0.cls": b"1"})
    pack(folder / "train" / "0.tar", {"0.png": png("red"), "0.cls": b"0"})
    (folder / "test" / "nshards.txt").write_text("2\n")
    (folder / "train" / "nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("red\ngreen\r\nblue\n")
    (folder / "dataset_type.txt").write_text("classification")
    (folder / "zeroshot_classification_templates.txt").write_text('a {c} thing.\n\nthe number: "{c}".\n')
    return folder


@pytest.fixture
def class_folders(tmp_path):
    folder = tmp_path / "animals"
    for name in ("train/class_2/x.png", "train/class_10/x.png", "train/Class_1/x.png", "test/class_10/10.PNG"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png("red"))
    for name in ("2.png", "notes.txt", ".2.png"):
        (folder / "test" / "class_10" / name).write_bytes(png("blue"))
    (folder / "test" / "Class_1").mkdir()
    (folder / "test" / "Class_1" / "a.png").write_bytes(png("lime"))
    (folder / ".cache").mkdir()
    return folder


def test_shards_of_both_kinds_are_read_in_order(sharded):
    data = read_labelled(sharded)
    assert (data.name, data.split, len(data)) == ("colours", "test", 3)
    assert data.classnames == ("red", "green", "blue")
    assert data.templates == ("a {} thing.", 'the number: "{}".')
    assert data.keys == ("0/0", "0/1", "1/0")
    assert data.targets.tolist() == [0, 2, 1]
    assert data.targets.dtype == np.int64
    assert [data.open(i).getpixel((0, 0)) for i in range(3)] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
    assert data.image_bytes(1) == png("blue")
    assert len(read_labelled(sharded, split="train")) == 1


def test_labelled_images_travel_by_pickle(sharded):
    assert pickle.loads(pickle.dumps(read_labelled(sharded))).image_bytes(2) == png("lime")


def test_templates_and_type_may_be_absent(sharded):
    (sharded / "zeroshot_classification_templates.txt").unlink()
    (sharded / "dataset_type.txt").unlink()
    assert read_labelled(sharded).templates is None


def test_a_broken_picture_is_named_by_its_key_when_it_is_opened(sharded):
    pack(sharded / "train" / "0.tar", {"0.png": png("red")[:40], "0.cls": b"0"})
    data = read_labelled(sharded, split="train")
    with pytest.raises(ImageError, match="colours/train/0/0"):
        data.open(0)


def test_class_folders_number_the_classes_of_all_splits_in_natural_order(class_folders):
    data = read_labelled(class_folders)
    assert data.classnames == ("Class 1", "class 2", "class 10")  # class 2 has no picture in this split
    assert data.keys == ("Class_1/a.png", "class_10/2.png", "class_10/10.PNG")
    assert data.targets.tolist() == [0, 2, 2]
    assert data.templates is None
    assert data.open(0).getpixel((0, 0)) == (0, 255, 0)
    assert data.image_bytes(1) == png("blue")
    assert read_labelled(class_folders, split="train").targets.tolist() == [0, 1, 2]


def test_labels_that_are_codes_become_names_in_every_layout(class_folders, sharded):
    (sharded / "classnames.txt").write_text("001.fire_red\n002.grass_green\n003.sea_blue\n")
    data = read_labelled(sharded)
    assert data.classnames == ("fire red", "grass green", "sea blue")
    assert data.naming.startswith("leading numbers cut (001.fire_red -> fire_red)")
    for name, code in (("Class_1", "n01440764"), ("class_2", "n00004475"), ("class_10", "n01443537")):
        for folder in class_folders.glob(f"*/{name}"):
            folder.rename(folder.with_name(code))
    (class_folders / "words.txt").write_text("n00004475\torganism, being\n")
    assert read_labelled(class_folders).classnames == ("organism", "tench", "goldfish")


def test_class_folders_without_splits_are_the_test_split_and_no_other(class_folders):
    data = read_labelled(class_folders / "train")
    assert (data.name, data.split, len(data)) == ("train", "test", 3)
    with pytest.raises(DataError, match=r"has no split 'train'\. It has: test"):  # else a probe would train on the test
        read_labelled(class_folders / "train", split="train")


def test_a_missing_folder_or_split_is_named(sharded, class_folders, tmp_path):
    with pytest.raises(DataError, match="absent must be a folder of labelled pictures"):
        read_labelled(tmp_path / "absent")
    for folder in (sharded, class_folders):
        with pytest.raises(DataError, match=r"has no split 'val'\. It has: test, train"):
            read_labelled(folder, split="val")
    (tmp_path / "bare" / "docs").mkdir(parents=True)
    with pytest.raises(DataError, match="It holds none of them"):
        read_labelled(tmp_path / "bare")


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("test/nshards.txt", "4", r"must hold 4 shards.* Missing: 2\.tar, 3\.tar"),
        ("test/nshards.txt", "two", "must hold one number, of shards. Got 'two'"),
        ("dataset_type.txt", "retrieval", "must say classification. Got 'retrieval'"),
        ("classnames.txt", "red\n\nblue", "has an empty line between"),
        ("classnames.txt", "red\ngreen", r"0\.tar: sample 1 must have a class number from 0 to 1 .* Got '2'"),
        ("zeroshot_classification_templates.txt", "a thing", r"templates\.txt does not hold templates: .*Got 0 in"),
    ],
)
def test_a_wrong_text_file_is_named(sharded, file, text, sentence):
    (sharded / file).write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_labelled(sharded)


@pytest.mark.parametrize("file", ["test/nshards.txt", "classnames.txt"])
def test_an_absent_text_file_is_named(sharded, file):
    (sharded / file).unlink()
    with pytest.raises(DataError, match=f"{Path(file).name} cannot be read"):
        read_labelled(sharded)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"7.png": b"", "7.cls": b"cat"}, r"0\.tar: sample 7 must have a class number from 0 to 2 .* Got 'cat'"),
        ({"7.png": b"", "7.cls": b"-1"}, "Got '-1'"),
        ({"7.png": b""}, "sample 7 must have one cls and one picture .* It has png"),
        ({"7.cls": b"1"}, "It has cls"),
        ({"7.cls": b"1", "7.png": b"", "7.jpg": b""}, "It has cls, png, jpg"),
    ],
)
def test_a_sample_without_picture_or_valid_class_is_named(sharded, members, sentence):
    pack(sharded / "test" / "0.tar", members)
    with pytest.raises(ShardError, match=sentence):
        read_labelled(sharded)


def test_a_cut_shard_is_named(sharded):
    path = sharded / "test" / "0.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ShardError, match=r"0\.tar is cut short"):
        read_labelled(sharded)


def test_shards_without_a_sample_are_named(sharded):
    pack(sharded / "train" / "0.tar", {})
    with pytest.raises(DataError, match=r"train must hold labelled pictures\. Its shards are empty"):
        read_labelled(sharded, split="train")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared evaluation sets are not on this machine")
@pytest.mark.parametrize(
    ("name", "split", "classes", "images"),
    [
        ("caltech101", "test", 100, 1500),
        ("caltech101", "train", 100, 995),
        ("clothing10", "test", 10, 713),
        ("flowers5", "test", 5, 600),
        ("gtsrb", "test", 43, 1290),
        ("mnist", "test", 10, 1000),
        ("tinyimagenet32", "test", 200, 2000),
    ],
)
def test_shared_sets_are_read_whole(name, split, classes, images):
    data = read_labelled(SHARED / name, split=split)
    assert (len(data.classnames), len(data), len(set(data.keys))) == (classes, images, images)
    assert set(data.targets) == set(range(classes))
    assert data.templates
    assert data.open(images - 1).mode == "RGB"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared evaluation sets are not on this machine")
def test_a_shared_retrieval_set_has_no_classes():
    with pytest.raises(DataError, match=r"must say classification\. Got 'retrieval'"):
        read_labelled(SHARED / "flickr8k", split="val")
