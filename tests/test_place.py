from pathlib import Path

import pytest

from diptych.errors import DataError
from diptych.search.place import INDEX, index_place, open_store, read_about


def test_folders_of_one_name_have_indexes_of_their_own(monkeypatch, tmp_path):
    monkeypatch.delenv("DIPTYCH_INDEXES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    places = {index_place(Path(folder)) for folder in ("/a/my photos", "/b/my photos", "/")}
    assert len(places) == 3
    assert {place.name.rsplit("-", 1)[0] for place in places} == {"my-photos", "root"}
    assert {place.parent for place in places} == {Path("/caches/diptych/indexes")}
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path))
    assert index_place(Path("/a/b")).parent == tmp_path


def test_no_index_is_told_with_the_way_to_one(tmp_path):
    assert read_about(tmp_path) is None
    with pytest.raises(DataError, match=r"must have an index.*diptych index update"):
        open_store(tmp_path, tmp_path / "index")


def test_a_damaged_description_is_named(tmp_path):
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(DataError, match=r"index\.json must describe an index, and is damaged"):
        read_about(tmp_path)
