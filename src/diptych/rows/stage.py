"""What a stage of curation is: pure functions on Arrow tables. It reads no other part, no clock, and writes nothing.

A stage looks at one part of the rows at a time and says of each row that it is kept, or dropped and why. Where it must
know something of the whole, it is one of two kinds besides, or both: a `Counting` stage adds up small facts of all
parts first; a `Grouping` stage sends rows to buckets, in each of which all rows meet that have to know each other.
Which process on which machine runs what, and in which order, changes nothing: `curate/runner.py`, `cluster.py`.

A stage is a frozen dataclass of plain options: it is pickled for every part, and a change of an option makes its
results, and those of the stages after it, be made again. What takes long to load (a model, a list of queries) is loaded
by a cached function of its file, once a process.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

DROPPED = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),  # short and countable: the rule's name, "http 404"
        ("value", pa.string()),  # what was measured: "3 words", the key that it is a duplicate of
        ("limit", pa.string()),  # what it was held against: "at least 5 words"
    ]
)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of the rows of one part: each is in one of the two."""

    kept: pa.Table  # in the order of the rows
    dropped: pa.Table  # of the schema `DROPPED`

    @classmethod
    def by(cls, rows: pa.Table, keep: Any, cause: str, *, value: Any = None, limit: str | None = None) -> Self:
        """Rows judged by one rule.

        Args:
            rows: N rows with a `key`.
            keep: [N] booleans; null counts as False.
            cause: of those that are dropped.
            value: [N] texts, what was measured of each row.
            limit: what it was held against.
        """
        keep = pc.fill_null(keep if isinstance(keep, pa.Array | pa.ChunkedArray) else pa.array(keep, pa.bool_()), False)
        out = pc.invert(keep)
        gone = rows.filter(out)
        values = pa.nulls(len(gone), pa.string()) if value is None else pc.filter(value, out)
        return cls(kept=rows.filter(keep), dropped=dropped(gone["key"], cause, values, limit))

    def then(self, rule: "CurateStage", whole: "Whole | None" = None) -> "Judged":
        """What is kept, judged by another stage; what that drops is added."""
        after = rule.apply(self.kept, whole or Whole())
        return Judged(kept=after.kept, dropped=pa.concat_tables([self.dropped, after.dropped]))


def dropped(keys: Any, cause: str, values: Any = None, limit: str | None = None) -> pa.Table:
    """Rows of the ledger: [N] keys that one cause drops, each with its value, all held against one limit."""
    count = len(keys)
    columns = [
        keys,
        pa.array([cause] * count, pa.string()),
        pa.nulls(count, pa.string()) if values is None else values,
        pa.array([limit] * count, pa.string()),
    ]
    return pa.table(columns, schema=DROPPED)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What a stage knows of the whole."""

    facts: pa.Table | None = None  # of a `Counting` stage: what `total` gave
    verdicts: pa.Table | None = None  # of a `Grouping` stage: what `resolve` gave for rows of this part, by `row`


@runtime_checkable
class CurateStage(Protocol):
    """One step. `apply` is all that most of them have."""

    name: ClassVar[str]  # of its folder; unique in a pipeline, "duplicates-look"

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        """Judge the rows of one part. May add columns to those that are kept, and must keep their order."""
        ...


@runtime_checkable
class Counting(CurateStage, Protocol):
    """A stage that must know small facts of all parts: counts, centroids."""

    def count(self, rows: pa.Table) -> pa.Table:
        """The facts of one part."""
        ...

    def total(self, counts: Iterable[pa.Table]) -> pa.Table:
        """The facts of the whole, from those of the parts, which come in their order."""
        ...


@runtime_checkable
class Grouping(CurateStage, Protocol):
    """A stage in which certain rows of all parts have to meet: duplicates."""

    def buckets(self, rows: int) -> int:
        """How many buckets, for so many rows in all. No result may depend on it."""
        ...

    def scatter(self, rows: pa.Table, whole: Whole, buckets: int) -> pa.Table:
        """What goes to which bucket.

        Returns:
            Columns `bucket` int32, from 0 to below `buckets`, and `row` int32, the number of a row in `rows`, besides
            what `resolve` needs. A row may go to several buckets, or to none.
        """
        ...

    def resolve(self, members: pa.Table, whole: Whole) -> pa.Table:
        """Decide on what lies in one bucket.

        Args:
            members: what `scatter` sent there, in the order of parts and rows, with a column `part` int32.
            whole: facts, where the stage counts as well.

        Returns:
            Columns `part` and `row`, besides what `apply` needs.
        """
        ...


@runtime_checkable
class WithPictures(CurateStage, Protocol):
    """A stage that looks at pictures. Its rows come with the column `picture`, some hundred at a time.

    Where the rows that it keeps have that column, these are the pictures from then on; else they stay as they are.
    """

    reads_pictures: ClassVar[bool]


@runtime_checkable
class Recut(CurateStage, Protocol):
    """A stage whose rows are cut anew into parts of a size, in their order."""

    part_rows: int


@runtime_checkable
class ReadsFiles(CurateStage, Protocol):
    """A stage whose options name files or folders: where one of them changes, its results are made again."""

    def files(self) -> Sequence[str]:
        """Their paths."""
        ...


@runtime_checkable
class Waits(CurateStage, Protocol):
    """A stage that waits for others more than it works.

    Threads of one process judge its parts, some at once, so that it can bound what it asks of others.
    """

    waits: ClassVar[bool]
