"""The two files of one part of an index as its reader and its writer hold them: SQLite, and features in one flat file.

docs/formats.md describes both.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import DataError
from diptych.search.about import command
from diptych.search.checked import CheckedRows, is_damaged, seal

DATABASE = "files.sqlite"
_FIRST = "features-0.f32"
_PATIENCE = 1_000  # ms that a writer waits for readers at its end
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,   -- below the library's folder, "/" between its parts, by `text_of`
    bytes INTEGER NOT NULL,
    modified INTEGER NOT NULL,   -- ns since 1970
    changed INTEGER NOT NULL,    -- ns since 1970, when the system last changed the entry; 0 where that is not known
    digest BLOB,                 -- of the content; NULL when it could not be read
    width INTEGER NOT NULL DEFAULT 0,
    height INTEGER NOT NULL DEFAULT 0,
    taken TEXT,                  -- ISO 8601, local time of the camera
    camera TEXT NOT NULL DEFAULT '',
    latitude REAL,
    longitude REAL,
    fault TEXT,                  -- why it has no row; NULL when it has
    cause TEXT,                  -- the same, short and countable
    tried TEXT                   -- by which readers; NULL where the cause may go by itself
);
CREATE INDEX files_by_digest ON files (digest);
CREATE TABLE rows (row INTEGER PRIMARY KEY, file INTEGER NOT NULL, time REAL);  -- time: s into a video
CREATE INDEX rows_by_file ON rows (file);
CREATE TABLE blocks (block INTEGER PRIMARY KEY, sum INTEGER NOT NULL);  -- CRC-32 of 1,024 rows
"""


def make_database(folder: Path) -> None:
    """An empty one where there is none. Only for whoever holds the lock of the index."""
    with _sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'blocks'").fetchone():
                (folder / _FIRST).touch()
                values = f"INSERT INTO meta VALUES ('features', '{_FIRST}'), ('rows', '0'), ('writes', '0');"
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
        self._rows: CheckedRows | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        with self.sentence():
            if not (folder / DATABASE).is_file():
                raise DataError(f"{folder} must hold an index, and {DATABASE} is not there.")
            self.connection = self._connected()
            try:
                self.execute("PRAGMA synchronous=NORMAL")
                self.execute(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
                if is_damaged(folder / DATABASE, self.writes):
                    raise DataError(f"{folder / DATABASE} is damaged: it is not what was written. {self._cure()}")
                self.features()
            except BaseException:
                self.close()
                raise

    def _connected(self) -> sqlite3.Connection:
        """Without write access SQLite cannot share its write-ahead log; what lies in one is then read from a copy."""
        place, options = self._folder / DATABASE, "mode=rw"
        if not (os.access(self._folder, os.W_OK) and os.access(place, os.W_OK)):
            log = place.with_name(f"{DATABASE}-wal")
            if log.exists() and log.stat().st_size:
                self._copy = tempfile.TemporaryDirectory(prefix="diptych-")
                for file in (place, log):
                    shutil.copyfile(file, Path(self._copy.name, file.name))
                place = Path(self._copy.name, DATABASE)
            else:
                options = "mode=ro&immutable=1"
        connection = sqlite3.connect(
            f"{place.resolve().as_uri()}?{options}",
            uri=True,
            timeout=30,
            isolation_level=None,
            check_same_thread=False,
        )
        weakref.finalize(self, connection.close)  # from 3.13 on Python warns of one that is dropped open
        return connection

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def settle(self) -> None:
        """Bring all that was written into the file itself, and note its checksum; a writer's last act.

        Where a reader is in the way, the file stays without one until the next.
        """
        with self.sentence():
            self.execute(f"PRAGMA busy_timeout={_PATIENCE}")
            if self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                seal(self._folder / DATABASE, self.writes())

    def writes(self) -> int:
        """How often it was written."""
        return int(self.execute("SELECT value FROM meta WHERE key = 'writes'").fetchone()[0])

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

    def sums(self) -> np.ndarray:
        """[B] int64, checksums of the blocks of features."""
        return np.fromiter((total for (total,) in self.execute("SELECT sum FROM blocks ORDER BY block")), np.int64)

    def mapped(self, file: Path, count: int, sums: np.ndarray) -> np.ndarray:
        """[count, D] float32, the first rows of a flat file; each block is checked when it is first read.

        Raises:
            FileNotFoundError: it was just replaced.
            DataError: it is shorter.
        """
        if count == 0:
            return np.empty((0, self._dimensions), np.float32)
        self._rows = CheckedRows.open(file, count, self._dimensions, sums, self._rows)
        return self._rows

    @contextlib.contextmanager
    def transaction(self, kind: str) -> Iterator[None]:
        """All that is done within counts, or none of it. `kind` is DEFERRED to read, IMMEDIATE to write."""
        with self.sentence():
            self.execute(f"BEGIN {kind}")
            try:
                yield
                if kind == "IMMEDIATE":
                    self.execute("UPDATE meta SET value = value + 1 WHERE key = 'writes'")
                self.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk ends it by itself
                    self.execute("ROLLBACK")
                raise

    def sentence(self) -> contextlib.AbstractContextManager[None]:
        """Within, a fault is raised as a sentence for the user."""
        return _sentence(self._folder)

    def _cure(self) -> str:
        return f"Mend it: {command('repair', self._folder.parent)}."


@contextlib.contextmanager
def _sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{folder} must be an index that can be read and written: {cause}.") from error
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:  # what no writer of ours wrote
        cure = command("repair", folder.parent)
        raise DataError(f"{folder} is damaged: {type(error).__name__}, {error}. Mend it: {cure}.") from error
