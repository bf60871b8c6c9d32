import contextlib
import sqlite3
import zlib

import numpy as np
import pytest

from diptych.errors import DataError
from diptych.search.database import DATABASE, Database, make_database


@pytest.fixture
def part(tmp_path):
    make_database(tmp_path / "part")
    return tmp_path / "part"


def test_what_is_no_index_is_named(tmp_path):
    with pytest.raises(DataError, match=r"must hold an index, and files\.sqlite is not there"):
        Database(tmp_path, 4)
    (tmp_path / DATABASE).write_text("no database, but long enough to look at " * 40)
    with pytest.raises(DataError, match="must be an index that can be read and written: file is not a database"):
        Database(tmp_path, 4)


def test_only_who_says_so_may_write(part):
    forget = "DELETE FROM files"
    with contextlib.closing(Database(part, 4)) as reader, contextlib.closing(Database(part, 4, writes=True)) as writer:
        with pytest.raises(DataError, match="attempt to write a readonly database"), reader.transaction("DEFERRED"):
            reader.execute(forget)
        with writer.transaction("IMMEDIATE"):
            writer.execute(forget)


def test_making_it_again_changes_nothing(part):
    with contextlib.closing(Database(part, 4, writes=True)) as writer, writer.transaction("IMMEDIATE"):
        writer.execute("UPDATE meta SET value = 'features-7.f32' WHERE key = 'features'")
    (part / "features-0.f32").unlink()
    make_database(part)
    with contextlib.closing(Database(part, 4)) as reader:
        assert reader.features() == (part / "features-7.f32", 0)
    assert list(part.glob("*.f32")) == []


def test_a_transaction_that_fails_leaves_nothing(part):
    def twice() -> None:
        with writer.transaction("IMMEDIATE"):
            for _ in range(2):
                writer.execute("INSERT INTO files (path, bytes, modified, changed) VALUES ('a.jpg', 1, 2, 3)")

    with contextlib.closing(Database(part, 4, writes=True)) as writer:
        with pytest.raises(DataError, match="UNIQUE constraint"):
            twice()
        assert writer.execute("SELECT count(*) FROM files").fetchone() == (0,)


def test_rows_are_mapped_and_a_file_that_is_too_short_or_gone_is_told(part):
    file = part / "features-0.f32"
    values = np.arange(9, dtype=np.float32)
    sums = np.array([zlib.crc32(values[:8].tobytes())])
    with contextlib.closing(Database(part, 4)) as reader:
        assert reader.mapped(file, 0, sums[:0]).shape == (0, 4)
        file.write_bytes(values.tobytes())
        np.testing.assert_array_equal(reader.mapped(file, 2, sums)[:], values[:8].reshape(2, 4))
        with pytest.raises(DataError, match=r"is shorter than its 3 rows"):
            reader.mapped(file, 3, sums)
        with pytest.raises(FileNotFoundError):
            reader.mapped(part / "features-1.f32", 1, sums)


def test_a_damaged_database_is_a_sentence(part):
    with contextlib.closing(sqlite3.connect(part / DATABASE)) as db:
        db.execute("DROP TABLE meta")
    with pytest.raises(DataError, match="no such table: meta"):
        Database(part, 4)
