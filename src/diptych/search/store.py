"""The index on disk: files and their facts in SQLite, features in one flat file beside it.

Features are written and flushed first, the transaction that makes them count second. A process that is killed leaves
rows behind the last one that counts; the next writer writes over them. Readers see the state of the last transaction,
also while one writes. docs/formats.md describes both files.
"""

import contextlib
import datetime
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diptych.data.facts import Facts
from diptych.errors import DataError
from diptych.search.query import Filters

DATABASE = "files.sqlite"
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
_SECOND_LOOK = 5  # times a reader looks again when the features it was told of were just replaced
_EARTH = 6371.0  # km


class Known(NamedTuple):
    """What is known of a file without opening it."""

    id: int
    size: int  # bytes
    modified: int  # ns


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file as it goes into the store."""

    path: str  # below the library's folder
    size: int  # bytes
    modified: int  # ns
    digest: bytes | None = None
    facts: Facts = field(default_factory=Facts)
    fault: str | None = None
    features: np.ndarray | None = None  # [R, D] float32, a row a frame; None with a fault
    times: Sequence[float | None] = (None,)  # R of them, s into a video


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a reader holds: the rows that count, all of one moment."""

    features: np.ndarray  # [N, D] float32, mapped; some rows may be of no file any more
    files: np.ndarray  # [N] int64, the file of each row; -1 where there is none
    times: np.ndarray  # [N] float32, s into a video; NaN for a picture
    place: Path  # of the features


