import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.errors import ConfigError, DataError
from diptych.search import update
from diptych.search.library import Library
from diptych.search.store import Store
from diptych.search.update import Update
from diptych.weights.bundle import Bundle
from libraries import assert_true, draw, draw_ten
from processes import started


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    draw_ten(folder)
    return folder


@pytest.fixture
def library(pictures, tmp_path, tiny_bundle) -> Library:
    library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
    library.update()
    return library


def counts(done: Update) -> tuple[int, int, int, int]:
    return done.added, done.changed, done.moved, done.deleted


def test_an_update_notices_what_is_new_changed_moved_and_deleted(library):
    folder = library.folder
    draw(folder / "new.png", 50)
    draw(folder / "8.png", 51)
    (folder / "0").mkdir()
    (folder / "2023" / "0.png").rename(folder / "0" / "moved.png")
    (folder / "9.png").unlink()
    shutil.copy(folder / "5.png", folder / "copy.png")
    assert counts(library.update()) == (2, 1, 1, 1)
    assert_true(library)
    assert counts(library.update()) == (0, 0, 0, 0)


def test_a_moved_file_and_a_copy_are_not_encoded_again(library, monkeypatch):
    (library.folder / "5.png").rename(library.folder / "55.png")
    shutil.copy(library.folder / "6.png", library.folder / "copy.png")
    monkeypatch.setattr(Bundle, "encode_pixels", None)
    assert counts(library.update()) == (1, 0, 1, 0)


def test_two_pictures_that_change_places_keep_their_own_features(library):
    a, b, aside = (library.folder / name for name in ("5.png", "6.png", "x"))
    a.rename(aside), b.rename(a), aside.rename(b)
    os.utime(a, ns=(1, 1)), os.utime(b, ns=(2, 2))
    library.update()
    assert_true(library)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_broken_file_is_named_once_and_shifts_nothing(pictures, tmp_path, tiny_bundle, batch_size):
    for name in ("3.5.png", "2023/2.5.png"):
        (pictures / name).write_bytes(b"no picture")
    library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
    done = library.update(batch_size=batch_size)
    assert sorted(done.broken) == ["2023/2.5.png", "3.5.png"]
    assert "must be a picture" in done.broken["3.5.png"]
    assert (done.total, library.update().broken) == (10, {})
    assert sorted(library.faults()) == ["2023/2.5.png", "3.5.png"]
    assert_true(library)
    draw(pictures / "3.5.png", 77)
    assert counts(library.update()) == (0, 1, 0, 0)
    assert_true(library)


def test_progress_is_told_and_a_stop_keeps_what_is_done(pictures, tmp_path, tiny_bundle):
    library, seen = Library.open(pictures, tiny_bundle, index=tmp_path / "index"), []
    done = library.update(batch_size=3, on_progress=seen.append, should_stop=lambda: len(seen) == 2)
    assert (done.complete, done.total, len(library)) == (False, 6, 6)
    assert [(p.done, p.total) for p in seen] == [(3, 10), (6, 10)]
    assert seen[1].seconds_left == pytest.approx(seen[1].seconds * 4 / 6)
    assert counts(library.update()) == (4, 0, 0, 0)
    assert_true(library)


def test_a_stop_does_not_forget_files_that_may_only_have_moved(library, monkeypatch):
    for i in range(4, 10):
        (library.folder / f"{i}.png").rename(library.folder / f"moved{i}.png")
    assert library.update(batch_size=2, should_stop=lambda: True).deleted == 0
    monkeypatch.setattr(Bundle, "encode_pixels", None)
    assert library.update().moved == 4


KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import untrained_bundle
from diptych.search.writing import Writer
from diptych.search.library import Library
append = Writer._append
def slow(*arguments):
    append(*arguments)
    print("appended", flush=True)
    if append.count == 2:
        time.sleep(60)  # rows are written, their transaction is not: the worst moment
    append.count += 1
class Counted:
    count = 0
    def __call__(self, *arguments): return original(*arguments)
