"""Which rows of features are alike, and which file of those that are is the best copy.

Every pair of rows is compared, block by block, yet most pairs only by a quarter of their numbers. Of rows x = B p + r,
where the columns of B are principal components of the rows and r is at a right angle to them,

    x . x' = p . p' + r . r' <= p . p' + |r| |r'|

by Cauchy and Schwarz: the product of (p, |r|) and (p', |r'|). Pairs that may reach the threshold by this are compared
in full.
"""

import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from diptych.search.index import taken
from diptych.search.results import Hit

_WIDE = 8_192  # rows that are compared with as many others as follows at once
_NARROW = 1_024
_FEWER = 4  # times fewer components than dimensions
_SAMPLE = 4_096  # rows that the components are computed from; of fewer, all pairs are compared in full
_ROUNDING = 1e-6  # of a cosine: two copies of one row may miss 1 by it
_ROUGH = 1e-4  # of a bound, whose components are not quite at right angles; more than it is off
_MANY = 32_768  # pairs of a block that are compared again one by one; beyond, all are


class _Block(NamedTuple):
    """Some rows, and the short ones that bound their cosines."""

    full: np.ndarray  # [B, D]
    short: np.ndarray | None  # [B, K + 1]: p and |r|

    @classmethod
    def of(cls, full: np.ndarray, basis: np.ndarray | None) -> "_Block":
        if basis is None:
            return cls(full, None)
        short = np.empty((len(full), basis.shape[1] + 1), np.float32)
        components = np.matmul(full, basis, out=short[:, :-1])  # [B, K]
        short[:, -1] = np.linalg.norm(full - components @ basis.T, axis=1)
        return cls(full, short)

    def first(self, count: int) -> "_Block":
        return _Block(self.full[:count], None if self.short is None else self.short[:count])


def alike(features: np.ndarray, threshold: float, rows: np.ndarray | None = None) -> list[np.ndarray]:
    """Groups of rows that a chain of pairs at or above a cosine joins.

    Memory is bounded whatever N is, and time grows with its square.

    Args:
        features: [N, D] float32, unit length; may be mapped.
        threshold: of a pair.
        rows: [M] the numbers of those that are compared, ascending; None is all.

    Returns:
        Ascending row numbers of each group of at least two, the largest group first.
    """
    rows = np.arange(len(features)) if rows is None else rows
    groups = np.arange(len(rows))  # [M], the first row of the group that each is in
    basis = _components(features, rows)
    for start in range(0, len(rows), _WIDE):
        wide = _Block.of(taken(features, rows[start : start + _WIDE]), basis)
        for other in range(start, len(rows), _NARROW):
            narrow = _Block.of(taken(features, rows[other : other + _NARROW]), basis)
            # Rows behind the narrow block meet it when their own turn comes.
            a, b = _pairs(wide.first(other + len(narrow.full) - start), narrow, threshold)
            _join(groups, start + a, other + b)
    order = np.argsort(groups, kind="stable")
    found = np.split(rows[order], np.flatnonzero(np.diff(groups[order])) + 1)
    return sorted((group for group in found if len(group) > 1), key=len, reverse=True)


def _components(features: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """[D, K] principal components of the rows; None where they would not pay."""
    count = features.shape[1] // _FEWER
    if len(rows) < _SAMPLE or not count:
        return None
    sample = taken(features, rows[:: len(rows) // _SAMPLE])
    _, vectors = np.linalg.eigh(sample.T @ sample)  # ascending
    return np.ascontiguousarray(vectors[:, -count:])


def _pairs(left: _Block, right: _Block, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """[K] and [K], rows of either side whose cosine reaches the threshold."""
    least = threshold - _ROUNDING
    if left.short is not None and right.short is not None:
        a, b = _reaching(left.short @ right.short.T, least - _ROUGH)
        if len(a) <= _MANY:
            is_alike = np.einsum("kd,kd->k", left.full[a], right.full[b]) >= least
            return a[is_alike], b[is_alike]
    return _reaching(left.full @ right.full.T, least)


def _reaching(cosines: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    return np.divmod(np.flatnonzero(cosines >= np.float32(least)), cosines.shape[1])


def _join(groups: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Put the groups of each pair together; a group is named by its first row."""
    while len(a):
        first, second = np.minimum(groups[a], groups[b]), np.maximum(groups[a], groups[b])
        is_apart = first != second
        a, b = a[is_apart], b[is_apart]
        np.minimum.at(groups, second[is_apart], first[is_apart])
        while not np.array_equal(further := groups[groups], groups):
            groups[:] = further


def best_first(hits: Sequence[Hit]) -> list[Hit]:
    """Files that are alike, the best copy first: most pixels, then most bytes, then taken first.

    Names that lead to one file, by links or as hard links, become one hit: by its own name where it has one, and the
    others in `also`. What is gone is left out.
    """
    names: dict[object, list[Hit]] = {}
    sizes: dict[object, int] = {}
    for hit in hits:
        file: object = hit.path
        try:
            facts = hit.path.stat()
        except FileNotFoundError:
            continue
        except OSError:  # on a disk that is away: still a copy
            facts = None
        if facts is not None:
            file = (facts.st_dev, facts.st_ino)
            sizes[file] = facts.st_size
        names.setdefault(file, []).append(hit)
    found = []
    for file, group in names.items():
        own, *others = sorted(group, key=lambda hit: (_is_link(hit), len(hit.path.parts), hit.path))
        found.append(replace(own, bytes=sizes.get(file, 0), also=tuple(other.path for other in others)))
    latest = datetime.datetime.max
    return sorted(found, key=lambda hit: (-hit.width * hit.height, -hit.bytes, hit.date or latest, str(hit.path)))


def _is_link(hit: Hit) -> bool:
    with contextlib.suppress(OSError):
        return hit.path.resolve() != hit.path
    return True
