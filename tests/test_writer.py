import numpy as np
import pytest
from PIL import Image

from diptych.errors import DataError
from diptych.sets import writer as evaluation_writer
from diptych.sets.open import read_labelled
from diptych.sets.writer import write_labelled


def rows(count: int):
    return [(f"{n:03d}", Image.new("RGB", (4, 4), (n, 0, 0)), n % 2) for n in range(count)]


def write(folder, **splits):
    templates = ("a photo of a {}.",)
    return write_labelled(folder, ["even", "odd"], splits, templates=templates, about="Made for a test.")


def test_what_is_written_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_writer, "_PER_SHARD", 2)
    assert write(tmp_path / "set", test=rows(5), train=rows(1)) == {"test": 5, "train": 1}
    data = read_labelled(tmp_path / "set")
    assert (data.classnames, data.templates) == (("even", "odd"), ("a photo of a {}.",))
    assert data.keys == ("0/000", "0/001", "1/002", "1/003", "2/004")
    assert data.targets.tolist() == [0, 1, 0, 1, 0]
    assert np.asarray(data.open(3))[0, 0].tolist() == [3, 0, 0]
    assert "Made for a test." in (tmp_path / "set" / "README.md").read_text()


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, test=rows(3))
    assert (tmp_path / "a" / "test" / "0.tar").read_bytes() == (tmp_path / "b" / "test" / "0.tar").read_bytes()


def test_a_folder_is_whole_or_absent(tmp_path):
    def broken():
        yield from rows(1)
        raise DataError("stopped")

    for splits, message in (({"test": broken()}, "stopped"), ({"test": []}, "Without: test"), ({}, "Without: any")):
        with pytest.raises(DataError, match=message):
            write(tmp_path / "set", **splits)
        assert list(tmp_path.iterdir()) == []
    write(tmp_path / "set", test=rows(1))
    with pytest.raises(DataError, match=r"must not be there yet"):
        write(tmp_path / "set", test=rows(1))
