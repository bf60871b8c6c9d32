import os
from pathlib import Path

from diptych.serve.thumbnails import Thumbnails

JPEG = b"\xff\xd8%s\xff\xd9"


def test_each_is_drawn_once_for_all_servers(tmp_path: Path):
    drawn: list[str] = []

    def make(name: str) -> bytes:
        drawn.append(name)
        return JPEG % name.encode()

    for thumbnails in (Thumbnails(tmp_path / "kept", most=1000), Thumbnails(tmp_path / "kept", most=1000)):
        for key in ("a", "b"):
            assert thumbnails.get((key, 1), lambda key=key: make(key)) == JPEG % key.encode()
    assert drawn == ["a", "b"]
    thumbnails.get(("a", 2), lambda: make("another state"))
    assert drawn[-1] == "another state"
    assert not list((tmp_path / "kept").rglob("*.part"))


def test_what_was_not_used_for_longest_goes(tmp_path: Path):
    thumbnails = Thumbnails(tmp_path / "kept", most=1000)
    for i in range(9):
        thumbnails.get((i,), lambda: JPEG % bytes(96))
    for i, file in enumerate(sorted((tmp_path / "kept").rglob("*.jpg"), key=lambda file: file.stat().st_mtime_ns)):
        os.utime(file, (i, i))
    thumbnails.get((0,), lambda: b"never")  # used now
    thumbnails.get((9,), lambda: JPEG % bytes(96))
    thumbnails.get((10,), lambda: JPEG % bytes(96))  # 1,100 bytes: down to 900
    assert sum(file.stat().st_size for file in (tmp_path / "kept").rglob("*.jpg")) == 900
    kept = [i for i in range(11) if thumbnails.get((i,), lambda: b"gone") != b"gone"]
    assert 0 in kept
    assert kept[-2:] == [9, 10]


def test_half_a_picture_is_drawn_anew(tmp_path: Path):
    thumbnails = Thumbnails(tmp_path / "kept", most=1000)
    thumbnails.get(("a",), lambda: JPEG % b"whole")
    [file] = (tmp_path / "kept").rglob("*.jpg")
    file.write_bytes(b"\xff\xd8who")
    assert thumbnails.get(("a",), lambda: JPEG % b"again") == JPEG % b"again"


def test_a_folder_that_cannot_be_written_keeps_none(tmp_path: Path):
    (tmp_path / "kept").write_text("a file")
    thumbnails = Thumbnails(tmp_path / "kept", most=1000)
    assert [thumbnails.get(("a",), lambda i=i: JPEG % bytes([i])) for i in range(2)] == [JPEG % b"\0", JPEG % b"\1"]
