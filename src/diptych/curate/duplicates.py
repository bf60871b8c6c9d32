"""Of rows that are duplicates of each other one is kept: same pair, same bytes, same look.

One rule for all: **a row is dropped when a better one is its duplicate**, and the ledger names the best of those.
Better is, of pictures, what has more pixels; then what has the longer text, then the smaller key: never what came
first, so neither the order of sources nor the cut into parts nor the number of buckets changes what is kept.
`keep = "first"` asks for the order of the rows instead.

Looks are near, not equal, so a row may be dropped for one that is itself dropped for a still better one, which need
not be near the first. Each row that is dropped leads by such steps to one that is kept; how many steps and how far is
measured in benchmarks/curate_duplicates.py. Groups are not closed over chains: a row with no better one near it stays.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.errors import ConfigError
from diptych.measures.perceptual_hash import BITS, check_distance, near_pairs
from diptych.rows.stage import Judged, Whole

Keep = Literal["largest", "first"]

ROWS_OF_BUCKET = 2_000_000  # that `resolve` holds at once: some 200 MB
_LOW = 12  # bits of a band that tell groups apart: enough to divide, few enough to go through one by one
_BETTER = {  # columns by which rows are better, beside part and row
    "largest": {"pixels": "descending", "letters": "descending", "key": "ascending"},
    "first": {},
    "outermost": {"centrality": "ascending", "pixels": "descending", "letters": "descending", "key": "ascending"},
}


@dataclass(frozen=True, kw_only=True)
class SamePair:
    """The same address with the same text, and if asked for the same address with whatever text."""

    texts: Literal["all", "one"] = "all"  # of one address: each is a pair of its own, or the longest is kept
    keep: Keep = "largest"

    name: ClassVar[str] = "duplicates-pair"

    def __post_init__(self) -> None:
        check_choice(self.name, "texts", self.texts, ("all", "one"))
        check_choice(self.name, "keep", self.keep, ("largest", "first"))

    def buckets(self, rows: int) -> int:
        return buckets_for(rows)

    def scatter(self, rows: pa.Table, whole: Whole, buckets: int) -> pa.Table:  # noqa: ARG002  # as all stages take it
        same = rows["key"] if self.texts == "all" else pc.coalesce(rows["url"], rows["key"])
        return _scattered(rows, same, buckets)

    def resolve(self, members: pa.Table, whole: Whole) -> pa.Table:  # noqa: ARG002
        return _same(members, self.keep)

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        return without_duplicates(rows, whole, "same pair" if self.texts == "all" else "same address", self.keep)


@dataclass(frozen=True, kw_only=True)
class SameBytes:
    """Pictures whose bytes are the same, by their sha256; a row without one is nobody's duplicate."""

    keep: Keep = "largest"

    name: ClassVar[str] = "duplicates-bytes"

    def __post_init__(self) -> None:
        check_choice(self.name, "keep", self.keep, ("largest", "first"))

    def buckets(self, rows: int) -> int:
        return buckets_for(rows)

    def scatter(self, rows: pa.Table, whole: Whole, buckets: int) -> pa.Table:  # noqa: ARG002
        return _scattered(rows, rows["sha256"], buckets)

    def resolve(self, members: pa.Table, whole: Whole) -> pa.Table:  # noqa: ARG002
        return _same(members, self.keep)

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        return without_duplicates(rows, whole, "same bytes", self.keep)


