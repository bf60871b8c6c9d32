import datetime

import numpy as np
import pytest

from diptych.data.facts import Facts
from diptych.errors import DataError
from diptych.search.query import Filters
from diptych.search.store import DATABASE, Entry, Store

PARIS, SYDNEY, LYON = (48.8566, 2.3522), (-33.8688, 151.2093), (45.764, 4.8357)


def entry(path: str, row: int, **facts) -> Entry:
    features = np.eye(4, dtype=np.float32)[[row]]
    return Entry(path=path, size=1, modified=2, digest=path.encode(), facts=Facts(**facts), features=features)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store.create(tmp_path / "part", 4)
    store.write(
        [
            entry("a/x.jpg", 0, width=100, height=400, taken=datetime.datetime(2023, 1, 1), camera="Canon EOS"),
            entry("a/b/y.jpg", 1, width=300, height=200, taken=datetime.datetime(2023, 12, 31, 23), place=PARIS),
            entry("ab/z.jpg", 2, taken=datetime.datetime(2024, 1, 1), place=SYDNEY, camera="iPhone canonical"),
            Entry(path="bad.jpg", size=1, modified=2, fault="bad.jpg is bad"),
        ]
    )
    return store


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


def test_frames_of_a_video_are_rows_of_one_file(store):
    features = np.eye(4, dtype=np.float32)[:3]
    film = Entry(path="film.mp4", size=1, modified=2, digest=b"f", features=features, times=(5.0, 15.0, 25.0))
    store.write([film])
    number = store.file_of("film.mp4")
    rows, times, _ = store.frames_of(number)
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


def test_a_file_that_is_written_again_replaces_its_rows(store):
    store.write([entry("a/x.jpg", 3)])
    snapshot = store.snapshot()
    assert (snapshot.files >= 0).tolist() == [False, True, True, True]
    assert snapshot.features[3].tolist() == [0, 0, 0, 1]
    assert store.check() == []


def test_compacting_keeps_each_row_with_its_file(store):
    store.forget(["a/x.jpg"])
    before = {path: store.frames_of(store.file_of(path))[0].tolist() for path in ("a/b/y.jpg", "ab/z.jpg")}
    assert (store.compact(), store.compact()) == (1, 0)
    assert {path: store.frames_of(store.file_of(path))[0].tolist() for path in before} == before
    assert len(store.snapshot().features) == 2


def test_a_write_that_fails_changes_nothing(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left"):
        store.write([entry("new.jpg", 3)])
    monkeypatch.undo()
    assert store.file_of("new.jpg") is None
    assert store.check() == []
    store.write([entry("new.jpg", 3)])
    assert store.frames_of(store.file_of("new.jpg"))[0].tolist() == [[0, 0, 0, 1]]


def test_check_names_files_and_rows_that_miss_each_other(store):
    store._db.execute("DELETE FROM files WHERE path = 'a/x.jpg'")
    store._db.execute("DELETE FROM rows WHERE file = (SELECT id FROM files WHERE path = 'ab/z.jpg')")
    assert store.check() == ["1 rows have no file.", "1 files have neither a row nor a fault."]


def test_what_is_no_index_is_named(tmp_path):
    with pytest.raises(DataError, match=r"must hold an index, and files\.sqlite is not there"):
        Store(tmp_path, 4)
    (tmp_path / DATABASE).write_text("no database, but long enough to look at " * 40)
    with pytest.raises(DataError, match="must be an index that can be read and written: file is not a database"):
        Store(tmp_path, 4)