original, append = append, Counted()
Writer._append = slow
Library.open(sys.argv[2], untrained_bundle(0), index=sys.argv[3]).update(batch_size=3)
"""


def test_a_killed_update_loses_the_batch_in_hand_and_no_more(pictures, tmp_path, tiny_bundle):
    script = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(pictures), str(tmp_path / "index")]
    with started(script, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(3):
            assert process.stdout.readline() == "appended\n"
        library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
        with pytest.raises(ConfigError, match="another process works in it"):
            library.update()
        assert len(library.search("a red kite", count=99)) == 6  # a reader beside the writer
    assert library.check() == []
    assert len(library) == 6
    assert counts(library.update()) == (4, 0, 0, 0)
    assert_true(library)


def test_removed_rows_are_cleared_away_from_a_quarter_on(library, monkeypatch):
    monkeypatch.setattr(update, "_COMPACT_ROWS", 2)
    for name, removed in (("4.png", 1), ("5.png", 2), ("6.png", 0)):  # of 10 rows; more than a quarter are 3
        (library.folder / name).unlink()
        library.update()
        assert library.status()["removed rows"] == removed
    assert_true(library)


def watched(monkeypatch) -> list[str]:
    """The paths of all files that are opened from now on."""
    opened: list[str] = []
    real = update.read_file

    def read_file(folder, found, *rest, **options):
        opened.append(found.path)
        return real(folder, found, *rest, **options)

    monkeypatch.setattr(update, "read_file", read_file)
    return opened


def without_encoding(library: Library, monkeypatch, **options) -> Update:
    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "encode_pixels", None)
        return library.update(**options)


def test_an_empty_folder_costs_nothing(library, tmp_path, monkeypatch):
    """As of a disk that is not mounted for one update."""
    aside = library.folder.rename(tmp_path / "aside")
    library.folder.mkdir()
    with pytest.raises(DataError, match=r"holds no picture any more, and 10 are in its index"):
        library.update()
    assert len(library.search("a red kite", count=99)) == 10
    library.folder.rmdir()
    aside.rename(library.folder)
    assert counts(without_encoding(library, monkeypatch)) == (0, 0, 0, 0)
    assert_true(library)


def test_a_folder_that_became_empty_keeps_its_pictures_until_it_is_confirmed(library, tmp_path, monkeypatch):
    aside = (library.folder / "2023").rename(tmp_path / "aside")
    (library.folder / "2023").mkdir()
    done = library.update()
    assert (done.deleted, done.total, list(done.kept.values())) == (0, 10, [4])
    (library.folder / "2023").rmdir()
    aside.rename(library.folder / "2023")
    assert counts(without_encoding(library, monkeypatch)) == (0, 0, 0, 0)
    for path in (library.folder / "2023").iterdir():
        path.unlink()
    assert library.update(forget=True).deleted == 4
    assert_true(library)


def test_a_folder_that_vanishes_during_the_walk_keeps_its_pictures(library, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("2023"):
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        done = library.update()
    assert (done.deleted, done.kept, done.unseen) == (0, {}, 4)
    assert_true(library)


def test_a_file_that_cannot_be_opened_for_a_while_keeps_its_features_and_is_tried_again(library, monkeypatch):
    path = library.folder / "5.png"
    os.utime(path, ns=(7, 7))
    real = Path.read_bytes

    def read_bytes(self):
        if self.name == "5.png":
            raise OSError(5, "Input/output error")
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        done = library.update()
    assert list(done.broken) == ["5.png"]
    assert_true(library)
    assert counts(library.update()) == (0, 0, 0, 0)  # read, and it is what it was


def test_what_failed_for_a_cause_that_can_go_is_tried_again(pictures, tmp_path, tiny_bundle, monkeypatch):
    def refused(self):
        if self.name == "5.png":
            raise PermissionError(13, "Permission denied")
        return real(self)

    real = Path.read_bytes
    library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        assert "Permission denied" in library.update().broken["5.png"]
        assert library.update().broken == {}  # named once
    assert library.status()["causes"] == {"permission denied": 1}
    assert counts(library.update()) == (0, 1, 0, 0)
    assert_true(library)


def test_what_a_reader_refused_is_tried_again_by_other_readers_or_on_demand(library, monkeypatch):
    (library.folder / "bad.png").write_bytes(b"no picture" * 20)
    library.update()
    opened = watched(monkeypatch)
    library.update()
    assert opened == []
    library.update(retry=True)
    assert opened == ["bad.png"]
    monkeypatch.setattr(update, "readers", lambda _: "newer ones")
    library.update()
    library.update()
    assert opened == ["bad.png"] * 2
    assert library.status()["causes"] == {"not an image": 1}


def test_a_file_that_changed_with_its_size_and_time_kept_is_seen(library):
    path = library.folder / "5.png"
    facts, data = path.stat(), path.read_bytes()
    draw(path, 99)
    other = path.read_bytes()
    size = max(len(data), len(other))
    for content in (data, other):
        path.write_bytes(content.ljust(size, b"\0"))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        library.update()
    assert_true(library)


def test_new_times_of_an_old_content_cost_no_encoding_and_verify_reads_all(library, monkeypatch):
    for path in library.folder.rglob("*.png"):
        path.chmod(0o600)
        os.utime(path, ns=(9, 9))
    assert counts(without_encoding(library, monkeypatch)) == (0, 0, 0, 0)
    assert library.status()["removed rows"] == 0
    opened = watched(monkeypatch)
    library.update()
    assert opened == []
    assert counts(without_encoding(library, monkeypatch, verify=True)) == (0, 0, 0, 0)
    assert len(opened) == 10


def test_patterns_are_kept_until_others_are_given(library):
    assert library.update(exclude=["2023/"]).deleted == 4
    assert (library.update().total, library.status()["left out"]) == (6, {"2023/": 1})
    again = Library.open(library.folder, library.bundle, index=library.index_folder)
    assert again.update().total == 6
    draw(library.folder / "new.png", 50)
    again.update(batch_size=1, exclude=["[0-9].png"], should_stop=lambda: True)  # stopped, and kept all the same
    again = Library.open(library.folder, library.bundle, index=library.index_folder)
    assert again.update().total == 1
    assert again.update(exclude=[]).added == 10
    assert_true(again)


def test_a_name_that_is_no_text_is_indexed_and_found(library):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        draw(library.folder / name, 60)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert library.update().added == 1
    assert library.search(str(library.folder / name), count=1)[0].path.name == name
    assert len(library.like(name, count=99)) == 10
    assert library.search(str(library.folder / name), count=1).to_json()[0]["path"].endswith(r"/caf\xe9.png")
    (library.folder / name).rename(library.folder / "cafe.png")
    assert counts(library.update()) == (0, 0, 1, 0)


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from conftest import untrained_bundle
from diptych.errors import DataError
from diptych.search.library import Library
bundle = untrained_bundle(0)
for limit in range(0, 60_000, 4_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with Library.open(sys.argv[2], bundle, index=sys.argv[3]) as library:
            library.update(batch_size=2)
    except DataError as error:
        pass
    else:
        print("room enough")
        break
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with Library.open(sys.argv[2], bundle, index=sys.argv[3]) as library:
        library.update()
        print(library.check(), len(library))
"""


def test_a_full_disk_is_a_sentence_and_loses_nothing(pictures, tmp_path, tiny_bundle):
    script = [sys.executable, "-c", FULL, str(Path(__file__).parent), str(pictures), str(tmp_path / "index")]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip() in ("room enough", "[] 10"), done.stderr
    assert done.returncode == 0
    library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
    library.update()
    assert_true(library)


def test_a_batch_holds_at_least_one(library):
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1\. Got 0"):
        library.update(batch_size=0)


def test_a_copy_whose_first_is_gone_meanwhile_is_read_again(library, monkeypatch):
    """What was known as a copy when it was read, and is none any more when its batch is written."""
    shutil.copy(library.folder / "5.png", library.folder / "copy.png")
    monkeypatch.setattr(Store, "copies_of", lambda *_: {})
    assert counts(library.update()) == (1, 0, 0, 0)
    assert_true(library)
