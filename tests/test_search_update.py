import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.errors import ConfigError
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


def test_a_batch_holds_at_least_one(library):
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1\. Got 0"):
        library.update(batch_size=0)


def test_a_copy_whose_first_is_gone_meanwhile_is_read_again(library, monkeypatch):
    """What was known as a copy when it was read, and is none any more when its batch is written."""
    shutil.copy(library.folder / "5.png", library.folder / "copy.png")
    monkeypatch.setattr(Store, "copies_of", lambda *_: {})
    assert counts(library.update()) == (1, 0, 0, 0)
    assert_true(library)
