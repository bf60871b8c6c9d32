"""One part of an index, written: what may be done only with the lock of the index in hand.

Features are written and flushed first, the transaction that makes them count second. A process that is killed leaves
rows behind the last one that counts; the next writer writes over them.
"""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.facts import Facts
from diptych.files import folder_lock, shown
from diptych.search.about import INDEX, IndexAbout, read_about, text_of, write_about
from diptych.search.checked import BLOCK, sums_after
from diptych.search.database import Database, make_database
from diptych.search.index_folder import open_store
from diptych.search.store import Store

_BLOCK = 64 * BLOCK  # rows that are copied at a time


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file as it goes into an index."""

    path: str  # below the library's folder
    size: int  # bytes
    modified: int  # ns
    changed: int = 0  # ns
    digest: bytes | None = None
    facts: Facts = field(default_factory=Facts)
    fault: str | None = None
    cause: str | None = None  # of the fault, short and countable
    tried: str | None = None  # by which readers, of a fault that the same ones would find again
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
            stack.callback(self._database.settle)
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
                    "UPDATE files SET path = ?, bytes = ?, modified = ?, changed = ? WHERE id = ?",
                    (text_of(entry.path), entry.size, entry.modified, entry.changed, number),
                )
            self._forget([entry.path for entry in entries])
            for entry in entries:
                count = self._insert(entry, count)
            self._set("rows", str(count))

    def touch(self, entries: Sequence[Entry]) -> None:
        """Note new times and sizes of files whose content is what it was."""
        if not entries:
            return
        with self._database.transaction("IMMEDIATE"):
            self._database.execute_many(
                "UPDATE files SET bytes = ?, modified = ?, changed = ? WHERE path = ?",
                ((entry.size, entry.modified, entry.changed, text_of(entry.path)) for entry in entries),
            )

    def note(self, key: str, value: Any) -> None:
        """Leave plain values for the next writer, who finds them by `Store.note`."""
        if self.store.note(key) != value:
            with self._database.transaction("IMMEDIATE"):
                text = json.dumps(value)
                self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note {key}", text))

    def take_as_it_is(self, blocks: Iterable[int]) -> None:
        """Damaged blocks of features, of which no row counts any more, become whole by name."""
        with self._database.transaction("IMMEDIATE"):
            file, count = self._database.features()
            for block in blocks:
                first, last = block * BLOCK, min(count, (block + 1) * BLOCK)
                assert not self._database.execute(
                    "SELECT 1 FROM rows WHERE row >= ? AND row < ?", (first, last)
                ).fetchone(), "rows that count"
                with file.open("rb") as source:
                    source.seek(4 * first * self._dimensions)
                    data = source.read(4 * (last - first) * self._dimensions)
                self._set_sums({block: zlib.crc32(data)})

    def prune(self) -> int:
        """Take out rows without a file and files without a row; how many there were."""
        with self._database.transaction("IMMEDIATE"):
            done = self._database.execute("DELETE FROM rows WHERE file NOT IN (SELECT id FROM files)").rowcount
            query = "DELETE FROM files WHERE fault IS NULL AND id NOT IN (SELECT file FROM rows)"
            return done + self._database.execute(query).rowcount

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
            old = self._database.mapped(file, count, self._database.sums())
            self._database.execute("DELETE FROM blocks")
            with new.open("wb") as copy:
                for start in range(0, len(rows), _BLOCK):  # of whole blocks that have checksums
                    kept = np.ascontiguousarray(old[rows[start : start + _BLOCK]])
                    copy.write(kept.tobytes())
                    self._set_sums(sums_after(kept, start, 0))
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

    def answer(self, about: IndexAbout) -> None:
        """From now on a part of the index answers for it; the one that did is removed.

        Args:
            about: the content of `index.json`, which names the part.
        """
        index = self._folder.parent
        before = read_about(index) if (index / INDEX).exists() else None
        write_about(index, about)
        if before is not None and before.part != about.part:
            # Who reads it still has it open.
            shutil.rmtree(index / before.part, ignore_errors=True)

    def _append(self, file: Path, count: int, rows: np.ndarray) -> None:
        assert rows.shape[1:] == (self._dimensions,), f"rows of another size: {rows.shape}"
        assert rows.dtype == np.float32, f"rows of another kind: {rows.dtype}"
        with file.open("r+b") as target:
            target.seek(4 * count * self._dimensions)  # over what a killed process left
            target.write(np.ascontiguousarray(rows).tobytes())
            target.flush()
            os.fsync(target.fileno())
        begun = self._database.execute("SELECT sum FROM blocks WHERE block = ?", (count // BLOCK,)).fetchone()
        self._set_sums(sums_after(rows, count, begun[0] if begun and count % BLOCK else 0))

    def _set_sums(self, sums: Mapping[int, int]) -> None:
        self._database.execute_many("INSERT OR REPLACE INTO blocks VALUES (?, ?)", sums.items())

    def _insert(self, entry: Entry, count: int) -> int:
        facts = entry.facts
        latitude, longitude = facts.place or (None, None)
        taken = facts.taken.isoformat(sep=" ") if facts.taken else None
        number = self._database.execute(
            "INSERT INTO files "
            "(path, bytes, modified, changed, digest, width, height, taken, camera, latitude, longitude, "
            "fault, cause, tried) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(text_of(entry.path), entry.size, entry.modified, entry.changed, entry.digest),
                *(facts.width, facts.height, taken, text_of(facts.camera), latitude, longitude),
                *(entry.fault and shown(entry.fault), entry.cause, entry.tried),
            ),
        ).lastrowid
        if entry.features is None:
            return count
        assert len(entry.features) == len(entry.times), f"{entry.path} must have a time for each of its rows"
        rows = [(count + i, number, time) for i, time in enumerate(entry.times)]
        self._database.execute_many("INSERT INTO rows (row, file, time) VALUES (?, ?, ?)", rows)
        return count + len(rows)

    def _forget(self, paths: Iterable[str]) -> None:
        for path in map(text_of, paths):
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
