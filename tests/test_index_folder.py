from pathlib import Path

import numpy as np
import pytest

from diptych.errors import DataError
from diptych.search.index_folder import (
    INDEX,
    INDEX_FORMAT,
    check_index,
    index_folder,
    open_store,
    read_about,
    status_of,
)
from diptych.search.writing import Entry, Writer


def test_folders_of_one_name_have_indexes_of_their_own(monkeypatch, tmp_path):
    monkeypatch.delenv("DIPTYCH_INDEXES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    folders = {index_folder(Path(folder)) for folder in ("/a/my photos", "/b/my photos", "/")}
    assert len(folders) == 3
    assert {index.name.rsplit("-", 1)[0] for index in folders} == {"my-photos", "root"}
    assert {index.parent for index in folders} == {Path("/caches/diptych/indexes")}
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path))
    assert index_folder(Path("/a/b")).parent == tmp_path


def test_no_index_is_told_with_the_way_to_one(tmp_path):
    assert read_about(tmp_path) is None
    with pytest.raises(DataError, match=r"must have an index.*diptych index update"):
        open_store(tmp_path, tmp_path / "index")


def test_a_damaged_description_is_named(tmp_path):
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(DataError, match=r"index\.json must describe an index, and is damaged"):
        read_about(tmp_path)


def test_a_whole_index_is_counted_and_a_damaged_one_is_named_with_its_cure(tmp_path):
    about = {"format": INDEX_FORMAT, "folder": str(tmp_path), "fingerprint": "0", "part": "part", "model": "m"}
    with Writer(tmp_path / "index" / "part", 2) as writer:
        writer.answer(about | {"dimensions": 2})
        writer.write([Entry(path="a.jpg", size=1, modified=1, features=np.eye(2, dtype=np.float32), times=(1, 2))])
    assert check_index(tmp_path, tmp_path / "index") == 2
    said, store = open_store(tmp_path, tmp_path / "index")
    status = status_of(said, store)
    assert (status["model"], status["index"], status["rows"]) == ("m", str(tmp_path / "index"), 2)
    (tmp_path / "index" / "part" / "features-0.f32").write_bytes(bytes(16))
    with pytest.raises(DataError, match=r"is damaged: 2 rows .* not of unit length\. Make it anew"):
        check_index(tmp_path, tmp_path / "index")
