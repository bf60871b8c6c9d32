"""The exact index: every row is compared, yet most of them only in 8 bits.

The scan is bound by memory. So each row x is also held as 8-bit numbers with one scale: x = s y + e, where y are
integers and the length of e is known. For a query q = t p + f, likewise,

    q . x = s t (p . y) + f . (s y) + q . e,   so   |q . x - s t (p . y)| <= |f| |s y| + |q| |e|

by Cauchy and Schwarz. p . y is a sum of integers and has no rounding. Rows whose upper bound lies below the k-th best
lower bound cannot be among the k best; the others are scored in float32. So the answer is that of the float32 scan.

Products are simsimd's, which chooses the processor's instructions when it runs: numpy has none of 8-bit integers that
are vectorised, and takes twice as long in float32. Up to 64 MB they are made on the thread that asks: one core reads
memory nearly as fast as it comes, and threads of ours would get in the way of the model's.
"""

import functools
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import simsimd
from numpy.typing import ArrayLike

from diptych.data.inputs import is_tensor
from diptych.embed import Embedded
from diptych.errors import ConfigError, DataError, ShapeError
from diptych.runtime import usable_cores

_BLOCK = 16_384  # rows that are scored or made 8-bit at a time
_SPREAD = 256  # rows that are read at a time when they lie apart
_SHARE = 2**25  # bytes that a thread of its own is worth; below two of them, the thread that asks does all
_GROUP = 64  # values of which only the best is looked at first; at most so many
_WORTH = 20_000  # rows below which the float32 scan is as fast
_ROUNDING = 1e-5  # of a float32 dot product of unit vectors, and of the bounds themselves


class Hits(NamedTuple):
    """The best rows of one query, best first; a tie goes to the lower row."""

    rows: np.ndarray  # [K] int64
    scores: np.ndarray  # [K] float32, cosines


