"""The two files of one part of an index as its reader and its writer hold them: SQLite, and features in one flat file.

docs/formats.md describes both.
"""

import contextlib
import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import DataError

DATABASE = "files.sqlite"
_FIRST = "features-0.f32"
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,   -- below the library's folder, "/" between its parts
    bytes INTEGER NOT NULL,
    modified INTEGER NOT NULL,   -- ns since 1970
    digest BLOB,                 -- of the content; NULL when it could not be read
    width INTEGER NOT NULL DEFAULT 0,
    height INTEGER NOT NULL DEFAULT 0,
    taken TEXT,                  -- ISO 8601, local time of the camera
    camera TEXT NOT NULL DEFAULT '',
    latitude REAL,
    longitude REAL,
    fault TEXT                   -- why it has no row; NULL when it has
);
CREATE INDEX files_by_digest ON files (digest);
CREATE TABLE rows (row INTEGER PRIMARY KEY, file INTEGER NOT NULL, time REAL);  -- time: s into a video
CREATE INDEX rows_by_file ON rows (file);
"""


def make_database(folder: Path) -> None:
    """An empty one where there is none. Only for whoever holds the lock of the index."""
    folder.mkdir(parents=True, exist_ok=True)
    with _sentence(folder), contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
            (folder / _FIRST).touch()
            values = f"INSERT INTO meta VALUES ('features', '{_FIRST}'), ('rows', '0');"
            db.executescript(f"BEGIN; {_SCHEMA} {values} COMMIT;")


class Database:
    """An open connection. Faults of SQLite and of the disk become `DataError`s.

    Args:
        folder: of the part.
        dimensions: D.
        writes: without it SQLite refuses every change.

    Raises:
        DataError: there is none, or it is damaged.
    """

    def __init__(self, folder: Path, dimensions: int, *, writes: bool = False) -> None:
        self._folder = folder
        self._dimensions = dimensions
        if not (folder / DATABASE).is_file():
            raise DataError(f"{folder} must hold an index, and {DATABASE} is not there.")
        # Without write access SQLite cannot share its write-ahead log; then nobody else writes here either.
        is_writable = os.access(folder, os.W_OK) and os.access(folder / DATABASE, os.W_OK)
        options = "mode=rw" if is_writable else "mode=ro&immutable=1"
        with self.sentence():
            self.connection = sqlite3.connect(
                f"{(folder / DATABASE).resolve().as_uri()}?{options}",
                uri=True,
                timeout=30,
                isolation_level=None,
                check_same_thread=False,
            )
            weakref.finalize(self, self.connection.close)  # from 3.13 on Python warns of one that is dropped open
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.execute(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
            self.connection.execute("SELECT value FROM meta LIMIT 1")

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def execute(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement, within `sentence` or `transaction`."""
        return self.connection.execute(query, values)

    def execute_many(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for many rows."""
        self.connection.executemany(query, rows)

    def features(self) -> tuple[Path, int]:
        """The flat file of features, and how many of its rows count."""
        meta = dict(self.execute("SELECT key, value FROM meta"))
        return self._folder / meta["features"], int(meta["rows"])

    def mapped(self, file: Path, count: int) -> np.ndarray:
        """[count, D] float32, the first rows of a flat file.

        Raises:
            FileNotFoundError: it was just replaced.
            DataError: it is shorter.
        """
        if count == 0:
            return np.empty((0, self._dimensions), np.float32)
        if file.stat().st_size < 4 * count * self._dimensions:
            raise DataError(f"{file} is shorter than its {count:,} rows. Remove {self._folder} and index again.")
        return np.memmap(file, np.float32, "r", shape=(count, self._dimensions))

    @contextlib.contextmanager
    def transaction(self, kind: str) -> Iterator[None]:
        """All that is done within counts, or none of it. `kind` is DEFERRED to read, IMMEDIATE to write."""
        with self.sentence():
            self.execute(f"BEGIN {kind}")
            try:
                yield
            except BaseException:
                self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")

    def sentence(self) -> contextlib.AbstractContextManager[None]:
        """Within, a fault is raised as a sentence for the user; a file that is gone stays what it is."""
        return _sentence(self._folder)


@contextlib.contextmanager
def _sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (sqlite3.Error, OSError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{folder} must be an index that can be read and written: {cause}.") from error
