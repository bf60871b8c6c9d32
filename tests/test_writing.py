import json
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import ConfigError, DataError
from diptych.files import is_locked
from diptych.search.about import INDEX, IndexAbout
from diptych.search.store import Store
from diptych.search.writing import Entry, Writer, compact_index


def entry(path: str, row: int) -> Entry:
    return Entry(path=path, size=1, modified=2, digest=path.encode(), features=np.eye(4, dtype=np.float32)[[row]])


@pytest.fixture
def part(tmp_path) -> Path:
    with Writer(tmp_path / "index" / "part", 4) as writer:
        writer.write([entry("x.jpg", 0), entry("y.jpg", 1), entry("z.jpg", 2)])
    return tmp_path / "index" / "part"


def rows(part: Path) -> dict[str, list[list[float]]]:
    store = Store(part, 4)
    return {path: store.frames_of(known.id)[0].tolist() for path, known in store.known().items()}


def about(part: str, tmp_path: Path) -> IndexAbout:
    return IndexAbout(folder=tmp_path, fingerprint="0", model="m", dimensions=4, part=part)


def test_whoever_has_a_writer_has_the_lock_and_nobody_else_gets_one(part):
    assert not is_locked(part.parent)
    with Writer(part, 4):
        assert is_locked(part.parent)
        with pytest.raises(ConfigError, match="another process works in it"):
            Writer(part, 4)
        with pytest.raises(ConfigError, match="another process works in it"):
            Writer(part.parent / "other part", 4)  # the lock is that of the whole index
    assert not is_locked(part.parent)


def test_a_writer_that_let_go_of_the_lock_writes_nothing(part):
    with Writer(part, 4) as writer:
        pass
    for write in (lambda: writer.write([entry("new.jpg", 3)]), lambda: writer.forget(["x.jpg"]), writer.compact):
        with pytest.raises(DataError, match="closed database"):
            write()
    assert sorted(rows(part)) == ["x.jpg", "y.jpg", "z.jpg"]


def test_a_writer_that_could_not_be_made_lets_go_of_the_lock(part):
    (part / "files.sqlite").write_text("no database, but long enough to look at " * 40)
    with pytest.raises(DataError, match="file is not a database"):
        Writer(part, 4)
    assert not is_locked(part.parent)


def test_a_file_that_is_written_again_replaces_its_rows(part):
    with Writer(part, 4) as writer:
        writer.write([entry("x.jpg", 3)])
        snapshot = writer.store.snapshot()
    assert (snapshot.files >= 0).tolist() == [False, True, True, True]
    assert snapshot.features[3].tolist() == [0, 0, 0, 1]
    assert Store(part, 4).check() == []


def test_a_file_that_moved_keeps_its_rows(part):
    with Writer(part, 4) as writer:
        number = writer.store.file_of("x.jpg")
        writer.write([], {number: entry("deep/x.jpg", 3)})
    assert rows(part) == {"deep/x.jpg": [[1, 0, 0, 0]], "y.jpg": [[0, 1, 0, 0]], "z.jpg": [[0, 0, 1, 0]]}


def test_compacting_keeps_each_row_with_its_file(part):
    with Writer(part, 4) as writer:
        writer.forget(["x.jpg"])
        before = rows(part)
        assert (writer.compact(), writer.compact()) == (1, 0)
    assert rows(part) == before == {"y.jpg": [[0, 1, 0, 0]], "z.jpg": [[0, 0, 1, 0]]}
    assert len(Store(part, 4).snapshot().features) == 2
    assert [path.name for path in part.glob("*.f32")] == ["features-1.f32"]
    with Writer(part, 4):  # which makes what is absent, and nothing is
        assert [path.name for path in part.glob("*.f32")] == ["features-1.f32"]


def test_an_index_is_compacted_without_its_model(part, tmp_path):
    with Writer(part, 4) as writer:
        writer.answer(about("part", tmp_path))
        writer.forget(["x.jpg", "y.jpg"])
    assert (compact_index(tmp_path, part.parent), compact_index(tmp_path, part.parent)) == (2, 0)
    assert rows(part) == {"z.jpg": [[0, 0, 1, 0]]}


def test_a_write_that_fails_changes_nothing(part, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Writer(part, 4) as writer:
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(DataError, match="No space left"):
            writer.write([entry("new.jpg", 3)])
        monkeypatch.undo()
        assert writer.store.file_of("new.jpg") is None
        assert writer.store.check() == []
        writer.write([entry("new.jpg", 3)])
    assert rows(part)["new.jpg"] == [[0, 0, 0, 1]]


def test_the_part_that_answered_before_is_removed_and_who_reads_it_reads_on(part, tmp_path):
    with Writer(part, 4) as writer:
        writer.answer(about("part", tmp_path))
        writer.answer(about("part", tmp_path))
        assert part.is_dir()
    reader = Store(part, 4)
    with Writer(part.parent / "new", 4) as writer:
        writer.write([entry("x.jpg", 3)])
        writer.answer(about("new", tmp_path))
    assert json.loads((part.parent / INDEX).read_text())["part"] == "new"
    assert not part.exists()
    assert sorted(reader.known()) == ["x.jpg", "y.jpg", "z.jpg"]
