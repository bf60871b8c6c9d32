import io
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import DataError, MissingExtraError
from diptych.serve import originals
from diptych.serve.originals import original_of, to_trash, zip_of
from diptych.serve.refusals import RefusedError


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "a film.mp4"
    path.write_bytes(bytes(range(100)))
    return path


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-", 0, 100), ("bytes=10-19", 10, 20), ("bytes=90-500", 90, 100), ("bytes=-7", 93, 100)],
)
def test_a_part_is_what_was_asked_for(film: Path, asked: str, start: int, end: int):
    answer = original_of(film, asked, as_file=False)
    assert (answer.status, answer.headers["Content-Range"]) == (206, f"bytes {start}-{end - 1}/100")
    assert b"".join(answer.blocks) == bytes(range(start, end))
    assert answer.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize("asked", ["", "bytes=a-b", "bytes=1-2,5-6", "items=0-1"])
def test_what_is_no_part_gets_all(film: Path, asked: str):
    answer = original_of(film, asked, as_file=True)
    assert (answer.status, b"".join(answer.blocks)) == (200, bytes(range(100)))
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20film.mp4"


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=5-4", "bytes=99999999999999999999-"])
def test_a_part_that_is_not_there_is_refused(film: Path, asked: str):
    with pytest.raises(RefusedError, match="within the file's 100 bytes") as refused:
        original_of(film, asked, as_file=False)
    assert refused.value.status == 416


def test_a_player_gets_no_more_than_a_few_megabytes_at_a_time(film: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(originals, "_PART", 16)
    monkeypatch.setattr(originals, "_BLOCK", 5)
    answer = original_of(film, "bytes=2-", as_file=False)
    assert answer.headers["Content-Range"] == "bytes 2-17/100"
    assert b"".join(answer.blocks) == bytes(range(2, 18))


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.js", "a"])
def test_nothing_that_a_browser_would_run_is_called_so(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"x")
    kind = original_of(tmp_path / name, "", as_file=False).headers["Content-Type"]
    assert kind == "application/octet-stream"


def test_a_zip_is_whole_and_names_what_it_could_not_read(film: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(originals, "_BLOCK", 7)
    data = b"".join(zip_of([("deep/film.mp4", film), ("gone.jpg", film.with_name("gone.jpg"))]))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.read("deep/film.mp4") == film.read_bytes()
        assert archive.read("not-read.txt").decode() == "gone.jpg: No such file or directory\n"


def test_the_trash_is_the_systems(film: Path, monkeypatch: pytest.MonkeyPatch):
    gone: list[str] = []
    module: Any = types.ModuleType("send2trash")
    module.send2trash = gone.append
    monkeypatch.setitem(sys.modules, "send2trash", module)
    to_trash(film)
    assert gone == [str(film)]

    def fail(_: str) -> None:
        raise OSError(30, "Read-only file system")

    module.send2trash = fail
    with pytest.raises(DataError, match=r"a film\.mp4 cannot be moved to the trash: Read-only file system"):
        to_trash(film)
    monkeypatch.setitem(sys.modules, "send2trash", None)
    with pytest.raises(MissingExtraError, match="needs an extra: pip install 'diptych"):
        to_trash(film)
