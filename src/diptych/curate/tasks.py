"""Pieces of a curation, each of which any process may do: it reads what is there and writes one file or folder."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diptych.crawl.read import PairSource, Piece, read_piece
from diptych.curate.work import (
    PICTURES_AT_ONCE,
    PartedRows,
    count_file,
    facts_file,
    joined,
    part_folder,
    read_table,
    scatter_file,
    verdict_file,
    write_table,
)
from diptych.files import atomic_folder
from diptych.rows.columns import PICTURE
from diptych.rows.stage import Counting, CurateStage, Grouping, Judged, Whole, WithPictures

_GROUP = 1 << 14  # rows of a row group that is looked for by its bucket or its part


class CurateTask(Protocol):
    """A piece of work, pickled to whoever does it."""

    @property
    def out(self) -> Path:
        """What it makes; it is done when that is there."""
        ...

    def run(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ReadPart:
    """A piece of the sources becomes a part."""

    folder: Path
    part: int
    piece: Piece
    sources: tuple[PairSource, ...]

    @property
    def out(self) -> Path:
        return part_folder(self.folder, self.part)

    def run(self) -> None:
        write_part(self.out, [read_piece(self.piece, self.sources)])


@dataclass(frozen=True, kw_only=True)
class CountPart:
    """The facts of one part."""

    folder: Path
    stage: Counting
    rows: PartedRows
    part: int

    @property
    def out(self) -> Path:
        return count_file(self.folder, self.part)

    def run(self) -> None:
        counts = [self.stage.count(rows) for rows in _inputs(self.stage, self.rows, self.part)]
        write_table(pa.concat_tables(counts), self.out)


@dataclass(frozen=True, kw_only=True)
class TotalFacts:
    """The facts of the whole."""

    folder: Path
    stage: Counting
    parts: int

    @property
    def out(self) -> Path:
        return facts_file(self.folder)

    def run(self) -> None:
        write_table(self.stage.total(read_table(count_file(self.folder, part)) for part in range(self.parts)), self.out)


@dataclass(frozen=True, kw_only=True)
class ScatterPart:
    """What one part sends to the buckets."""

    folder: Path
    stage: Grouping
    rows: PartedRows
    part: int
    buckets: int

    @property
    def out(self) -> Path:
        return scatter_file(self.folder, self.part)

    def run(self) -> None:
        whole, sent, before = _whole(self.folder, self.stage), [], 0
        for rows in _inputs(self.stage, self.rows, self.part):
            table = self.stage.scatter(rows, whole, self.buckets)
            sent.append(_shifted(table, before))
            before += len(rows)
        write_table(pa.concat_tables(sent).sort_by([("bucket", "ascending"), ("row", "ascending")]), self.out,
                    row_group=_GROUP)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ResolveBucket:
    """What is decided in one bucket."""

    folder: Path
    stage: Grouping
    parts: int
    bucket: int

    @property
    def out(self) -> Path:
        return verdict_file(self.folder, self.bucket)

    def run(self) -> None:
        members = pa.concat_tables([self._members(part) for part in range(self.parts)])
        verdicts = self.stage.resolve(members, _whole(self.folder, self.stage))
        write_table(verdicts.sort_by([("part", "ascending"), ("row", "ascending")]), self.out, row_group=_GROUP)

    def _members(self, part: int) -> pa.Table:
        table = read_table(scatter_file(self.folder, part), filters=pc.field("bucket") == self.bucket)
        return table.append_column(pa.field("part", pa.int32()), pa.array([part] * len(table), pa.int32()))


@dataclass(frozen=True, kw_only=True)
class ApplyPart:
    """One part is judged."""

    folder: Path
    stage: CurateStage
    rows: PartedRows
    part: int
    buckets: int = 0

    @property
    def out(self) -> Path:
        return part_folder(self.folder, self.part)

    def run(self) -> None:
        write_part(self.out, self._judged())

    def _judged(self) -> Iterator[Judged]:
        whole, before = _whole(self.folder, self.stage), 0
        verdicts = self._verdicts() if self.buckets else None
        for rows in _inputs(self.stage, self.rows, self.part):
            mine = verdicts and _between(verdicts, before, before + len(rows))
            judged = self.stage.apply(rows, Whole(facts=whole.facts, verdicts=mine))
            assert len(judged.kept) + len(judged.dropped) == len(rows), f"{self.stage.name} loses rows"
            yield judged
            before += len(rows)

    def _verdicts(self) -> pa.Table:
        tables = [
            read_table(verdict_file(self.folder, bucket), filters=pc.field("part") == self.part)
            for bucket in range(self.buckets)
        ]
        return pa.concat_tables(tables)


@dataclass(frozen=True, kw_only=True)
class RetryPart:
    """Rows that a stage dropped for causes that may heal are judged once more, and take their places."""

    folder: Path
    stage: CurateStage
    rows: PartedRows
    part: int
    causes: tuple[str, ...]

    @property
    def out(self) -> Path:
        return part_folder(self.folder, self.part)

    def run(self) -> None:
        gone = read_table(self.out / "dropped.parquet")
        again = pc.is_in(gone["cause"], value_set=pa.array(self.causes, pa.string()))
        rows = self.rows.table(self.part)
        tried = self.stage.apply(
            rows.filter(pc.is_in(rows["key"], value_set=gone.filter(again)["key"].combine_chunks())), Whole()
        )
        before = pa.concat_tables(joined(read_table(self.out / "rows.parquet"), self.folder, self.part))
        kept = pa.concat_tables([before, tried.kept.select(before.column_names)])
        dropped = pa.concat_tables([gone.filter(pc.invert(again)), tried.dropped])
        write_part(self.out, [Judged(kept=_in_order(kept, rows["key"]), dropped=_in_order(dropped, rows["key"]))])


def has_causes(folder: Path, part: int, causes: Iterable[str]) -> bool:
    """Whether a part of a stage has dropped rows for one of the causes."""
    counts = json.loads((part_folder(folder, part) / "counts.json").read_text(encoding="utf-8"))
    return not set(causes).isdisjoint(counts["dropped"])


def write_part(out: Path, judged: Iterable[Judged]) -> None:
    """A part as a folder, whole or not at all; pictures go into a file of their own."""
    kept, gone, causes, pictures = [], [], Counter(), None
    with atomic_folder(out) as aside:
        for some in judged:
            rows = some.kept
            if PICTURE in rows.column_names:
                columns = rows.select(["key", PICTURE])
                pictures = pictures or pq.ParquetWriter(aside / "pictures.parquet", columns.schema, compression="none")
                pictures.write_table(columns, row_group_size=PICTURES_AT_ONCE)
                rows = rows.drop_columns([PICTURE])
            kept.append(rows)
            gone.append(some.dropped)
            causes.update(some.dropped["cause"].to_pylist())
        if pictures:
            pictures.close()
        rows, dropped = pa.concat_tables(kept), pa.concat_tables(gone)
        pq.write_table(rows, aside / "rows.parquet", compression="zstd")
        pq.write_table(dropped, aside / "dropped.parquet", compression="zstd")
        counts = {"read": len(rows) + len(dropped), "kept": len(rows), "dropped": dict(sorted(causes.items()))}
        (aside / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def _inputs(stage: CurateStage, rows: PartedRows, part: int) -> Iterator[pa.Table]:
    if isinstance(stage, WithPictures) and stage.reads_pictures:
        yield from rows.with_pictures(part)
    else:
        yield rows.table(part)


def _whole(folder: Path, stage: CurateStage) -> Whole:
    return Whole(facts=read_table(facts_file(folder)) if isinstance(stage, Counting) else None)


def _in_order(table: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    places = pc.index_in(table["key"], value_set=keys.combine_chunks())
    return table.take(pc.array_sort_indices(places))


def _shifted(table: pa.Table, by: int) -> pa.Table:
    number = table.schema.get_field_index("row")
    return table.set_column(number, pa.field("row", pa.int32()), pc.add(table["row"], pa.scalar(by, pa.int32())))


def _between(verdicts: pa.Table, first: int, end: int) -> pa.Table:
    mine = verdicts.filter((pc.field("row") >= first) & (pc.field("row") < end))
    return _shifted(mine, -first)
