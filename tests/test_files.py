import fcntl
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from diptych import files
from diptych.errors import ConfigError, DataError
from diptych.files import (
    atomic_file,
    atomic_folder,
    expanded,
    folder_lock,
    is_locked,
    natural_order,
    read_at,
    remove_folder,
    remove_leftovers,
    sha256,
    waiting_lock,
    write_json,
    write_text,
)
from processes import started


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """A disk on which no file can grow beyond `size` bytes, as the system itself enforces it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "deeper" / "a.txt"
    write_text(path, "old")
    with atomic_file(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
        assert aside.parent == path.parent  # or the rename might cross file systems
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_a_file_that_fails_halfway_leaves_the_old_one_alone(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail_halfway() -> None:
        with atomic_file(tmp_path / "a.txt") as aside:
            aside.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "run") as aside:
            write_text(aside / "deeper" / f"{content}.txt", content)
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run" / "deeper") == ["new.txt"]


def test_a_folder_that_fails_halfway_leaves_the_old_one_alone(tmp_path):
    with atomic_folder(tmp_path / "run") as aside:
        write_text(aside / "a.txt", "old")

    def fail_halfway() -> None:
        with atomic_folder(tmp_path / "run") as aside:
            write_text(aside / "a.txt", "ne")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "a.txt").read_text() == "old"


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one_there(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "run") as aside:
        write_text(aside / "a.txt", "old")
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with (
        pytest.raises(DataError, match="run could not be written: Input/output error"),
        atomic_folder(tmp_path / "run"),
    ):
        pass
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "a.txt").read_text() == "old"


def test_a_full_disk_is_one_sentence_on_the_outermost_name_and_leaves_nothing(tmp_path):
    def write() -> None:
        with atomic_folder(tmp_path / "run") as aside:
            write_text(aside / "small.txt", "fits")
            with atomic_folder(aside / "inner") as inner:
                write_text(inner / "large.txt", "x" * 100_000)

    with room_for(1000), pytest.raises(DataError) as caught:
        write()
    assert str(caught.value) == (
        f"{tmp_path / 'run'} could not be written: File too large. Nothing was left half-written."
    )
    assert names(tmp_path) == []


def test_a_sentence_about_something_else_passes_through(tmp_path):
    with pytest.raises(DataError, match=r"^no caption$"), atomic_folder(tmp_path / "run"):
        raise DataError("no caption")


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match="run could not be written: File exists"), folder_lock(tmp_path / "run"):
        pass
    with pytest.raises(DataError, match=r"run/a\.txt could not be written: "):
        write_text(tmp_path / "run" / "a.txt", "")


def test_json_has_no_nan_and_nothing_is_written_for_one(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_a_folder_that_is_half_removed_no_longer_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "step-1").mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *_args, **_options: None)  # as if killed there
    remove_folder(tmp_path / "step-1")
    (left,) = names(tmp_path)
    assert left.startswith(".step-1.")
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_leftovers_of_a_killed_process_go_and_a_folder_that_it_had_moved_aside_comes_back(tmp_path):
    for name in (".bundle.0a1b2c3d.part", ".bundle.4e5f6a7b.old", ".report.0a1b2c3d.old", "report"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / ".log.jsonl.0a1b2c3d.part").write_text("half a li")
    for name in (".hidden", ".film.mp4.part", "a.0a1b2c3d.part"):
        (tmp_path / name).write_text("the user's own")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".film.mp4.part", ".hidden", "a.0a1b2c3d.part", "bundle", "report"]
    assert (tmp_path / "bundle" / "a.txt").read_text() == ".bundle.4e5f6a7b.old"
    assert (tmp_path / "report" / "a.txt").read_text() == "report"
    remove_leftovers(tmp_path / "not there")


def test_what_was_moved_aside_within_a_folder_that_is_aside_itself_goes_at_once(tmp_path):
    # A bundle that was written into a checkpoint, killed between its two renames.
    for name in ("..step-1.0a1b2c3d.part.4e5f6a7b.old", "..step-1.0a1b2c3d.part.9c8d7e6f.part"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_is_locked_to_one_and_free_afterwards(tmp_path):
    with folder_lock(tmp_path / "run"):
        with pytest.raises(ConfigError, match="run must be free, and another"), folder_lock(tmp_path / "run"):
            pass
        with folder_lock(tmp_path / "other run"):
            pass
    with folder_lock(tmp_path / "run"):
        pass


def test_a_look_at_a_lock_tells_whether_it_is_held_and_is_in_nobodys_way(tmp_path, monkeypatch):
    assert not is_locked(tmp_path)
    assert names(tmp_path) == []
    with folder_lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with (tmp_path / ".lock").open() as looking:  # at the moment when a run wants to begin
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(files.time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with folder_lock(tmp_path):
            assert is_locked(tmp_path)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fcntl, and locks by byte ranges that refuse as Windows' do."""
    nothing, only = fcntl.LOCK_UN, fcntl.LOCK_EX | fcntl.LOCK_NB
    flock = fcntl.flock

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (os.lseek(descriptor, 0, os.SEEK_CUR), count) == (0, 1)  # a range counts from the position
        try:
            flock(descriptor, mode)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=only, LK_UNLCK=nothing))


