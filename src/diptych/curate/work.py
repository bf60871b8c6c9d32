"""The folder of a curation under way: one folder a stage, in it one a part, which is whole or absent.

    work/03-match/
      stage.json            what the stage is, and the fingerprint of all that led to it
      rounds.json           how often rows that it dropped were tried again
      counts/000000.parquet, facts.parquet            of a stage that counts
      scatter/000000.parquet, verdicts/000.parquet    of one that groups
      parts/000000/rows.parquet, dropped.parquet, counts.json, and pictures.parquet where the stage brings pictures
      sizes.json            last: the rows kept of each part

What a stage left is the next one's input, by `PartedRows`, in the same parts or cut anew.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diptych.files import atomic_file
from diptych.rows.columns import PICTURE

PICTURES_AT_ONCE = 128  # pictures of one row group: what a stage that looks at them holds in memory


@dataclass(frozen=True, kw_only=True)
class PartedRows:
    """The rows that a stage left.

    Args:
        folder: of the stage.
        part_rows: rows of a part, where they are cut anew; 0: the parts are those of the stage.
        pictures: folder of the stage that brought the pictures; its parts are those of the rows.
    """

    folder: Path
    part_rows: int = 0
    pictures: Path | None = None

    def sizes(self) -> tuple[int, ...]:
        """Rows of each part of the stage."""
        path = sizes_file(self.folder)
        return _sizes(path, path.stat().st_mtime_ns)

    def __len__(self) -> int:
        """Parts."""
        sizes = self.sizes()
        return max(1, -(-sum(sizes) // self.part_rows)) if self.part_rows else len(sizes)

    def table(self, part: int) -> pa.Table:
        """The rows of one part."""
        if not self.part_rows:
            return read_table(part_folder(self.folder, part) / "rows.parquet")
        return pa.concat_tables(
            [read_table(part_folder(self.folder, number) / "rows.parquet").slice(first, count)
             for number, first, count in self.cuts(part)]
        )  # fmt: skip

    def cuts(self, part: int) -> list[tuple[int, int, int]]:
        """Where the rows of a part lie: (number of the stage's part, first row there, rows)."""
        if not self.part_rows:
            return [(part, 0, self.sizes()[part])]
        start, end, found, before = part * self.part_rows, (part + 1) * self.part_rows, [], 0
        for number, size in enumerate(self.sizes()):
            first, last = max(start, before), min(end, before + size)
            if first < last:
                found.append((number, first - before, last - first))
            before += size
        return found or [(0, 0, 0)]

    def with_pictures(self, part: int) -> Iterator[pa.Table]:
        """The same with the column `picture`, some at a time; in their order."""
        rows = self.table(part)
        yield from joined(rows, self.pictures or self.folder, part)


def joined(rows: pa.Table, pictures: Path, part: int) -> Iterator[pa.Table]:
    """Rows of a part with their pictures, some at a time; at least one table, which may be empty."""
    given = 0
    with pq.ParquetFile(part_folder(pictures, part) / "pictures.parquet") as file:
        for batch in file.iter_batches(PICTURES_AT_ONCE):
            place = pc.index_in(rows["key"].combine_chunks(), value_set=batch["key"])
            mine = pc.is_valid(place)
            some = rows.filter(mine)
            if len(some):
                found = batch[PICTURE].take(pc.drop_null(place))
                yield some.append_column(pa.field(PICTURE, pa.binary()), found)
                given += len(some)
    assert given == len(rows), f"{len(rows) - given} rows without their pictures"
    if not given:
        yield rows.append_column(pa.field(PICTURE, pa.binary()), pa.array([], pa.binary()))


def part_folder(folder: Path, part: int) -> Path:
    return folder / "parts" / f"{part:06}"


def count_file(folder: Path, part: int) -> Path:
    return folder / "counts" / f"{part:06}.parquet"


def scatter_file(folder: Path, part: int) -> Path:
    return folder / "scatter" / f"{part:06}.parquet"


def verdict_file(folder: Path, bucket: int) -> Path:
    return folder / "verdicts" / f"{bucket:03}.parquet"


def facts_file(folder: Path) -> Path:
    return folder / "facts.parquet"


def sizes_file(folder: Path) -> Path:
    return folder / "sizes.json"


def stage_file(folder: Path) -> Path:
    return folder / "stage.json"


def rounds_file(folder: Path) -> Path:
    return folder / "rounds.json"


def rounds(folder: Path) -> int:
    """How often rows that a stage dropped were tried again."""
    path = rounds_file(folder)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0


def mark_after(folder: Path) -> str:
    """Changes with a stage and all that led to it, and with what was tried again; what follows notes it as `before`."""
    return f"{json.loads(stage_file(folder).read_text(encoding='utf-8'))['mark']} {rounds(folder)}"


def read_table(path: Path, **where: Any) -> pa.Table:
    """A Parquet file as a table; read in this thread, as a process is one of several."""
    return pq.read_table(path, use_threads=False, memory_map=False, **where)


def write_table(table: pa.Table, path: Path, *, row_group: int = 1 << 17) -> None:
    """A table as a Parquet file, whole or not at all."""
    with atomic_file(path) as aside:
        pq.write_table(table, aside, compression="zstd", row_group_size=row_group)


@functools.lru_cache(maxsize=64)
def _sizes(path: Path, changed: int) -> tuple[int, ...]:
    del changed  # another one is another file
    return tuple(json.loads(path.read_text(encoding="utf-8")))