@dataclass(frozen=True, kw_only=True)
class SameLook:
    """Pictures whose perceptual hashes are near, also when one is mirrored: recompressed, resized, made brighter, grey.

    All pairs within the distance are found. Where there are many buckets, a hash goes to one for each of its
    `distance + 1` bands of bits, of which two that are near share one at least.
    """

    distance: int = 4  # bits of 64 in which two hashes may differ; false alarms grow with the square of the pictures
    mirrored: bool = True  # is a mirrored picture the same
    min_detail: float = 2.0  # grey levels: what is plainer has no look of its own, and is left out
    keep: Keep = "largest"

    name: ClassVar[str] = "duplicates-look"

    def __post_init__(self) -> None:
        check_distance(self.distance)
        check_choice(self.name, "keep", self.keep, ("largest", "first"))

    def buckets(self, rows: int) -> int:
        entries = rows * (1 + self.mirrored)
        return 1 if entries <= ROWS_OF_BUCKET else buckets_for(entries * (self.distance + 1))

    def scatter(self, rows: pa.Table, whole: Whole, buckets: int) -> pa.Table:  # noqa: ARG002
        told = np.flatnonzero(numbers(rows["detail"], np.float32) >= self.min_detail)
        ways = ("look", "look_mirrored")[: 1 + self.mirrored]
        hashes = np.concatenate([numbers(pc.fill_null(rows[way], 0), np.uint64)[told] for way in ways])
        groups, which = _groups(hashes, self.distance + 1 if buckets > 1 else 0)
        row = np.tile(told, len(ways))[which]
        columns = {"group": groups, "look": hashes[which], "mirrored": which >= len(told)}
        return members_of(rows, row, groups % buckets, columns)

    def resolve(self, members: pa.Table, whole: Whole) -> pa.Table:  # noqa: ARG002
        ranks, order = ranked(members, self.keep)
        best = ranks.copy()  # a row may lie here several times, and each of them may meet others
        looks, mirrored = numbers(members["look"], np.uint64), numbers(members["mirrored"], np.bool_)
        for group in runs(numbers(members["group"], np.int64)):
            plain, flipped = group[~mirrored[group]], group[mirrored[group]]
            best[plain] = lowest_near(looks[plain], ranks[plain], looks[plain], ranks[plain], self.distance)
            if len(flipped):
                both = (looks[plain], ranks[plain]), (looks[flipped], ranks[flipped])
                best[flipped] = lowest_near(*both[1], *both[0], self.distance)
                best[plain] = np.minimum(best[plain], lowest_near(*both[0], *both[1], self.distance))
        return verdicts(members, ranks, order, best, self.keep)

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        limit = f"at least {self.distance + 1} bits apart"
        return without_duplicates(rows, whole, "same look", self.keep, limit=limit)


def lowest_near(
    hashes: np.ndarray, ranks: np.ndarray, others: np.ndarray, other_ranks: np.ndarray, distance: int
) -> np.ndarray:
    """For each hash the lowest rank among those of `others` that are within a distance, or its own if that is lower.

    Equal hashes are looked for once, so that a million copies cost no more than their sorting.

    Args:
        hashes: [N] uint64.
        ranks: [N] int64.
        others: [M] uint64.
        other_ranks: [M] int64.
        distance: bits.

    Returns:
        [N] int64.
    """
    distinct, places = np.unique(hashes, return_inverse=True)
    among, other_places = np.unique(others, return_inverse=True)
    lowest = np.full(len(among), np.iinfo(np.int64).max)
    np.minimum.at(lowest, other_places, other_ranks)
    best = np.full(len(distinct), np.iinfo(np.int64).max)
    for i, j in near_pairs(distinct, among, distance=distance):
        np.minimum.at(best, i, lowest[j])
    return np.minimum(ranks, best[places])


def verdicts(members: pa.Table, ranks: np.ndarray, order: np.ndarray, best: np.ndarray, keep: str) -> pa.Table:
    """What `without_duplicates` needs: the rows that have a better one, each once with the best of those.

    Args:
        members: M members of a bucket.
        ranks: [M], see `ranked`.
        order: [M], see `ranked`.
        best: [M] the rank of the best duplicate that each has, its own where there is none.
        keep: what is better.
    """
    lowest = np.arange(len(ranks))
    np.minimum.at(lowest, ranks, best)
    out = np.flatnonzero(lowest < np.arange(len(ranks)))
    columns = list(dict.fromkeys(["part", "row", "key", *_BETTER[keep]]))
    better = members.select(columns).take(pa.array(order[lowest[out]], pa.int64()))
    worse = members.select(["part", "row"]).take(pa.array(order[out], pa.int64()))
    names = [*worse.column_names, *(f"kept_{column}" for column in columns)]
    return pa.table([*worse.columns, *better.columns], names=names)


def without_duplicates(rows: pa.Table, whole: Whole, cause: str, keep: str, *, limit: str | None = None) -> Judged:
    """The rows of a part without those of which some bucket has a better one.

    Args:
        rows: N rows.
        whole: with the verdicts of all buckets on this part.
        cause: as the ledger calls it.
        keep: what is better.
        limit: what two that are kept have.
    """
    is_kept = np.ones(len(rows), np.bool_)
    values = np.full(len(rows), None, np.object_)
    if whole.verdicts is not None and len(whole.verdicts):
        found = whole.verdicts
        better = pa.table({name: found[f"kept_{name}"] for name in ("part", "row", *_BETTER[keep])})
        ranks, _ = ranked(better, keep)
        row = numbers(found["row"], np.int64)
        first = np.lexsort((ranks, row))  # of each row the best of what its buckets say
        first = first[np.unique(row[first], return_index=True)[1]]
        is_kept[row[first]] = False
        values[row[first]] = found["kept_key"].take(pa.array(first)).to_pylist()
    return Judged.by(rows, is_kept, cause, value=pa.array(values, pa.string()), limit=limit)