@pytest.mark.usefixtures("windows")
def test_without_fcntl_locks_are_those_of_windows(tmp_path):
    assert not is_locked(tmp_path)
    with folder_lock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(ConfigError, match="must be free, and another process works in it"), folder_lock(tmp_path):
            pass
    assert not is_locked(tmp_path)
    with folder_lock(tmp_path):
        pass


def _waiting_locks_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    with ThreadPoolExecutor(1) as threads:
        is_waiting = threading.Event()
        monkeypatch.setattr(files.time, "sleep", lambda _: is_waiting.set())

        def take() -> None:
            with waiting_lock(path):
                order.append("second")

        with waiting_lock(path):
            second = threads.submit(take)
            assert is_waiting.wait(60)
            order.append("first")
        second.result(60)
    assert order == ["first", "second"]


def test_a_waiting_lock_waits(tmp_path, monkeypatch):
    _waiting_locks_wait(tmp_path / "a.lock", monkeypatch)


@pytest.mark.usefixtures("windows")
def test_a_waiting_lock_waits_without_fcntl_too(tmp_path, monkeypatch):
    _waiting_locks_wait(tmp_path / "a.lock", monkeypatch)


@pytest.mark.parametrize("has_pread", [True, False])
def test_many_threads_read_one_file_where_they_like(tmp_path, monkeypatch, has_pread):
    if not has_pread:
        monkeypatch.delattr(os, "pread")
    (tmp_path / "a").write_bytes(bytes(range(256)) * 64)
    with (tmp_path / "a").open("rb") as file, ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda offset: read_at(file, 3, offset), range(4000)))
        assert read == [bytes((start + step) % 256 for step in range(3)) for start in range(4000)]
        assert read_at(file, 9, 256 * 64 - 1) == b"\xff"


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    hold = (
        "import pathlib, signal, sys; from diptych.files import folder_lock\n"
        "with folder_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); signal.pause()"
    )
    with started([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError), folder_lock(tmp_path):
            pass
    with folder_lock(tmp_path):
        pass


def test_what_is_written_is_flushed_once_and_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, Path.rename

    def note_flush(handle: int) -> None:
        events.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(Path, "rename", lambda self, target: events.append(f"to {target.name}") or rename(self, target))
    with atomic_folder(tmp_path / "run") as aside:
        write_text(aside / "a.txt", "a")
        with atomic_folder(aside / "inner") as inner:
            write_text(inner / "b.txt", "b")
    events = [event.replace(f"/{aside.name}", "/run").removeprefix(str(tmp_path)) for event in events]
    assert events[0] == "to inner"
    assert sorted(events[1:5]) == ["/run", "/run/a.txt", "/run/inner", "/run/inner/b.txt"]
    assert events[5:] == ["to run", ""]  # at last the folder that holds the name


@pytest.mark.parametrize("special", ["/dev/null", "/dev"])
def test_what_is_no_file_is_not_replaced_by_one(special):
    with pytest.raises(DataError, match=f"{special} must be a file, or absent"):
        write_text(Path(special), "")
    assert not Path(special).is_file()


def test_natural_order_counts():
    names = ["Picture10", "picture9", "b", "picture09", "1"]
    assert sorted(names, key=natural_order) == ["1", "b", "picture09", "picture9", "Picture10"]


def test_sha256_of_a_file_is_the_published_one(tmp_path):
    write_text(tmp_path / "abc", "abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt must be a folder, or absent"), atomic_folder(path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    assert path.read_text() == "mine"


def test_a_tilde_of_nobody_is_part_of_a_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert expanded("~/a.png") == Path("/home/someone/a.png")
    assert expanded("~no such user/a.png") == Path("~no such user/a.png")