class Index:
    """Rows of features with their keys, searched exactly by cosine.

    Args:
        features: [N, D] float32, unit length, of numpy or torch; may be a memory-mapped array, of which little is then
            held in memory.
        keys: N names, each once. By default "0", "1" and so on.

    Raises:
        ShapeError: features are not [N, D] float32, or there are not N keys.
        DataError: a key comes twice.
    """

    def __init__(self, features: ArrayLike, keys: Sequence[str] | None = None) -> None:
        self.features = _checked(features)
        self.keys = tuple(map(str, range(len(self.features)))) if keys is None else tuple(keys)
        if len(self.keys) != len(self.features):
            raise ShapeError(f"there must be a key a row. Got {len(self.keys)} keys, {len(self.features)} rows.")
        _refuse_twice(self.keys)
        self._scanner = Scanner(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def add(self, keys: Sequence[str], features: ArrayLike) -> None:
        """Add rows; a key that is there already gets the new features.

        Raises:
            ShapeError: features are not [N, D] float32 of the same D, or there are not N keys.
        """
        features = _checked(features)
        if len(keys) != len(features) or (len(self) and features.shape[1] != self.features.shape[1]):
            raise ShapeError(
                f"added rows must be [N, {self.features.shape[1]}] with N keys. "
                f"Got {list(features.shape)} and {len(keys)} keys."
            )
        _refuse_twice(keys)
        self.remove(set(keys) & set(self.keys))
        self.features = np.concatenate([self.features, features]) if len(self) else features
        self.keys = (*self.keys, *keys)
        self._scanner.extend(self.features)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove rows by key.

        Raises:
            DataError: there is no such key.
        """
        gone = set(keys)
        if unknown := gone - set(self.keys):
            raise DataError(f"{min(unknown)} must be a key of the index to be removed, and is none.")
        if gone:
            kept = np.array([key not in gone for key in self.keys])
            self.features = self.features[kept]
            self.keys = tuple(key for key in self.keys if key not in gone)
            self._scanner = Scanner(self.features)

    def search(self, query: ArrayLike, count: int = 20) -> list[tuple[str, float]]:
        """The keys nearest to a query, with their cosines, best first.

        Args:
            query: [D], unit length.
            count: at most so many.
        """
        hits = self._scanner.search(_as_numpy(query).astype(np.float32), count)
        return [(self.keys[row], score) for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)]

    def save(self, path: Path) -> None:
        """Write one file, as `diptych embed` does; see `Embedded.save`."""
        Embedded(self.keys, self.features).save(path)

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read a file of `save` or of `diptych embed`.

        Raises:
            DataError: it is no such file.
        """
        try:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    return cls(file["features"], file["keys"].tolist())
            with safetensors.safe_open(path, framework="numpy") as file:
                return cls(file.get_tensor("features"), json.loads(file.metadata()["keys"]))
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise DataError(f"{path} must be a file of features, as diptych embed writes it: {error}.") from error


class Scanner:
    """Finds the best rows of a matrix that may grow. The first search is a plain scan; later ones use 8-bit rows.

    Most processes ask once. Of a mapped file no more stays in memory than what one search reads.

    Args:
        features: [N, D] float32, unit length.
    """

    def __init__(self, features: np.ndarray) -> None:
        self._features = features
        self._small: _Small | None = None
        self._searches = 0

    def extend(self, features: np.ndarray) -> None:
        """The same rows as before, and perhaps more behind them."""
        self._features = features

    def search(self, query: np.ndarray, count: int, among: np.ndarray | None = None) -> Hits:
        """The best rows of one query; as `plain_search`, only faster.

        Args:
            query: [D] float32, unit length.
            count: at most so many rows.
            among: [N] bool, which rows may answer; None is all.

        Raises:
            ConfigError: count is below 1.
            ShapeError: the query has another D.
        """
        check_query(self._features, query, count)
        self._searches += 1
        rows = None
        if self._searches > 1 and integer_products_are_right():
            rows = self._candidates(query, count, among)
        if rows is None:
            return plain_search(self._features, query, count, among)
        return best_of(rows, products(taken(self._features, rows), query), count)

    def _candidates(self, query: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray | None:
        """[M] rows, ascending, that are to be scored in float32; None when it is cheaper to score all."""
        if len(self._features) < _WORTH:
            return None
        small = self._small or _Small.empty(self._features.shape[1])
        self._small = small.extended(self._features)
        rows = self._small.candidates(query, count, among)
        return None if len(rows) > len(self._features) // 8 else rows  # many are alike, or a large count


def plain_search(features: np.ndarray, query: np.ndarray, count: int, among: np.ndarray | None = None) -> Hits:
    """Score every row in float32, block by block.

    Args:
        features: [N, D] float32.
        query: [D] float32.
        count: at most so many rows.
        among: [N] bool, which rows may answer; None is all.

    Raises:
        ConfigError: count is below 1.
        ShapeError: the query has another D.
    """
    check_query(features, query, count)
    if among is not None and among.mean() < 0.1:  # reading these alone is cheaper
        rows = np.flatnonzero(among)
        return best_of(rows, products(taken(features, rows), query), count)
    blocks = [products(block, query) for _, block in blocks_of(features)]
    scores = np.concatenate([*blocks, np.empty(0, np.float32)])  # [N]
    rows = np.arange(len(scores)) if among is None else np.flatnonzero(among)
    return best_of(rows, scores if among is None else scores[rows], count)


def blocks_of(features: np.ndarray, start: int = 0) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows from one on, block by block, with where they lie; of a mapped file one block is in memory at a time."""
    for first in range(start, len(features), _BLOCK):
        where = slice(first, min(first + _BLOCK, len(features)))
        yield where, np.asarray(features[where])
        _let_go(features)


def taken(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copies of some rows."""
    copies = np.empty((len(rows), features.shape[1]), np.float32)
    for start in range(0, len(rows), _SPREAD):
        copies[start : start + _SPREAD] = features[rows[start : start + _SPREAD]]
        _let_go(features)
    return copies


def _let_go(features: np.ndarray) -> None:
    """Mapped pages count as this process's memory until they are let go of; they stay in the system's cache.

    The system maps up to 2 MB round a row that is read: without this one search among a million rows holds them all.
    """
    mapped: mmap.mmap | None = getattr(features, "_mmap", None)
    # Of a file that may be written, what was written would be lost; one of a single block may stay.
    if (
        mapped is not None
        and hasattr(mapped, "madvise")
        and getattr(features, "mode", "") == "r"
        and len(features) > _BLOCK
    ):
        mapped.madvise(mmap.MADV_DONTNEED)


def products(rows: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Each row times one column: exact for integers as long as they stay below 2^24.

    Args:
        rows: [N, D] float32 or int8.
        column: [D] of the same type.

    Returns:
        [N] float32. A row's product does not depend on the rows beside it, so those of equal rows are equal.
    """
    threads = min(usable_cores(), rows.nbytes // _SHARE)
    if threads < 2:
        return _products(rows, column)
    with ThreadPoolExecutor(threads) as pool:  # anew each time: a pool that is kept hangs in a process that is forked
        parts = pool.map(_products, np.array_split(rows, threads), [column] * threads)
        return np.concatenate(list(parts))


def _products(rows: np.ndarray, column: np.ndarray) -> np.ndarray:
    if not len(rows):
        return np.empty(0, np.float32)
    # Not with `out=`: simsimd 6.5.16 then gives None away without counting it, and Python 3.11 dies of that in the end.
    return np.asarray(simsimd.cdist(column[None], rows, "dot", out_dtype="float32"))[0]


@functools.cache
def integer_products_are_right() -> bool:
    """Whether products of 8-bit integers come out exactly here: some processors' instructions saturate on the way."""
    extreme = np.full((64, 512), 127, np.int8)
    extreme[1::2] = -127
    column = np.full(512, -127, np.int8)
    return np.array_equal(products(extreme, column), extreme.astype(np.int64) @ column.astype(np.int64))


class _Small(NamedTuple):
    """Rows as 8-bit integers, with what bounds their error."""

    integers: np.ndarray  # [N, D] int8: y
    scales: np.ndarray  # [N] float32: s
    lengths: np.ndarray  # [N] float32: |s y|
    errors: np.ndarray  # [N] float32: |e|

    @classmethod
    def empty(cls, dimensions: int) -> "_Small":
        return cls(np.empty((0, dimensions), np.int8), *(np.empty(0, np.float32) for _ in range(3)))

    def extended(self, features: np.ndarray) -> "_Small":
        known = len(self.integers)
        if known == len(features):
            return self
        new = _Small(*(grown(part, len(features)) for part in self))
        for where, block in blocks_of(features, known):
            for start in range(0, len(block), _SPREAD):  # these and what is made of them stay in the cache
                there = slice(where.start + start, min(where.start + start + _SPREAD, where.stop))
                for part, values in zip(new, _small(block[start : start + _SPREAD]), strict=True):
                    part[there] = values
        return new

    def candidates(self, query: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray:
        """[M] rows, ascending, that hold the `count` best for certain."""
        p, scale, length, error = (part[0] for part in _small(query[None]))
        del length
        scores = products(self.integers, p)  # [N]; beyond 2^24 off by 2^-24 of itself, a trifle beside _ROUNDING
        scores *= self.scales
        scores *= scale
        bounds = self.errors * np.linalg.norm(query)  # [N]
        bounds += self.lengths * error
        bounds += _ROUNDING
        lower, upper = scores - bounds, np.add(scores, bounds, out=scores)
        if among is not None:
            lower[~among] = -np.inf
            upper[~among] = -np.inf
        worst = kth_best(lower, count) if len(lower) else -np.inf
        rows = np.flatnonzero(upper >= worst)
        return rows if among is None else rows[among[rows]]


def grown(old: np.ndarray, count: int) -> np.ndarray:
    """The same rows with room behind them, `count` in all."""
    new = np.empty((count, *old.shape[1:]), old.dtype)
    new[: len(old)] = old
    return new


def _small(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    scales = np.maximum(np.maximum(x.max(axis=1), -x.min(axis=1)), np.float32(1e-30)) / np.float32(127)  # [N]
    stored = x / scales[:, None]
    np.rint(stored, out=stored)
    integers = stored.astype(np.int8)  # [N, D]
    stored *= scales[:, None]
    return integers, scales, _lengths(stored), _lengths(np.subtract(x, stored, out=stored))


def _lengths(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("nd,nd->n", x, x))


def kth_best(values: np.ndarray, count: int) -> np.float32:
    """The `count`-th largest of [N] values, the smallest where there are fewer; NaN is the largest.

    Of many values most are passed over: `count` groups of them have a best one that is at least some number, so none
    below it is looked for.
    """
    each = min(_GROUP, len(values) // (2 * count))
    if each > 1:
        groups = len(values) // each
        bests = values[: groups * each].reshape(each, groups).max(axis=0)  # neighbours, often alike, lie apart
        at_least = np.partition(bests, groups - count)[groups - count]
        values = values[~(values < at_least)]
    place = max(0, len(values) - count)
    return np.partition(values, place)[place]


def best_of(rows: np.ndarray, scores: np.ndarray, count: int) -> Hits:
    """The best `count` of scored rows; a tie goes to the lower row."""
    if len(rows) > 4 * count:  # all that tie with the last stay in
        kept = ~(scores < kth_best(scores, count))
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:count]
    return Hits(rows[order], scores[order])


def check_query(features: np.ndarray, query: np.ndarray, count: int) -> None:
    """Refuse a count below 1 and a query of another D."""
    if count < 1:
        raise ConfigError(f"count must be at least 1. Got {count}.")
    if query.shape != features.shape[1:]:
        raise ShapeError(f"a query must be [{features.shape[1]}], as the rows of the index. Got {list(query.shape)}.")


def _checked(features: ArrayLike) -> np.ndarray:
    features = _as_numpy(features)
    if features.ndim != 2 or features.dtype != np.float32:
        raise ShapeError(f"features must be [N, D] float32. Got {list(features.shape)} {features.dtype}.")
    return features if features.flags.c_contiguous else np.ascontiguousarray(features)


def _as_numpy(values: ArrayLike) -> np.ndarray:
    if isinstance(values, np.ndarray):  # a mapped one stays what it is
        return values
    return values.numpy(force=True) if is_tensor(values) else np.asarray(values)


def _refuse_twice(keys: Sequence[str]) -> None:
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))
        raise DataError(f"each key must be given once. {twice} comes twice.")
