import os
from pathlib import Path

import pytest
from PIL import Image

from conftest import png
from diptych.errors import DataError
from diptych.pairs.folders import PictureFolder

PICTURE = png(Image.new("RGB", (4, 4), "red"))


def fill(folder: Path, *names: str, **texts: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PICTURE)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def captions(folder: Path) -> list[list[str]]:
    pairs = PictureFolder(folder)
    return [pairs.captions(number) for number in range(len(pairs))]


def test_names_of_class_folders_are_the_captions(tmp_path):
    folder = fill(tmp_path, "001.Black_footed_Albatross/a.png", "002.Auk/b.png", "002.Auk/c.png")
    assert captions(folder) == [["Black footed Albatross"], ["Auk"], ["Auk"]]
    (note,) = PictureFolder(folder).check()
    assert note.endswith("the names of 2 folders are the captions: Black footed Albatross, Auk.")
    pictures = PictureFolder(folder)
    assert pictures[0].parts["txt"] == b"Black footed Albatross"


def test_codes_become_names_or_are_refused(tmp_path):
    folder = fill(tmp_path / "imagenet", "n01440764/a.png", "n01443537/b.png")
    assert captions(folder) == [["tench"], ["goldfish"]]
    folder = fill(tmp_path / "other", "n99999998/a.png", "n99999999/b.png")
    with pytest.raises(DataError, match=r"put words\.txt beside the data"):
        PictureFolder(folder).check()
    (folder / "classnames.txt").write_text("one\ntwo\n")
    assert captions(folder) == [["one"], ["two"]]
    (folder / "classnames.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"must have a line for each class folder\. It has 1, for 2"):
        PictureFolder(folder)
    assert "names are numbers (0, 1" in PictureFolder(fill(tmp_path / "digits", "0/a.png", "1/b.png")).check()[1]


def test_numbers_stay_where_not_all_names_have_one(tmp_path):
    assert captions(fill(tmp_path, "3 dogs/a.png", "cats/b.png")) == [["3 dogs"], ["cats"]]


def test_texts_beside_some_pictures_make_folders_no_classes(tmp_path):
    folder = fill(tmp_path, "a/1.png", "b/2.png", **{"a/1": "one"})
    assert PictureFolder(folder).captions(0) == ["one"]
    with pytest.raises(DataError, match="no caption"):
        PictureFolder(folder).captions(1)
    assert PictureFolder(folder).check() == [f"{folder}: 1 of 2 pictures have no text beside them."]


def test_a_folder_without_texts_names_what_is_there(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("a.png,x")
    with pytest.raises(DataError, match=r"It has 2 pictures, and \.csv 1\. If labels\.csv has the captions, give it"):
        PictureFolder(tmp_path).check()


def test_a_text_is_found_whatever_the_case_of_its_ending(tmp_path):
    fill(tmp_path, "a.PNG", "b.png")
    (tmp_path / "a.TXT").write_bytes("eins\r\n".encode("utf-8-sig"))
    (tmp_path / "b.caption").write_text("two\u2028lines")
    assert captions(tmp_path) == [["eins"], ["two\u2028lines"]]


def test_what_is_passed_over_is_counted_and_a_circle_ends(tmp_path):
    folder = fill(tmp_path / "set", "a.png", ".hidden.png", "@eaDir/a.png/thumb.png", "deep/b.png", a="one")
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "notes.md").write_text("x")
    (folder / os.fsdecode(b"\xc4lteste")).mkdir()
    pairs = PictureFolder(folder)
    assert [pairs[n].key for n in range(len(pairs))] == ["a.png", "deep/b.png"]
    without, others, passed = pairs.check()
    assert without.endswith("1 of 2 pictures have no text beside them.")
    assert others.endswith("no pictures and no texts of one: .md 1.")
    assert "names with a dot in front 1" in passed
    assert "@eaDir/ 1" in passed
    assert "links that lead in a circle 1" in passed


def test_an_ignore_file_leaves_out_what_it_says_and_it_is_counted(tmp_path):
    folder = fill(tmp_path, "a.png", "drafts/b.png", "deep/c.gif", "deep/keep.gif", **{"a": "one", "deep/keep": "two"})
    (folder / ".diptychignore").write_text("drafts/\n*.gif\n!keep.gif\n")
    pairs = PictureFolder(folder)
    assert [pairs[n].key for n in range(len(pairs))] == ["a.png", "deep/keep.gif"]
    assert "by .diptychignore 2" in pairs.check()[-1]


def test_splits_are_not_trained_on_together(tmp_path):
    folder = fill(tmp_path, "train/cat/a.png", "train/dog/b.png", "test/cat/c.png")
    with pytest.raises(DataError, match=r"has the splits test, train.*Give one, e\.g\. .*/train"):
        PictureFolder(folder).check()
    assert captions(folder / "train") == [["cat"], ["dog"]]
