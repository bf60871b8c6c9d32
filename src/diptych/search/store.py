"""One part of an index, read: which files there are, their facts, and their rows of features.

A reader sees the state of the last transaction, also while one writes.
"""

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diptych.data.facts import Facts
from diptych.errors import DataError
from diptych.search.about import command, path_of, text_of
from diptych.search.checked import BLOCK, CheckedRows, seal
from diptych.search.database import DATABASE, Database
from diptych.search.filters import Filters

_SECOND_LOOK = 5  # times a reader looks again when the features it was told of were just replaced
_EARTH = 6371.0  # km
_FACTS = "path, width, height, taken, camera, latitude, longitude"


class Known(NamedTuple):
    """What is known of a file without opening it."""

    id: int
    size: int  # bytes
    modified: int  # ns
    changed: int  # ns
    has_rows: bool
    tried: str | None  # by which readers, when it has none; None where the cause may go by itself


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a reader holds: the rows that count, all of one moment."""

    features: np.ndarray  # [N, D] float32, mapped; some rows may be of no file any more
    files: np.ndarray  # [N] int64, the file of each row; -1 where there is none
    times: np.ndarray  # [N] float32, s into a video; NaN for a picture
    file: Path  # of the features


class Store:
    """What an index holds. Any number of processes may read it while one writes; SQLite refuses a change from here.

    Args:
        folder: where it lies.
        dimensions: D.

    Raises:
        DataError: there is none, or it is damaged.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self.folder = folder
        self.dimensions = dimensions
        self._database = Database(folder, dimensions)

    def close(self) -> None:
        """Let go of the index."""
        self._database.close()

    def version(self) -> int:
        """Another number when another process has written since."""
        with self._database.sentence():
            return self._database.execute("PRAGMA data_version").fetchone()[0]

    def snapshot(self) -> Snapshot:
        """The rows that count now."""
        return self.listing(of_files=False)[0]

    def listing(self, *, of_files: bool = True) -> tuple[Snapshot, dict[int, tuple[str, Facts]]]:
        """The rows that count now, and path and facts of all their files, of the same moment."""
        entries: dict[int, tuple[str, Facts]] = {}
        for _ in range(_SECOND_LOOK):
            with self._database.transaction("DEFERRED"):
                file, count = self._database.features()
                sums = self._database.sums()
                found = self._database.execute("SELECT row, file, ifnull(time, -1) FROM rows")
                rows = np.fromiter(found, [("row", np.int64), ("file", np.int64), ("time", np.float32)])
                if of_files:
                    all_files = self._database.execute(f"SELECT id, {_FACTS} FROM files WHERE fault IS NULL")
                    entries = {number: (path_of(path), _facts(facts)) for number, path, *facts in all_files}
                files = np.full(count, -1, np.int64)
                times = np.full(count, np.nan, np.float32)
                files[rows["row"]] = rows["file"]
                times[rows["row"]] = np.where(rows["time"] < 0, np.nan, rows["time"])
            with contextlib.suppress(FileNotFoundError):
                return Snapshot(self._database.mapped(file, count, sums), files, times, file), entries
        cure = command("repair", self.folder.parent)
        raise DataError(f"{self.folder} must hold the features that {DATABASE} names. Mend it: {cure}.")

    def known(self) -> dict[str, Known]:
        """Every file by its path."""
        with self._database.sentence():
            rows = self._database.execute("SELECT path, id, bytes, modified, changed, fault IS NULL, tried FROM files")
            return {path_of(path): Known(*rest) for path, *rest in rows}

    def faults(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        with self._database.sentence():
            found = self._database.execute("SELECT path, fault FROM files WHERE fault IS NOT NULL ORDER BY path")
            return {path_of(path): fault for path, fault in found}

    def causes(self) -> dict[str, int]:
        """How many files could not be read, by cause, the most first."""
        with self._database.sentence():
            query = (
                "SELECT cause, count(*) AS n FROM files WHERE fault IS NOT NULL GROUP BY cause ORDER BY n DESC, cause"
            )
            return {cause or "unreadable": count for cause, count in self._database.execute(query)}

    def note(self, key: str) -> Any:
        """What a writer noted for the next one, plain values; None when there is nothing."""
        with self._database.sentence():
            row = self._database.execute("SELECT value FROM meta WHERE key = ?", (f"note {key}",)).fetchone()
            return json.loads(row[0]) if row else None

    def entries(self, ids: Iterable[int]) -> dict[int, tuple[str, Facts]]:
        """Path and facts of files."""
        found = {}
        with self._database.sentence():
            for number in ids:
                row = self._database.execute(f"SELECT {_FACTS} FROM files WHERE id = ?", (number,)).fetchone()
                if row:
                    found[number] = (path_of(row[0]), _facts(row[1:]))
        return found

    def facts_of_all(self) -> list[tuple[Any, ...]]:
        """Rows of `Catalogue.of`, of all files that have rows of features."""
        columns = "id, path, bytes, modified, width, height, taken, camera, latitude, longitude"
        with self._database.sentence():
            found = self._database.execute(f"SELECT {columns} FROM files WHERE fault IS NULL")
            return [(number, path_of(path), *rest) for number, path, *rest in found]

    def file_of(self, path: str) -> int | None:
        """The number of a file that has rows."""
        with self._database.sentence():
            query = "SELECT id FROM files WHERE path = ? AND fault IS NULL"
            row = self._database.execute(query, (text_of(path),)).fetchone()
        return row[0] if row else None

    def paths_below(self, folder: str) -> bool:
        """Whether a file is known below a folder, named as it is stored."""
        with self._database.sentence():
            query = "SELECT 1 FROM files WHERE substr(path, 1, ?) = ? LIMIT 1"
            return self._database.execute(query, (len(folder) + 1, f"{folder}/")).fetchone() is not None

    def matching(self, filters: Filters) -> np.ndarray:
        """[M] int64, the numbers of the files that pass, ascending."""
        where, values = _where(filters)
        with self._database.sentence():
            rows = self._database.execute(f"SELECT id, latitude, longitude FROM files WHERE {where}", values).fetchall()
        if filters.near is not None:
            latitude, longitude, limit = filters.near
            rows = [row for row in rows if row[1] is not None and _distance(*row[1:], latitude, longitude) <= limit]
        return np.sort(np.array([row[0] for row in rows], np.int64))

    def status(self) -> dict[str, int]:
        """Counts, and bytes on disk."""
        with self._database.sentence():
            file, count = self._database.features()
            live, files, faults = self._database.execute(
                "SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM files), "
                "(SELECT count(*) FROM files WHERE fault IS NOT NULL)"
            ).fetchone()
            size = sum(path.stat().st_size for path in (file, self.folder / DATABASE))
        return {"files": files, "rows": live, "removed rows": count - live, "unreadable files": faults, "bytes": size}

    def copy_to(self, folder: Path) -> None:
        """Copy it as it is at one moment into a new folder."""
        folder.mkdir(parents=True)
        for _ in range(_SECOND_LOOK):
            with contextlib.closing(sqlite3.connect(folder / DATABASE)) as other, self._database.sentence():
                self._database.connection.backup(other)
                meta = dict(other.execute("SELECT key, value FROM meta"))
            left = 4 * int(meta["rows"]) * self.dimensions
            with contextlib.suppress(FileNotFoundError), (self.folder / meta["features"]).open("rb") as source:
                with (folder / meta["features"]).open("wb") as target:
                    while left and (block := source.read(min(left, 2**24))):
                        target.write(block)
                        left -= len(block)
                seal(folder / DATABASE, int(meta["writes"]))
                return
        raise DataError(f"{self.folder} changes faster than it can be copied. Wait for what updates it.")

    def broken_database(self) -> str:
        """What SQLite finds wrong with its own file; nothing when it is whole."""
        with self._database.sentence():
            found = [row[0] for row in self._database.execute("PRAGMA quick_check") if row[0] != "ok"]
        return f"{DATABASE}: {'; '.join(found)}." if found else ""

    def check(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found = list(filter(None, [self.broken_database()]))
        with self._database.sentence():
            file, count = self._database.features()
            row_size = 4 * self.dimensions
            size = file.stat().st_size if file.exists() else -1
            if size < count * row_size:
                found.append(f"{file.name} must hold {count:,} rows of {row_size:,} bytes, and has {size:,} bytes.")
                return found
            queries = {
                "rows have no file": "SELECT count(*) FROM rows WHERE file NOT IN (SELECT id FROM files)",
                "rows lie behind the end": f"SELECT count(*) FROM rows WHERE row >= {count} OR row < 0",
                "files have neither a row nor a fault": "SELECT count(*) FROM files WHERE fault IS NULL "
                "AND id NOT IN (SELECT file FROM rows)",
            }
            for what, query in queries.items():
                if number := self._database.execute(query).fetchone()[0]:
                    found.append(f"{number:,} {what}.")
        for block in self.damaged_blocks():
            first, last = block * BLOCK, min(count, (block + 1) * BLOCK) - 1
            found.append(f"rows {first:,} to {last:,} are not what was written.")
        return found

    def damaged_blocks(self) -> list[int]:
        """Numbers of the blocks of features that are not what was written."""
        features = self.snapshot().features
        return features.damaged() if isinstance(features, CheckedRows) else []

    def files_in(self, blocks: Iterable[int]) -> list[str]:
        """Paths of the files that have rows in blocks of features."""
        found: set[str] = set()
        with self._database.sentence():
            for block in blocks:
                query = "SELECT DISTINCT path FROM files JOIN rows ON file = id WHERE row >= ? AND row < ?"
                found |= {
                    path_of(path) for (path,) in self._database.execute(query, (block * BLOCK, (block + 1) * BLOCK))
                }
        return sorted(found)

    def copies_of(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        """Files with the same bytes, by digest, of those that have rows."""
        found = {}
        with self._database.sentence():
            for digest in digests:
                query = "SELECT id FROM files WHERE digest = ? AND fault IS NULL"
                if row := self._database.execute(query, (digest,)).fetchone():
                    found[digest] = row[0]
        return found

    def digest_of(self, path: str) -> bytes | None:
        """The digest of a file that has rows."""
        with self._database.sentence():
            query = "SELECT digest FROM files WHERE path = ? AND fault IS NULL"
            row = self._database.execute(query, (text_of(path),)).fetchone()
        return row[0] if row else None

    def digests_by_path(self) -> dict[str, bytes]:
        """The digest of each file that has rows."""
        with self._database.sentence():
            rows = self._database.execute("SELECT path, digest FROM files WHERE fault IS NULL AND digest IS NOT NULL")
            return {path_of(path): digest for path, digest in rows}

    def digests(self, sizes: Set[int]) -> set[bytes]:
        """Of all files that have rows and one of some sizes in bytes: another file may be a copy of these alone."""
        if not sizes:
            return set()
        with self._database.sentence():
            rows = self._database.execute("SELECT bytes, digest FROM files WHERE fault IS NULL")
            return {digest for size, digest in rows if size in sizes}

    def frames_of(self, number: int) -> tuple[np.ndarray, list[float | None], Facts]:
        """Features [R, D], seconds and facts of a file that has rows."""
        with self._database.sentence():
            file, count = self._database.features()
            found = self._database.execute(
                "SELECT row, time FROM rows WHERE file = ? ORDER BY row", (number,)
            ).fetchall()
            features = self._database.mapped(file, count, self._database.sums())
            features = np.array(features[[row for row, _ in found]])
        return features, [time for _, time in found], self.entries([number])[number][1]


def _facts(row: Sequence[Any]) -> Facts:
    width, height, taken, camera, latitude, longitude = row
    date = datetime.datetime.fromisoformat(taken) if taken else None
    place = None if latitude is None else (latitude, longitude)
    return Facts(width=width, height=height, taken=date, camera=camera, place=place)


def _where(filters: Filters) -> tuple[str, list[Any]]:
    parts, values = ["fault IS NULL"], []
    if folder := text_of(filters.folder).strip("/"):
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
