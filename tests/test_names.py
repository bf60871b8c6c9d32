import unicodedata
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import DataError
from diptych.search.names import folder_named, names_of
from diptych.search.store import Store
from diptych.search.writing import Entry, Writer

NFC, NFD = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "real").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "real" / "a.png").touch()
    (folder / "link.png").symlink_to("real/a.png")
    (folder / "linked").symlink_to("real")
    return folder


@pytest.fixture
def store(tmp_path) -> Store:
    with Writer(tmp_path / "index" / "part", 2) as writer:
        names = ("real/a.png", "link.png", f"{NFD}/b.png", f"{NFC}2/{NFD}.png")
        features = np.eye(2, dtype=np.float32)[:1]
        writer.write([Entry(path=name, size=1, modified=1, features=features) for name in names])
    return Store(tmp_path / "index" / "part", 2)


def first(store: Store, folder: Path, path: str | Path) -> str | None:
    return next((name for name in names_of(store, folder, path) if store.file_of(name)), None)


def test_a_file_is_found_by_its_link_its_target_and_through_linked_folders(store, folder, tmp_path):
    assert first(store, folder, "link.png") == first(store, folder, folder / "link.png") == "link.png"
    assert first(store, folder, "./real/../real/a.png") == "real/a.png"
    assert first(store, folder, folder / "linked" / "a.png") == "real/a.png"
    (tmp_path / "elsewhere.png").symlink_to(folder / "real" / "a.png")
    assert first(store, folder, tmp_path / "elsewhere.png") == "real/a.png"
    assert first(store, folder, "none.png") is None
    with pytest.raises(DataError, match="must lie in"):
        first(store, folder, tmp_path / "other.png")


def test_names_are_found_in_either_unicode_form(store, folder):
    assert first(store, folder, f"{NFC}/b.png") == f"{NFD}/b.png"
    assert first(store, folder, f"{NFD}2/{NFC}.png") == f"{NFC}2/{NFD}.png"


def test_a_subfolder_is_named_as_people_name_one(store, folder):
    for name in ("real", "./real", "real/", "/real/", "real/.", folder / "real", f"{folder}/real/", folder / "linked"):
        assert folder_named(store, folder, str(name)) == "real"
    for name in ("", ".", "./", folder, f"{folder}/"):
        assert folder_named(store, folder, str(name)) == ""
    assert folder_named(store, folder, f"{NFC}/") == NFD
    for name in ("..", "../", "real/../..", "../pictures2"):  # there or not
        with pytest.raises(DataError, match="must be a folder in"):
            folder_named(store, folder, name)
    assert folder_named(store, folder, "empty") == "empty"


def test_a_folder_that_is_not_there_is_an_error(store, folder):
    for name in ("none", "rea", "real/a.png/x", "../other", "/etc"):
        with pytest.raises(DataError, match=r"must be a folder in .*pictures, and is none"):
            folder_named(store, folder, name)
