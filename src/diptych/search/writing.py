"""One part of an index, written: what may be done only with the lock of the index in hand.

Features are written and flushed first, the transaction that makes them count second. A process that is killed leaves
rows behind the last one that counts; the next writer writes over them.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.facts import Facts
from diptych.files import folder_lock, write_json
from diptych.search.database import Database, make_database
from diptych.search.index_folder import INDEX, open_store, read_about
from diptych.search.store import Store

_BLOCK = 65_536  # rows that are copied at a time


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file as it goes into an index."""

    path: str  # below the library's folder
    size: int  # bytes
    modified: int  # ns
    digest: bytes | None = None
    facts: Facts = field(default_factory=Facts)
    fault: str | None = None
    features: np.ndarray | None = None  # [R, D] float32, a row a frame; None with a fault
    times: Sequence[float | None] = (None,)  # R of them, s into a video


class Writer:
    """The one who may write an index: making it takes the lock, and closing it lets go; used in a `with`.

    Args:
        folder: of the part, which is made when there is none; the lock is that of the index, one folder above.
        dimensions: D.

    Raises:
        ConfigError: another process holds the lock.
        DataError: the index is damaged, or cannot be written.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder = folder
        self._dimensions = dimensions
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_lock(folder.parent))
            make_database(folder)
            self.store = Store(folder, dimensions)  # what is there, for whoever decides what to write
            stack.callback(self.store.close)
            self._database = Database(folder, dimensions, writes=True)
            stack.callback(self._database.close)
            self._held = stack.pop_all()

    def close(self) -> None:
        """Let go of the index and of its lock; nothing can be written any more."""
        self._held.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, entries: Sequence[Entry], moved: Mapping[int, Entry] | None = None) -> None:
        """Put files in, each in the place of what was known under its path; all of them or none.

        Args:
            entries: with features or a fault.
            moved: files that are known under another path, by their number; their rows stay.

        Raises:
            DataError: the index cannot be written, e.g. as the disk is full.
        """
        blocks = [entry.features for entry in entries if entry.features is not None]
        with self._database.transaction("IMMEDIATE"):
            file, count = self._database.features()
            if blocks:
                self._append(file, count, np.concatenate(blocks))
            for number, entry in (moved or {}).items():
                self._forget([entry.path])
                self._database.execute(
                    "UPDATE files SET path = ?, bytes = ?, modified = ? WHERE id = ?",
                    (entry.path, entry.size, entry.modified, number),
                )
            self._forget([entry.path for entry in entries])
            for entry in entries:
                count = self._insert(entry, count)
            self._set("rows", str(count))

    def forget(self, paths: Iterable[str]) -> None:
        """Take files out; their rows no longer count and go at the next `compact`."""
        with self._database.transaction("IMMEDIATE"):
            self._forget(paths)

    def compact(self) -> int:
        """Write the rows that count anew, without the others; how many went.

        Readers of the old ones are not disturbed.
        """
        with self._database.transaction("IMMEDIATE"):
            file, count = self._database.features()
            rows = [row for (row,) in self._database.execute("SELECT row FROM rows ORDER BY row")]
            if len(rows) == count:
                return 0
            new = self._folder / f"features-{int(file.stem.split('-')[1]) + 1}.f32"
            old = self._database.mapped(file, count)
            with new.open("wb") as copy:
                for start in range(0, len(rows), _BLOCK):
                    copy.write(np.ascontiguousarray(old[rows[start : start + _BLOCK]]).tobytes())
                copy.flush()
                os.fsync(copy.fileno())
            # Rising numbers are given to rising rows, so that none is in the way of another.
            self._database.execute_many(
                "UPDATE rows SET row = ? WHERE row = ?", ((i, row) for i, row in enumerate(rows))
            )
            self._set("features", new.name)
            self._set("rows", str(len(rows)))
        for other in self._folder.glob("features-*.f32"):
            if other != new:
                other.unlink(missing_ok=True)
        with self._database.sentence():
            self._database.execute("VACUUM")
        return count - len(rows)

    def answer(self, about: Mapping[str, Any]) -> None:
        """From now on a part of the index answers for it; the one that did is removed.

        Args:
            about: the content of `index.json`, which names the part.
        """
        before = read_about(self._folder.parent)
        write_json(self._folder.parent / INDEX, dict(about))
        if before is not None and before["part"] != about["part"]:
            # Who reads it still has it open.
            shutil.rmtree(self._folder.parent / before["part"], ignore_errors=True)

    def _append(self, file: Path, count: int, rows: np.ndarray) -> None:
        assert rows.shape[1:] == (self._dimensions,), f"rows of another size: {rows.shape}"
        assert rows.dtype == np.float32, f"rows of another kind: {rows.dtype}"
        with file.open("r+b") as target:
            target.seek(4 * count * self._dimensions)  # over what a killed process left
            target.write(np.ascontiguousarray(rows).tobytes())
            target.flush()
            os.fsync(target.fileno())

    def _insert(self, entry: Entry, count: int) -> int:
        facts = entry.facts
        latitude, longitude = facts.place or (None, None)
        taken = facts.taken.isoformat(sep=" ") if facts.taken else None
        number = self._database.execute(
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
        assert len(entry.features) == len(entry.times), f"{entry.path} must have a time for each of its rows"
        rows = [(count + i, number, time) for i, time in enumerate(entry.times)]
        self._database.execute_many("INSERT INTO rows (row, file, time) VALUES (?, ?, ?)", rows)
        return count + len(rows)

    def _forget(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._database.execute("DELETE FROM rows WHERE file = (SELECT id FROM files WHERE path = ?)", (path,))
            self._database.execute("DELETE FROM files WHERE path = ?", (path,))

    def _set(self, key: str, value: str) -> None:
        self._database.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))


def compact_index(folder: Path, index: Path | None = None) -> int:
    """Clear rows of removed files away from the index of a folder; how many there were.

    Raises:
        ConfigError: another process works in it.
        DataError: there is no index, or it is damaged or cannot be written.
    """
    _, store = open_store(folder, index)
    with Writer(store.folder, store.dimensions) as writer:
        return writer.compact()
