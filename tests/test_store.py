import contextlib
import datetime
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from diptych.data.facts import Facts
from diptych.search.database import DATABASE
from diptych.search.filters import Filters
from diptych.search.store import Store
from diptych.search.writing import Entry, Writer

PARIS, SYDNEY, LYON = (48.8566, 2.3522), (-33.8688, 151.2093), (45.764, 4.8357)


def entry(path: str, row: int, **facts) -> Entry:
    features = np.eye(4, dtype=np.float32)[[row]]
    return Entry(path=path, size=1, modified=2, digest=path.encode(), facts=Facts(**facts), features=features)


@pytest.fixture
def part(tmp_path) -> Path:
    with Writer(tmp_path / "index" / "part", 4) as writer:
        writer.write(
            [
                entry("a/x.jpg", 0, width=100, height=400, taken=datetime.datetime(2023, 1, 1), camera="Canon EOS"),
                entry("a/b/y.jpg", 1, width=300, height=200, taken=datetime.datetime(2023, 12, 31, 23), place=PARIS),
                entry("ab/z.jpg", 2, taken=datetime.datetime(2024, 1, 1), place=SYDNEY, camera="iPhone canonical"),
                Entry(path="bad.jpg", size=1, modified=2, fault="bad.jpg is bad"),
            ]
        )
    return tmp_path / "index" / "part"


@pytest.fixture
def store(part) -> Store:
    return Store(part, 4)


def paths(store: Store, **filters) -> list[str]:
    numbers = store.matching(Filters(**filters)).tolist()
    return sorted(path for path, _ in store.entries(numbers).values())


def test_filters_pass_what_they_say(store):
    day = datetime.date
    assert paths(store) == ["a/b/y.jpg", "a/x.jpg", "ab/z.jpg"]
    assert paths(store, folder="a") == paths(store, folder="/a/") == ["a/b/y.jpg", "a/x.jpg"]
    assert paths(store, after=day(2023, 1, 1), before=day(2024, 1, 1)) == ["a/b/y.jpg", "a/x.jpg"]
    assert paths(store, after=day(2024, 1, 1)) == ["ab/z.jpg"]
    assert paths(store, min_side=300) == ["a/b/y.jpg", "a/x.jpg"]
    assert paths(store, max_side=300, min_side=1) == ["a/b/y.jpg"]
    assert paths(store, camera="CANON") == ["a/x.jpg", "ab/z.jpg"]
    assert paths(store, camera="' OR 1 --") == []


def test_places_are_near_by_the_surface_of_the_earth(store):
    """Paris to Lyon is about 392 km, to Sydney 16,960 km."""
    assert paths(store, near=(*LYON, 385)) == []
    assert paths(store, near=(*LYON, 400)) == ["a/b/y.jpg"]
    assert paths(store, near=(*PARIS, 16_900)) == ["a/b/y.jpg"]
    assert paths(store, near=(*PARIS, 17_000)) == ["a/b/y.jpg", "ab/z.jpg"]


def test_facts_come_back_as_they_went_in(store):
    facts = store.entries([store.file_of("a/b/y.jpg")]).popitem()[1][1]
    assert facts == Facts(width=300, height=200, taken=datetime.datetime(2023, 12, 31, 23), place=PARIS)


def test_frames_of_a_video_are_rows_of_one_file(store, part):
    features = np.eye(4, dtype=np.float32)[:3]
    film = Entry(path="film.mp4", size=1, modified=2, digest=b"f", features=features, times=(5.0, 15.0, 25.0))
    with Writer(part, 4) as writer:
        writer.write([film])
    rows, times, _ = store.frames_of(store.file_of("film.mp4"))
    np.testing.assert_array_equal(rows, features)
    assert times == [5, 15, 25]
    assert store.snapshot().times.tolist()[3:] == [5, 15, 25]
    assert store.status() | {"bytes": 0} == {
        "files": 5,
        "rows": 6,
        "removed rows": 0,
        "unreadable files": 1,
        "bytes": 0,
    }


def test_a_reader_sees_the_last_transaction_and_is_told_that_there_was_one(store, part):
    before, version = store.snapshot(), store.version()
    assert store.version() == version
    with Writer(part, 4) as writer:
        writer.write([entry("new.jpg", 3)])
    assert store.version() != version
    assert (len(before.files), len(store.snapshot().files)) == (3, 4)


def test_files_that_may_be_copies_are_told_by_size_and_digest(store):
    assert store.digests({1, 7}) == {b"a/x.jpg", b"a/b/y.jpg", b"ab/z.jpg"}
    assert store.digests({7}) == store.digests(set()) == set()
    assert store.copies_of([b"a/x.jpg", b"none"]) == {b"a/x.jpg": store.file_of("a/x.jpg")}


def test_a_copy_is_the_index_of_one_moment(store, part, tmp_path):
    store.copy_to(tmp_path / "copy")
    with Writer(part, 4) as writer:
        writer.forget(["a/x.jpg"])
    copy = Store(tmp_path / "copy", 4)
    assert paths(copy) == ["a/b/y.jpg", "a/x.jpg", "ab/z.jpg"]
    np.testing.assert_array_equal(copy.snapshot().features, np.eye(4)[:3])


def test_check_names_files_and_rows_that_miss_each_other(store, part):
    with contextlib.closing(sqlite3.connect(part / DATABASE, isolation_level=None)) as db:
        db.execute("DELETE FROM files WHERE path = 'a/x.jpg'")
        db.execute("DELETE FROM rows WHERE file = (SELECT id FROM files WHERE path = 'ab/z.jpg')")
    assert store.check() == ["1 rows have no file.", "1 files have neither a row nor a fault."]


def test_check_names_a_file_of_features_that_is_cut_short(store, part):
    (features,) = part.glob("features-*.f32")
    features.write_bytes(features.read_bytes()[:-1])
    assert store.check() == ["features-0.f32 must hold 3 rows of 16 bytes, and has 47 bytes."]