class Store:
    """One index on disk. Any number of processes may read it while one writes, which holds the folder's lock.

    Args:
        folder: where it lies.
        dimensions: D.

    Raises:
        DataError: there is none, or it is damaged.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self.folder = folder
        self.dimensions = dimensions
        if not (folder / DATABASE).is_file():
            raise DataError(f"{folder} must hold an index, and {DATABASE} is not there.")
        # Without write access SQLite cannot share its write-ahead log; then nobody else writes here either.
        self._writable = os.access(folder, os.W_OK) and os.access(folder / DATABASE, os.W_OK)
        options = "mode=rw" if self._writable else "mode=ro&immutable=1"
        with self._sentence():
            self._db = sqlite3.connect(
                f"{(folder / DATABASE).resolve().as_uri()}?{options}",
                uri=True,
                timeout=30,
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("SELECT value FROM meta LIMIT 1")

    @classmethod
    def create(cls, folder: Path, dimensions: int) -> "Store":
        """An empty one."""
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
                values = "INSERT INTO meta VALUES ('features', 'features-0.f32'), ('rows', '0');"
                db.executescript(f"BEGIN; {_SCHEMA} {values} COMMIT;")
        (folder / "features-0.f32").touch()
        return cls(folder, dimensions)

    def close(self) -> None:
        self._db.close()

    # Reading

    def version(self) -> int:
        """Another number when another process has written since."""
        with self._sentence():
            return self._db.execute("PRAGMA data_version").fetchone()[0]

    def snapshot(self) -> Snapshot:
        """The rows that count now."""
        for _ in range(_SECOND_LOOK):
            with self._transaction("DEFERRED"):
                place, count = self._features()
                found = self._db.execute("SELECT row, file, ifnull(time, -1) FROM rows")
                rows = np.fromiter(found, [("row", np.int64), ("file", np.int64), ("time", np.float32)])
            with contextlib.suppress(FileNotFoundError):
                features = self._mapped(place, count)
                break
        else:
            raise DataError(f"{self.folder} must hold the features that {DATABASE} names. Remove it and index again.")
        files = np.full(count, -1, np.int64)
        times = np.full(count, np.nan, np.float32)
        files[rows["row"]] = rows["file"]
        times[rows["row"]] = np.where(rows["time"] < 0, np.nan, rows["time"])
        return Snapshot(features, files, times, place)

    def known(self) -> dict[str, Known]:
        """Every file by its path."""
        with self._sentence():
            rows = self._db.execute("SELECT path, id, bytes, modified FROM files")
            return {path: Known(*rest) for path, *rest in rows}

    def faults(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        with self._sentence():
            return dict(self._db.execute("SELECT path, fault FROM files WHERE fault IS NOT NULL ORDER BY path"))

    def entries(self, ids: Iterable[int]) -> dict[int, tuple[str, Facts]]:
        """Path and facts of files."""
        found = {}
        with self._sentence():
            for number in ids:
                row = self._db.execute(
                    "SELECT path, width, height, taken, camera, latitude, longitude FROM files WHERE id = ?", (number,)
                ).fetchone()
                if row:
                    found[number] = (row[0], _facts(row[1:]))
        return found

    def file_of(self, path: str) -> int | None:
        """The number of a file that has rows."""
        with self._sentence():
            row = self._db.execute("SELECT id FROM files WHERE path = ? AND fault IS NULL", (path,)).fetchone()
        return row[0] if row else None

    def matching(self, filters: Filters) -> np.ndarray:
        """[M] int64, the numbers of the files that pass, ascending."""
        where, values = _where(filters)
        with self._sentence():
            rows = self._db.execute(f"SELECT id, latitude, longitude FROM files WHERE {where}", values).fetchall()
        if filters.near is not None:
            latitude, longitude, limit = filters.near
            rows = [row for row in rows if row[1] is not None and _distance(*row[1:], latitude, longitude) <= limit]
        return np.sort(np.array([row[0] for row in rows], np.int64))

    def status(self) -> dict[str, int]:
        """Counts, and bytes on disk."""
        with self._sentence():
            place, count = self._features()
            live, files, faults = self._db.execute(
                "SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM files), "
                "(SELECT count(*) FROM files WHERE fault IS NOT NULL)"
            ).fetchone()
        size = sum(path.stat().st_size for path in (place, self.folder / DATABASE))
        return {"files": files, "rows": live, "removed rows": count - live, "unreadable files": faults, "bytes": size}

    def copy_to(self, folder: Path) -> None:
        """Copy it as it is at one moment into a new folder."""
        folder.mkdir(parents=True)
        for _ in range(_SECOND_LOOK):
            with contextlib.closing(sqlite3.connect(folder / DATABASE)) as other, self._sentence():
                self._db.backup(other)
                meta = dict(other.execute("SELECT key, value FROM meta"))
            left = 4 * int(meta["rows"]) * self.dimensions
            with contextlib.suppress(FileNotFoundError), (self.folder / meta["features"]).open("rb") as source:
                with (folder / meta["features"]).open("wb") as target:
                    while left and (block := source.read(min(left, 2**24))):
                        target.write(block)
                        left -= len(block)
                return
        raise DataError(f"{self.folder} changes faster than it can be copied. Wait for what updates it.")

    def check(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found: list[str] = []
        with self._sentence():
            found += [f"{DATABASE}: {row[0]}." for row in self._db.execute("PRAGMA quick_check") if row[0] != "ok"]
            place, count = self._features()
            row_size = 4 * self.dimensions
            size = place.stat().st_size if place.exists() else -1
            if size < count * row_size:
                found.append(f"{place.name} must hold {count:,} rows of {row_size:,} bytes, and has {size:,} bytes.")
                return found
            queries = {
                "rows have no file": "SELECT count(*) FROM rows WHERE file NOT IN (SELECT id FROM files)",
                "rows lie behind the end": f"SELECT count(*) FROM rows WHERE row >= {count} OR row < 0",
                "files have neither a row nor a fault": "SELECT count(*) FROM files WHERE fault IS NULL "
                "AND id NOT IN (SELECT file FROM rows)",
            }
            for what, query in queries.items():
                if number := self._db.execute(query).fetchone()[0]:
                    found.append(f"{number:,} {what}.")
        snapshot = self.snapshot()
        for start in range(0, len(snapshot.features), 65_536):
            block = np.asarray(snapshot.features[start : start + 65_536])
            lengths = np.linalg.norm(block, axis=1)
            live = snapshot.files[start : start + 65_536] >= 0
            if wrong := int((live & ~(np.abs(lengths - 1) < 1e-3)).sum()):
                found.append(f"{wrong:,} rows from {start:,} on are not of unit length.")
        return found

    # Writing: only for whoever holds the folder's lock

    def write(self, entries: Sequence[Entry], moved: Mapping[int, Entry] | None = None) -> None:
        """Put files in, each in the place of what was known under its path; all of them or none.

        Args:
            entries: with features or a fault.
            moved: files that are known under another path, by their number; their rows stay.
        """
        blocks = [entry.features for entry in entries if entry.features is not None]
        with self._transaction("IMMEDIATE"):
            place, count = self._features()
            if blocks:
                self._append(place, count, np.concatenate(blocks))
            for number, entry in (moved or {}).items():
                self._forget([entry.path])
                self._db.execute(
                    "UPDATE files SET path = ?, bytes = ?, modified = ? WHERE id = ?",
                    (entry.path, entry.size, entry.modified, number),
                )
            self._forget([entry.path for entry in entries])
            for entry in entries:
                count = self._insert(entry, count)
            self._set("rows", str(count))

    def copies_of(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        """Files with the same bytes, by digest, of those that have rows."""
        found = {}
        with self._sentence():
            for digest in digests:
                query = "SELECT id FROM files WHERE digest = ? AND fault IS NULL"
                if row := self._db.execute(query, (digest,)).fetchone():
                    found[digest] = row[0]
        return found

    def digests(self, sizes: Set[int]) -> set[bytes]:
        """Of all files that have rows and one of some sizes in bytes: another file may be a copy of these alone."""
        if not sizes:
            return set()
        with self._sentence():
            rows = self._db.execute("SELECT bytes, digest FROM files WHERE fault IS NULL")
            return {digest for size, digest in rows if size in sizes}

    def frames_of(self, number: int) -> tuple[np.ndarray, list[float | None], Facts]:
        """Features [R, D], seconds and facts of a file that has rows."""
        with self._sentence():
            place, count = self._features()
            found = self._db.execute("SELECT row, time FROM rows WHERE file = ? ORDER BY row", (number,)).fetchall()
            features = np.array(self._mapped(place, count)[[row for row, _ in found]])
        return features, [time for _, time in found], self.entries([number])[number][1]

    def forget(self, paths: Iterable[str]) -> None:
        """Take files out; their rows no longer count and go at the next `compact`."""
        with self._transaction("IMMEDIATE"):
            self._forget(paths)

    def compact(self) -> int:
        """Write the rows that count anew, without the others; how many went.

        Readers of the old ones are not disturbed.
        """
        with self._transaction("IMMEDIATE"):
            place, count = self._features()
            rows = [row for (row,) in self._db.execute("SELECT row FROM rows ORDER BY row")]
            if len(rows) == count:
                return 0
            new = self.folder / f"features-{int(place.stem.split('-')[1]) + 1}.f32"
            old = self._mapped(place, count)
            with new.open("wb") as file:
                for start in range(0, len(rows), 65_536):
                    file.write(np.ascontiguousarray(old[rows[start : start + 65_536]]).tobytes())
                file.flush()
                os.fsync(file.fileno())
            # Rising numbers are given to rising rows, so that none is in the way of another.
            self._db.executemany("UPDATE rows SET row = ? WHERE row = ?", ((i, row) for i, row in enumerate(rows)))
            self._set("features", new.name)
            self._set("rows", str(len(rows)))
        for other in self.folder.glob("features-*.f32"):
            if other != new:
                other.unlink(missing_ok=True)
        with self._sentence():
            self._db.execute("VACUUM")
        return count - len(rows)

    def _features(self) -> tuple[Path, int]:
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        return self.folder / meta["features"], int(meta["rows"])

    def _mapped(self, place: Path, count: int) -> np.ndarray:
        if count == 0:
            return np.empty((0, self.dimensions), np.float32)
        if place.stat().st_size < 4 * count * self.dimensions:
            raise DataError(f"{place} is shorter than its {count:,} rows. Remove {self.folder} and index again.")
        return np.memmap(place, np.float32, "r", shape=(count, self.dimensions))

    def _append(self, place: Path, count: int, rows: np.ndarray) -> None:
        if rows.shape[1:] != (self.dimensions,) or rows.dtype != np.float32:
            raise AssertionError(f"rows of another kind: {rows.shape} {rows.dtype}")
        with place.open("r+b") as file:
            file.seek(4 * count * self.dimensions)  # over what a killed process left
            file.write(np.ascontiguousarray(rows).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _insert(self, entry: Entry, count: int) -> int:
        facts = entry.facts
        latitude, longitude = facts.place or (None, None)
        taken = facts.taken.isoformat(sep=" ") if facts.taken else None
        number = self._db.execute(
            "INSERT INTO files "
            "(path, bytes, modified, digest, width, height, taken, camera, latitude, longitude, fault) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.path, entry.size, entry.modified, entry.digest, facts.width, facts.height),
                *(taken, facts.camera, latitude, longitude, entry.fault),
            ),
        ).lastrowid
        if entry.features is None:
            return count
        rows = [(count + i, number, time) for i, time in enumerate(entry.times)]
        self._db.executemany("INSERT INTO rows (row, file, time) VALUES (?, ?, ?)", rows)
        return count + len(rows)

    def _forget(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._db.execute("DELETE FROM rows WHERE file = (SELECT id FROM files WHERE path = ?)", (path,))
            self._db.execute("DELETE FROM files WHERE path = ?", (path,))

    def _set(self, key: str, value: str) -> None:
        self._db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        with self._sentence():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (sqlite3.Error, OSError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{self.folder} must be an index that can be read and written: {cause}.") from error


def _facts(row: Sequence[Any]) -> Facts:
    width, height, taken, camera, latitude, longitude = row
    date = datetime.datetime.fromisoformat(taken) if taken else None
    place = None if latitude is None else (latitude, longitude)
    return Facts(width=width, height=height, taken=date, camera=camera, place=place)


def _where(filters: Filters) -> tuple[str, list[Any]]:
    parts, values = ["fault IS NULL"], []
    if folder := filters.folder.strip("/"):
        parts.append("substr(path, 1, ?) = ?")
        values += [len(folder) + 1, f"{folder}/"]
    if filters.after:
        parts.append("taken >= ?")
        values.append(filters.after.isoformat())
    if filters.before:
        parts.append("taken < ?")
        values.append(filters.before.isoformat())
    if filters.min_side:
        parts.append("max(width, height) >= ?")
        values.append(filters.min_side)
    if filters.max_side:
        parts.append("max(width, height) <= ?")
        values.append(filters.max_side)
    if filters.camera:
        parts.append("instr(lower(camera), ?) > 0")
        values.append(filters.camera.lower())
    return " AND ".join(parts), values


def _distance(latitude1: float, longitude1: float, latitude2: float, longitude2: float) -> float:
    """Kilometres on a sphere, by the haversine formula."""
    phi1, lambda1, phi2, lambda2 = np.radians([latitude1, longitude1, latitude2, longitude2])
    h = np.sin((phi2 - phi1) / 2) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin((lambda2 - lambda1) / 2) ** 2
    return float(2 * _EARTH * np.arcsin(np.sqrt(min(1.0, h))))
