from pathlib import Path

import pytest

from diptych.errors import DataError
from diptych.sets.near_misses import read_near_misses
from oracles import paint

HEADER = "picture,right,near_miss,others,kind\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    paint(tmp_path / "frames" / "a.png", 0)
    return tmp_path


def test_a_picture_may_stand_in_several_rows(folder: Path):
    rows = "frames/a.png,a street,a street at night,a room | a park,\nframes/a.png,a dog in it,,no dog in it,fine\n"
    (folder / "captions.csv").write_text(HEADER + rows)
    found = read_near_misses(folder)
    assert found.keys == ("frames/a.png", "frames/a.png#2")
    assert found.right == ("a street", "a dog in it")
    assert found.near_miss == ("a street at night", "")
    assert found.others == (("a room", "a park"), ("no dog in it",))
    assert found.kinds == ("coarse", "fine")
    assert found.open(1).size == (4, 4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,a street,,,coarse", r"line 2: a right caption and others .* Got 'a street' and none"),
        ("a.png,a street,a room,a room,", r"differ from it and from each other"),
        ("a.png,a street,,a street,", r"differ from it"),
        ("a.png,a street,,a room,tiny", r"line 2: kind must be coarse or fine. Got 'tiny'"),
    ],
)
def test_a_row_that_leaves_nothing_to_choose_is_told_with_its_line(folder: Path, row: str, message: str):
    table = folder / "mine.csv"
    table.write_text(HEADER + row)
    with pytest.raises(DataError, match=message):
        read_near_misses(table)
