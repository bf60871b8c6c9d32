"""Nothing in an index changes unnoticed: a checksum of each block of features, and one of the database at rest.

CRC-32 by zlib: it notices every flip of up to 32 bits in a row, and at 1.5 GB/s of one core it is the quickest of those
that Python has (SHA-1 0.7, BLAKE2b 0.4). What it cannot do is keep out who wants to change an index.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from diptych.errors import DataError
from diptych.files import write_json
from diptych.search.about import command

BLOCK = 1_024  # rows that have one checksum: 2 MB of 512 dimensions, of which a single row costs a millisecond
_SEAL = "sums.json"
_CHUNK = 2**22  # bytes
_SECOND_LOOKS = 3
_WAIT = 0.05  # s


class CheckedRows(np.memmap):  # type: ignore[type-arg]
    """[N, D] float32 of a file, mapped; a block is compared with its checksum when it is first read.

    Rows come out by an index alone, as plain arrays: arithmetic on the whole would go past the check.
    """

    _sums: np.ndarray  # [B] int64
    _is_checked: np.ndarray  # [B] bool
    _file: Path

    @classmethod
    def open(cls, file: Path, count: int, dimensions: int, sums: np.ndarray, before: "CheckedRows | None" = None):
        """Map the first rows of a file.

        Args:
            file: of features.
            count: N, at least 1.
            dimensions: D.
            sums: [B] int64, of N / `BLOCK` blocks; the last may be shorter.
            before: an earlier mapping, whose checks still count where file and checksum are the same.

        Raises:
            FileNotFoundError: it was just replaced.
            DataError: it is shorter, or a checksum is missing.
        """
        if file.stat().st_size < 4 * count * dimensions or len(sums) != -(-count // BLOCK):
            raise DataError(
                f"{file} is shorter than its {count:,} rows. Mend it: {command('repair', file.parent.parent)}."
            )
        rows = cls(file, np.float32, "r", shape=(count, dimensions))
        rows._file, rows._sums, rows._is_checked = file, sums, np.zeros(len(sums), bool)
        if before is not None and before._file == file:
            both = min(len(sums), len(before._sums))
            rows._is_checked[:both] = before._is_checked[:both] & (before._sums[:both] == sums[:both])
        return rows

    def __getitem__(self, index: Any) -> Any:
        if getattr(self, "_is_checked", None) is None:  # a view of numpy's own making
            return super().__getitem__(index)
        if not self._is_checked.all():
            self._check(_blocks_of(index[0] if isinstance(index, tuple) else index, len(self)))
        return self.view(np.ndarray)[index]

    def damaged(self) -> list[int]:
        """The numbers of all blocks that are not what was written; what was checked before is checked again."""
        return [block for block, is_whole in self._compared(np.arange(len(self._sums))) if not is_whole]

    def _check(self, blocks: np.ndarray) -> None:
        for block, is_whole in self._compared(blocks[~self._is_checked[blocks]]):
            if not is_whole:
                first, last = block * BLOCK, min(len(self), (block + 1) * BLOCK) - 1
                raise DataError(
                    f"{self._file} is damaged: rows {first:,} to {last:,} are not what was written. Encode them anew: "
                    f"{command('repair', self._file.parent.parent)}."
                )
            self._is_checked[block] = True

    def _compared(self, blocks: np.ndarray) -> Iterator[tuple[int, bool]]:
        plain = self.view(np.ndarray)

        def is_whole(block: int) -> bool:
            return zlib.crc32(plain[block * BLOCK : (block + 1) * BLOCK].data) == self._sums[block]

        numbers = blocks.tolist()
        if len(numbers) < 4:
            yield from ((block, is_whole(block)) for block in numbers)
            return
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # zlib lets go of Python's lock
            yield from zip(numbers, pool.map(is_whole, numbers), strict=True)


def _blocks_of(index: Any, count: int) -> np.ndarray:
    """[M] the blocks that rows lie in."""
    if isinstance(index, slice):
        rows = range(*index.indices(count))
        if not rows:
            return np.empty(0, np.int64)
        return np.arange(min(rows[0], rows[-1]) // BLOCK, max(rows[0], rows[-1]) // BLOCK + 1)
    if isinstance(index, SupportsIndex) and not isinstance(index, np.ndarray):
        return np.array([int(index) % count // BLOCK])
    numbers = np.asarray(index)
    numbers = np.flatnonzero(numbers) if numbers.dtype == bool else numbers.astype(np.int64)
    return np.unique(numbers % count // BLOCK)


def sums_after(rows: np.ndarray, first: int, begun: int) -> dict[int, int]:
    """Checksums of the blocks that rows go to.

    Args:
        rows: [M, D] float32, that are written from row `first` on.
        first: number of the first of them.
        begun: checksum of what lies in the block of `first` before it; 0 when it begins there.

    Returns:
        Checksum by number of block.
    """
    found: dict[int, int] = {}
    start = 0
    while start < len(rows):
        block = (first + start) // BLOCK
        stop = min(len(rows), (block + 1) * BLOCK - first)
        found[block] = zlib.crc32(np.ascontiguousarray(rows[start:stop]).data, begun if start == 0 else 0)
        start = stop
    return found


def seal(file: Path, writes: int) -> None:
    """Note the checksum of a database that is at rest. Only for whoever holds the lock of the index.

    Args:
        file: the database.
        writes: how often it was written, by its own count.
    """
    noted = _noted(file)
    if not _log_of(file) and (noted is None or noted[0] != writes):  # what lies in its log will change it
        write_json(file.with_name(_SEAL), {"writes": writes, "crc32": _crc32(file)})


def is_damaged(file: Path, writes: Callable[[], int]) -> bool:
    """Whether a database at rest is not what its last writer left.

    Nothing can be said of one that is being written, or whose writer was killed: its count is not the one noted.

    Args:
        file: the database.
        writes: tells its own count of how often it was written.
    """
    for attempt in range(_SECOND_LOOKS):
        if attempt:
            time.sleep(_WAIT)  # a writer may be at it
        if not file.with_name(_SEAL).exists() or _log_of(file):
            return False
        noted = _noted(file)
        if noted is not None and (noted[0] != writes() or noted[1] == _crc32(file)):
            return False
    return True


def _noted(file: Path) -> tuple[int, int] | None:
    try:
        noted = json.loads(file.with_name(_SEAL).read_text("utf-8"))
        return int(noted["writes"]), int(noted["crc32"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _log_of(file: Path) -> int:
    """Bytes of the write-ahead log."""
    try:
        return file.with_name(f"{file.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _crc32(file: Path) -> int:
    total = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return total
