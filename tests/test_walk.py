import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.data import walk
from diptych.data.walk import walk_folder
from diptych.errors import DataError
from diptych.files import shown


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_pictures_and_videos_are_found_and_nothing_hidden(tmp_path):
    touch(tmp_path, "a.JPG", "deep/er/b.webp", "deep/c.mp4", "x.heic", "._a.jpg", ".trash/d.png", "notes.txt", "jpg")
    (tmp_path / "folder.png").mkdir()
    assert list(walk_folder(tmp_path).files) == ["a.JPG", "x.heic", "deep/c.mp4", "deep/er/b.webp"]


def test_one_bad_entry_is_named_and_stops_nothing(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "through.jpg").symlink_to(tmp_path / "a.png" / "b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
        found = walk_folder(tmp_path)
    assert list(found.files) == ["a.png"]
    assert found.faults == {
        "gone.png": "is a link that leads nowhere",
        "loop.jpg": "cannot be looked at: Too many levels of symbolic links",
        "pipe.jpg": "must be a file, and is a named pipe",
        "socket.jpg": "must be a file, and is a socket",
        "through.jpg": "cannot be looked at: Not a directory",
    }
    assert sorted(found.notes()) == [f"{tmp_path / name} {why}." for name, why in sorted(found.faults.items())]


def test_many_entries_with_one_fault_are_one_sentence(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").symlink_to("nowhere")
    assert walk_folder(tmp_path).notes() == [f"6 entries, {tmp_path}/0.png for one: each is a link that leads nowhere."]


def test_a_link_to_a_folder_is_not_followed_and_is_counted(tmp_path):
    touch(tmp_path, "a.png", "b/c.png")
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    found = walk_folder(tmp_path)
    assert list(found.files) == ["a.png", "b/c.png"]
    assert found.count_left_out() == {"links to folders": 1}


def test_names_of_any_bytes_are_carried_and_shown(tmp_path):
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/\xc4lteste")  # noqa: PTH102
    except OSError:
        pytest.skip("this file system takes no such name")
    touch(tmp_path, os.fsdecode(b"\xc4lteste/caf\xe9.jpg"))
    (name,) = walk_folder(tmp_path).files
    assert os.fsencode(name) == b"\xc4lteste/caf\xe9.jpg"
    assert shown(name) == r"\xc4lteste/caf\xe9.jpg"


def test_a_path_that_is_too_long_is_named(tmp_path):
    touch(tmp_path, "a.png")
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(20):
            Path("d" * 240).mkdir()
            os.chdir("d" * 240)
    finally:
        os.chdir(here)
    try:
        found = walk_folder(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / ("d" * 240))], check=True, timeout=60)
    assert list(found.files) == ["a.png"]
    assert [sentence[-18:] for sentence in found.faults.values()] == ["File name too long"]


LISTED = """
import sys
from pathlib import Path
from diptych.data.walk import walk_folder
found = walk_folder(Path(sys.argv[1]))
print(list(found.files), list(found.faults))
"""


def test_a_folder_that_may_not_be_listed_is_named_and_the_others_are_read(tmp_path):
    touch(tmp_path, "a.png", "closed/b.png", "open/c.png")
    (tmp_path / "closed").chmod(0)
    command = [sys.executable, "-c", LISTED, str(tmp_path)]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root reads everything, and setpriv is not there")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert done.stdout.strip() == "['a.png', 'open/c.png'] ['closed/']"


def test_a_folder_that_vanishes_during_the_walk_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a/b.png", "c/d.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/a"):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(walk.os, "scandir", scandir)
    found = walk_folder(tmp_path)
    assert (list(found.files), list(found.faults)) == (["c/d.png"], ["a/"])


def test_a_folder_that_cannot_be_listed_itself_is_refused(tmp_path):
    with pytest.raises(DataError, match="must be a folder that can be listed, and cannot: No such file"):
        walk_folder(tmp_path / "none")


def test_folders_of_systems_and_network_disks_are_left_out_and_counted(tmp_path):
    touch(tmp_path, "a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "b/@eaDir/x.jpg", ".thumbnails/x.png")
    touch(
        tmp_path,
        "$RECYCLE.BIN/x.jpg",
        "#recycle/x.jpg",
        "lost+found/x.jpg",
        ".git/x.png",
        "phone/.nomedia",
        "phone/x.jpg",
    )
    found = walk_folder(tmp_path)
    assert list(found.files) == ["a.jpg"]
    counts = found.count_left_out()
    assert (counts["@eaDir/"], counts[".thumbnails/"], counts[".nomedia"], sum(counts.values())) == (2, 1, 1, 8)


def test_patterns_and_ignore_files_leave_out_and_let_in(tmp_path):
    touch(tmp_path, "a.jpg", "a.gif", "b/a.gif", "b/keep.gif", "b/c/d.jpg", "@eaDir/x.jpg", ".h/x.jpg")
    (tmp_path / "b" / ".diptychignore").write_text("\ufeff/c/\n!keep.gif\n", encoding="utf-8")
    assert list(walk_folder(tmp_path, exclude=["*.gif"]).files) == ["a.jpg", "b/keep.gif"]
    assert sorted(walk_folder(tmp_path, exclude=["!@eaDir/", "!.h/"]).files)[:2] == [".h/x.jpg", "@eaDir/x.jpg"]


def test_what_no_reader_takes_is_counted_by_kind(tmp_path):
    touch(tmp_path, "a.psd", "b.psd", "c/d.svg", "notes.txt")
    assert [note.partition(", e.g.")[0] for note in walk_folder(tmp_path).notes()] == [
        "2 not read: a Photoshop file (.psd), which has no reader here",
        "1 not read: an SVG drawing (.svg), which has no reader here",
    ]


def test_an_empty_folder_is_told_from_one_with_anything(tmp_path):
    touch(tmp_path, "a/notes.txt")
    (tmp_path / "b").mkdir()
    assert walk_folder(tmp_path).empty == {"b/"}
