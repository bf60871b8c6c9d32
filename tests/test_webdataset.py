import pytest

from diptych.errors import DataError, ShardError
from diptych.sets.webdataset import dataset_type, picture_member, samples, sharded_splits
from toys import pack, png


@pytest.fixture
def folder(tmp_path):
    for number in (0, 10, 2):
        pack(tmp_path / "test" / f"{number}.tar", {f"{number}.png": png("red"), f"{number}.cls": b"0"})
    (tmp_path / "test" / "nshards.txt").write_text("1")
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_nshards_decides_which_shards_count(folder):
    assert sharded_splits(folder) == ["test"]
    assert [key for key, _, _ in samples(folder, "test")] == ["0/0"]
    (folder / "test" / "nshards.txt").write_text("3")
    with pytest.raises(ShardError, match=r"Missing: 1.tar"):
        list(samples(folder, "test"))
    with pytest.raises(DataError, match=r"no split 'train'"):
        list(samples(folder, "train"))


def test_the_picture_of_a_sample_is_found_by_its_ending(folder):
    ((_, reader, sample),) = samples(folder, "test")
    assert picture_member(reader, sample, "cls").read_bytes() == png("red")
    with pytest.raises(ShardError, match=r"one txt and one picture"):
        picture_member(reader, sample, "txt")


def test_the_type_is_what_the_file_says(folder):
    assert dataset_type(folder) is None
    (folder / "dataset_type.txt").write_text("retrieval\n")
    assert dataset_type(folder) == "retrieval"
