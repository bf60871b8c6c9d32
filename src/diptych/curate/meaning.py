"""Of pictures whose features are near one is kept: SemDeDup (Abbas et al. 2023, arXiv:2303.09540).

The features of a drawn sample are put into clusters by k-means. Two pictures are held against each other when they lie
in one cluster; a picture that is nearly as near to a second or third centroid lies there, too, so that most pairs
across a border are met. What is dropped and what is kept is said by the rule of `duplicates.py`; SemDeDup's own, to
keep what is farthest from the centroid, is `keep = "outermost"`.

With one cluster, up to `ROWS_OF_CLUSTER` rows, all pairs are met. Beyond, benchmarks/curate_duplicates.py measures how
many are.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.curate.duplicates import (
    check_choice,
    members_of,
    numbers,
    ranked,
    runs,
    verdicts,
    without_duplicates,
)
from diptych.errors import ConfigError
from diptych.measures.clusters import k_means, nearest_centroids
from diptych.rows.stage import Judged, Whole

ROWS_OF_CLUSTER = 4_000  # a cluster for each so many rows
ROWS_OF_BUCKET = 200_000  # that `resolve` holds at once: 200 MB of 512 numbers each
_SHARE = 16  # of so many rows one is drawn for the sample
_CLUSTERS = 3  # of one row, at most
_PIVOTS, _ROWS = 1_024, 8_192  # whose cosines are held at once: 32 MB
_ROUNDING = 1e-6  # of a cosine: two copies of one row may miss 1 by it


@dataclass(frozen=True, kw_only=True)
class SameMeaning:
    """Pictures whose features, made by `describe`, have a cosine of at least the threshold."""

    threshold: float = 0.94  # cosine; each model has its own: see the margin of different pictures in the benchmark
    clusters: int | None = None  # None is one for each `ROWS_OF_CLUSTER` rows
    margin: float = 0.05  # of cosine: a row is in a further cluster that is so near as its own but for this
    sample: int = 100_000  # most rows that the clusters are made from; one of 16 is drawn
    keep: Literal["largest", "first", "outermost"] = "largest"

    name: ClassVar[str] = "duplicates-features"

    def __post_init__(self) -> None:
        check_choice(self.name, "keep", self.keep, ("largest", "first", "outermost"))
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"{self.name}.threshold must be a cosine above 0, up to 1. Got {self.threshold}.")
        if self.margin < 0:
            raise ConfigError(f"{self.name}.margin must be at least 0. Got {self.margin}.")
        if min(self.sample, 1 if self.clusters is None else self.clusters) < 1:
            raise ConfigError(
                f"{self.name}.sample and clusters must be at least 1. Got {self.sample} and {self.clusters}."
            )

    def count(self, rows: pa.Table) -> pa.Table:
        """How many rows have features, in a row of its own, and those that are drawn by their keys."""
        there, _ = self._features(rows)
        keys = rows["key"].take(pa.array(there, pa.int64())).to_pylist()
        draws = np.array([zlib.crc32(key.encode("utf-8", "surrogatepass")) for key in keys], np.uint32)
        drawn = np.flatnonzero(draws % _SHARE == 0)
        features = rows["features"].take(pa.array(there[drawn], pa.int64()))
        return pa.table(
            {
                "rows": pa.array([len(there)] + [0] * len(drawn), pa.int64()),
                "draw": pa.array(np.concatenate([[0], draws[drawn]]), pa.uint32()),
                "key": pa.array(["", *(keys[i] for i in drawn)], pa.string()),
                "features": pa.chunked_array([pa.nulls(1, features.type), *features.chunks]),
            }
        )

    def total(self, counts: Iterable[pa.Table]) -> pa.Table:
        """The centroids: one column `centroid`, [D] float32 each."""
        rows, sample = 0, None
        for some in counts:
            rows += pc.sum(some["rows"]).as_py() or 0
            some = some.filter(pc.is_valid(some["features"])).drop_columns("rows")
            sample = some if sample is None else pa.concat_tables([sample, some])
            order = pc.sort_indices(sample, sort_keys=[("draw", "ascending"), ("key", "ascending")])
            sample = sample.take(order[: self.sample])
        features = np.empty((0, 0), np.float32) if sample is None else _unit(sample["features"])
        k = min(len(features), self.clusters or max(1, rows // ROWS_OF_CLUSTER))
        centroids = k_means(features, k) if k else features
        values = pa.array(centroids.reshape(-1), pa.float32())
        return pa.table({"centroid": pa.FixedSizeListArray.from_arrays(values, centroids.shape[1])})

    def buckets(self, rows: int) -> int:
        return max(1, -(-rows * 2 // ROWS_OF_BUCKET))

    def scatter(self, rows: pa.Table, whole: Whole, buckets: int) -> pa.Table:
        there, features = self._features(rows)
        centroids = _matrix(whole.facts["centroid"]) if whole.facts is not None else np.empty((0, 0), np.float32)
        if len(centroids):
            clusters, cosines = nearest_centroids(features, centroids, min(_CLUSTERS, len(centroids)))
        else:  # too few rows for one to be drawn
            clusters, cosines = np.zeros((len(features), 1), np.int64), np.ones((len(features), 1), np.float32)
        which, place = np.nonzero(cosines >= cosines[:, :1] - self.margin)
        cluster, row = clusters[which, place], there[which]
        columns = {
            "cluster": pa.array(cluster, pa.int64()),
            "centrality": pa.array(cosines[which, 0], pa.float32()),
            "features": rows["features"].take(pa.array(row, pa.int64())),
        }
        return members_of(rows, row, cluster % buckets, columns)

    def resolve(self, members: pa.Table, whole: Whole) -> pa.Table:  # noqa: ARG002  # as all stages take it
        ranks, order = ranked(members, self.keep)
        features = _unit(members["features"])
        best = ranks.copy()
        for cluster in runs(numbers(members["cluster"], np.int64)):
            cluster = cluster[np.argsort(ranks[cluster])]
            best[cluster] = ranks[cluster[first_near(features[cluster], self.threshold)]]
        return verdicts(members, ranks, order, best, self.keep)

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        limit = f"cosine below {self.threshold:g}"
        return without_duplicates(rows, whole, "same meaning", self.keep, limit=limit)

    def _features(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """[K] numbers of the rows that have features, and these, [K, D] float32, unit length."""
        if "features" not in rows.column_names:
            raise ConfigError(f"{self.name} needs features. Name a model for describe, and put it before.")
        there = np.flatnonzero(rows["features"].is_valid().to_numpy())
        features = _matrix(rows["features"].take(pa.array(there, pa.int64())))
        lengths = np.linalg.norm(features, axis=1)
        is_good = np.isfinite(lengths) & (lengths > 0)  # a NaN is nobody's duplicate
        return there[is_good], features[is_good] / lengths[is_good, None]


def first_near(features: np.ndarray, threshold: float) -> np.ndarray:
    """For each row the first row before it whose cosine reaches the threshold, or itself.

    Memory is bounded, and a row that has found its first is looked at no longer: a million copies of one picture take a
    million cosines.

    Args:
        features: [N, D] float32, unit length.
        threshold: cosine.

    Returns:
        [N] row numbers.
    """
    first = np.arange(len(features))
    open_ = np.arange(len(features))
    for start in range(0, len(features), _PIVOTS):
        pivots = features[start : start + _PIVOTS]
        open_ = open_[open_ > start]
        still = []
        for begin in range(0, len(open_), _ROWS):
            rows = open_[begin : begin + _ROWS]
            is_near = features[rows] @ pivots.T >= threshold - _ROUNDING
            is_near &= np.arange(start, start + len(pivots)) < rows[:, None]
            place = is_near.argmax(axis=1)
            found = is_near[np.arange(len(rows)), place]
            first[rows[found]] = start + place[found]
            still.append(rows[~found])
        open_ = np.concatenate(still) if still else open_
    return first


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """[N, D] float32 of a fixed-size list column without nulls."""
    values = pc.list_flatten(column).to_numpy()
    return values.astype(np.float32).reshape(len(column), column.type.list_size)


def _unit(column: pa.ChunkedArray) -> np.ndarray:
    features = _matrix(column)
    return features / np.linalg.norm(features, axis=1, keepdims=True)
