import json
import os
from pathlib import Path

import pytest

from diptych.errors import DataError
from diptych.search.about import (
    INDEX,
    IndexAbout,
    command,
    index_folder,
    path_of,
    read_about,
    text_of,
    write_about,
)

ABOUT = IndexAbout(
    folder=Path("/a/caf\udce9 x"), fingerprint="0", part="p", dimensions=4, model="m", exclude=("*.gif",)
)


def test_folders_of_one_name_have_indexes_of_their_own(monkeypatch, tmp_path):
    monkeypatch.delenv("DIPTYCH_INDEXES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    folders = {index_folder(Path(folder)) for folder in ("/a/my photos", "/b/my photos", "/")}
    assert len(folders) == 3
    assert {index.name.rsplit("-", 1)[0] for index in folders} == {"my-photos", "root"}
    assert {index.parent for index in folders} == {Path("/caches/diptych/indexes")}
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path))
    assert index_folder(Path("/a/b")).parent == tmp_path


def test_a_damaged_description_is_named(tmp_path):
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(DataError, match=r"index\.json must describe an index, and is damaged"):
        read_about(tmp_path)


def test_what_is_written_is_read_whatever_bytes_a_name_has(tmp_path):
    write_about(tmp_path, ABOUT)
    assert read_about(tmp_path) == ABOUT


def test_no_flip_in_the_description_goes_unnoticed(tmp_path):
    write_about(tmp_path, ABOUT)
    file = tmp_path / INDEX
    whole = file.read_bytes()
    for i in range(len(whole)):
        for bit in (0, 5):
            file.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :])
            try:
                assert read_about(tmp_path) == ABOUT, "another meaning"  # a space that became another
            except DataError as error:
                assert "damaged" in str(error) or "kind" in str(error)  # noqa: PT017


def test_an_index_of_an_older_kind_is_named_with_the_cure(tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"format": "diptych-index-1", "folder": "/a"}))
    with pytest.raises(DataError, match=r"of an older kind \(diptych-index-1\).* Make it anew: rm -r "):
        read_about(tmp_path)


def test_bytes_that_are_no_text_come_back():
    for name in (b"caf\xe9.jpg", "é/ü.jpg".encode(), b"a/\xff\x80/b", b"plain", b"x//y"):
        path = os.fsdecode(name)
        text_of(path).encode()
        assert os.fsencode(path_of(text_of(path))) == name


def test_a_command_names_folder_and_index_as_a_shell_takes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path))
    folder = Path("/a/my photos")
    about = IndexAbout(folder=folder, fingerprint="", part="", dimensions=0)
    assert command("repair", index_folder(folder), about) == "diptych index repair '/a/my photos'"
    assert command("repair", tmp_path / "i", about) == f"diptych index repair '/a/my photos' --index {tmp_path}/i"
    assert command("repair", tmp_path / "i") == f"diptych index repair FOLDER --index {tmp_path}/i"
