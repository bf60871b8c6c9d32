import json
from pathlib import Path

import pytest

from diptych.errors import ConfigError, DataError
from diptych.serve.shelf import FILE, Shelf


def test_what_is_kept_is_there_for_the_next_server(tmp_path: Path):
    shelf, other = Shelf(tmp_path), Shelf(tmp_path)
    before, _ = other.read()
    shelf.save_search("  dogs \n at sea ", "q=dogs")
    shelf.change_album("best", add={"b.jpg": "", "a.jpg": ""})
    shelf.change_album("best", add={"c.jpg": "1f"}, remove=["b.jpg"])
    other.change_hidden(hide={"x.jpg": "2e", "y.jpg": ""})
    shelf.change_hidden(show=["y.jpg"])
    after, kept = other.read()
    assert after != before
    assert kept.saved == {"dogs at sea": "q=dogs"}
    assert kept.albums == {"best": ("a.jpg", "c.jpg")}
    assert kept.hidden == {"x.jpg"}
    assert Shelf(tmp_path).read()[1] == kept


def test_what_went_is_hidden_and_leads_to_no_other_file(tmp_path: Path):
    shelf = Shelf(tmp_path)
    shelf.change_album("best", add={"a.jpg": "1f", "b.jpg": "2e"})
    shelf.change_hidden(gone=["a.jpg"])
    assert shelf.read()[1].hidden == {"a.jpg"}
    assert shelf.read()[1].digests == {"b.jpg": "2e"}
    shelf.follow({"b.jpg": "new/b.jpg"}, ["a.jpg"])
    kept = shelf.read()[1]
    assert (kept.albums, kept.hidden, kept.digests) == ({"best": ("a.jpg", "new/b.jpg")}, set(), {"new/b.jpg": "2e"})


def test_a_search_and_an_album_are_forgotten(tmp_path: Path):
    shelf = Shelf(tmp_path)
    shelf.save_search("dogs", "q=dogs")
    shelf.save_search("dogs", "q=hounds")
    assert shelf.read()[1].saved == {"dogs": "q=hounds"}
    shelf.save_search("dogs", "")
    shelf.change_album("best", add={"a.jpg": ""})
    shelf.forget_album("best")
    kept = shelf.read()[1]
    assert (kept.saved, kept.albums) == ({}, {})


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\0b"])
def test_a_name_is_one(tmp_path: Path, name: str):
    shelf = Shelf(tmp_path)
    for ask in (lambda: shelf.save_search(name, "q=a"), lambda: shelf.change_album(name)):
        with pytest.raises(ConfigError, match="a name must have 1 to 100 letters"):
            ask()
    assert not (tmp_path / FILE).exists()


def test_names_of_any_bytes_are_kept(tmp_path: Path):
    shelf = Shelf(tmp_path)
    shelf.change_album("odd", add={"caf\udce9.jpg": ""})
    assert Shelf(tmp_path).read()[1].albums == {"odd": ("caf\udce9.jpg",)}


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "another"}', '{"format": "diptych-page-1"}'])
def test_a_damaged_file_is_said_and_not_written_over(tmp_path: Path, text: str):
    (tmp_path / FILE).write_text(text)
    shelf = Shelf(tmp_path)
    for ask in (shelf.read, lambda: shelf.change_hidden(gone=["a.jpg"])):
        with pytest.raises(DataError, match="must hold what the page keeps, and is damaged"):
            ask()
    assert (tmp_path / FILE).read_text() == text


def test_the_file_says_what_it_is(tmp_path: Path):
    Shelf(tmp_path).change_album("best", add={"a.jpg": "1f"})
    data = json.loads((tmp_path / FILE).read_text())
    album = {"name": "best", "files": ["a.jpg"]}
    assert data == {"format": "diptych-page-1", "saved": [], "albums": [album], "hidden": [], "sha256": {"a.jpg": "1f"}}
    del data["sha256"]  # a file of before
    (tmp_path / FILE).write_text(json.dumps(data))
    assert Shelf(tmp_path).read()[1].albums == {"best": ("a.jpg",)}


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be written, so nothing can be kept"):
        Shelf(tmp_path / "gone").change_hidden(gone=["a.jpg"])
