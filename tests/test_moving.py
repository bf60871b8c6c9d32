import os
import shutil
from pathlib import Path

import pytest

from diptych.errors import ConfigError, DataError
from diptych.search.about import index_folder
from diptych.search.library import Library
from diptych.search.moving import list_indexes, move_index, remove_index, same_pictures
from diptych.weights.bundle import Bundle
from libraries import assert_true, draw_ten


@pytest.fixture
def old(tmp_path, tiny_bundle, monkeypatch) -> Path:
    """Ten pictures whose index lies in the cache."""
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    folder = tmp_path / "old"
    draw_ten(folder)
    with Library.open(folder, tiny_bundle, model="tiny") as library:
        library.update()
    return folder


def updated_without_encoding(folder: Path, bundle: Bundle, monkeypatch, **options) -> Library:
    library = Library.open(folder, bundle, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "encode_pixels", None)
        done = library.update()
    assert (done.added, done.changed, done.deleted, done.total) == (0, 0, 0, 10)
    assert_true(library)
    return library


def test_the_index_of_a_folder_that_was_renamed_goes_with_it(old, tmp_path, tiny_bundle, monkeypatch):
    new = old.rename(tmp_path / "new")
    with updated_without_encoding(new, tiny_bundle, monkeypatch) as library:
        assert library.index_folder == index_folder(new)
        assert library.search("a red kite", count=1)[0].path.is_relative_to(new)
    assert not index_folder(old).exists()


def test_the_index_of_a_folder_that_was_copied_is_copied(old, tmp_path, tiny_bundle, monkeypatch):
    shutil.copytree(old, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.png"):
        os.utime(path, ns=(1, 1))  # as a copy that keeps no times
    updated_without_encoding(tmp_path / "copy", tiny_bundle, monkeypatch).close()
    updated_without_encoding(old, tiny_bundle, monkeypatch).close()
    assert [one.folder for one in list_indexes()] == [tmp_path / "copy", old]


def test_an_index_that_lies_elsewhere_is_told_of_the_new_path(tmp_path, tiny_bundle, monkeypatch):
    draw_ten(tmp_path / "old")
    with Library.open(tmp_path / "old", tiny_bundle, index=tmp_path / "index") as library:
        library.update()
    new = (tmp_path / "old").rename(tmp_path / "new")
    updated_without_encoding(new, tiny_bundle, monkeypatch, index=tmp_path / "index").close()


def test_other_pictures_under_the_same_names_are_not_taken_for_them(old, tmp_path, tiny_bundle):
    for path in old.rglob("*.png"):
        other = tmp_path / "other" / path.relative_to(old)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(bytes(path.stat().st_size))
    assert same_pictures(tmp_path / "other") is None
    with pytest.raises(ConfigError, match=r"is the index of .*old, not of .*other.*diptych index move"):
        Library.open(tmp_path / "other", tiny_bundle, index=index_folder(old))


def test_an_index_is_moved_by_hand(old, tmp_path, tiny_bundle, monkeypatch):
    new = old.rename(tmp_path / "new")
    with pytest.raises(DataError, match="must have an index to be moved"):
        move_index(tmp_path / "none", new)
    with pytest.raises(DataError, match="must be a folder of pictures"):
        move_index(old, tmp_path / "none")
    assert move_index(old, new) == index_folder(new)
    updated_without_encoding(new, tiny_bundle, monkeypatch).close()
    draw_ten(old)
    Library.open(old, tiny_bundle).close()  # has an index again
    with pytest.raises(ConfigError, match="must have no index yet"):
        move_index(old, new)


def test_indexes_are_listed_and_removed(old, tiny_bundle):
    (one,) = list_indexes()
    assert (one.folder, one.is_there, one.model, one.files, one.fault) == (old, True, "tiny", 10, "")
    assert one.bytes > 10 * 4 * tiny_bundle.model.config.embed_dim
    shutil.rmtree(old)
    assert [one.is_there for one in list_indexes()] == [False]
    assert remove_index(old) == one.index
    assert list_indexes() == []
    with pytest.raises(DataError, match="must have an index to be removed"):
        remove_index(old)


def test_a_damaged_index_is_listed_with_its_fault(old):
    (index_folder(old) / "index.json").write_text("{")
    (one,) = list_indexes()
    assert (one.folder, one.index) == (None, index_folder(old))
    assert "is damaged" in one.fault