def buckets_for(entries: int) -> int:
    return max(1, -(-entries // ROWS_OF_BUCKET))


def check_choice(stage: str, option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{stage}.{option} must be {' or '.join(map(repr, allowed))}. Got {value!r}.")


def numbers(column: pa.ChunkedArray, dtype: Any) -> np.ndarray:
    return column.to_numpy().astype(dtype, copy=False)


def members_of(
    rows: pa.Table, row: np.ndarray, bucket: np.ndarray, columns: dict[str, Any], *, sized: bool = True
) -> pa.Table:
    """What goes to buckets: rows by their numbers, with what decides which of them is better.

    Args:
        rows: N rows of a part.
        row: [K] which of them.
        bucket: [K] where they go.
        columns: what the stage needs besides, each [K].
        sized: are more pixels better.
    """
    pixels = np.zeros(len(rows), np.int64)
    if sized:
        sides = (rows[name].cast(pa.int64()) for name in ("width", "height"))
        pixels = numbers(pc.fill_null(pc.multiply(*sides), 0), np.int64)
    letters = numbers(pc.utf8_length(rows["text"]), np.int64)
    return pa.table(
        {
            "bucket": pa.array(bucket, pa.int32()),
            "row": pa.array(row, pa.int32()),
            "pixels": pa.array(pixels[row], pa.int64()),
            "letters": pa.array(letters[row], pa.int64()),
            "key": rows["key"].take(pa.array(row, pa.int64())),
            **columns,
        }
    )


def _scattered(rows: pa.Table, same: pa.ChunkedArray, buckets: int) -> pa.Table:
    """Rows to the bucket of what is the same; those that have nothing go to none."""
    there = np.flatnonzero(same.is_valid().to_numpy())
    same = same.take(pa.array(there, pa.int64()))
    # Of equal texts equal numbers, in every process: Python's own hash has a seed.
    bucket = [zlib.crc32(text.encode("utf-8", "surrogatepass")) % buckets for text in same.to_pylist()]
    # What has the same address or bytes has the same pixels, whatever the source says.
    return members_of(rows, there, np.array(bucket, np.int32), {"same": same}, sized=False)


def _same(members: pa.Table, keep: str) -> pa.Table:
    """The best row of each value of `same` stands for the others."""
    ranks, order = ranked(members, keep)
    encoded = members["same"].combine_chunks().dictionary_encode()
    values = encoded.indices.to_numpy()
    best = np.full(len(encoded.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(best, values, ranks)
    return verdicts(members, ranks, order, best[values], keep)


def ranked(members: pa.Table, keep: str) -> tuple[np.ndarray, np.ndarray]:
    """Which members are better.

    Args:
        members: M of them.
        keep: what is better.

    Returns:
        [M] the place of each, the best has 0 and a row that is there twice the first of its places; [M] the order.
    """
    keys = {**_BETTER[keep], "part": "ascending", "row": "ascending"}
    order = pc.sort_indices(members, sort_keys=list(keys.items())).to_numpy().astype(np.int64)
    part, row = (numbers(members[name], np.int64)[order] for name in ("part", "row"))
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (part[1:] != part[:-1]) | (row[1:] != row[:-1])
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))
    return ranks, order


def _groups(hashes: np.ndarray, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """[K] numbers of the groups in which hashes that are near in one band meet, and [K] whose hash; 0 bands: one."""
    if not bands:
        return np.zeros(len(hashes), np.int64), np.arange(len(hashes))
    edges = [BITS * band // bands for band in range(bands + 1)]
    low = np.uint64((1 << _LOW) - 1)
    values = []
    for band, (start, end) in enumerate(itertools.pairwise(edges)):
        width = np.uint64((1 << (end - start)) - 1)
        values.append((((hashes >> np.uint64(start)) & width & low).astype(np.int64)) + (band << _LOW))
    return np.concatenate(values), np.tile(np.arange(len(hashes)), bands)


def runs(groups: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each group."""
    order = np.argsort(groups, kind="stable")
    for run in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(run):
            yield run
