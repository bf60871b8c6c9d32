"""The approximate scan, for so many rows that even 8 bits of each are too much to read.

Features of CLIP models lie near a space of fewer dimensions. So a row is held as its first D / 4 principal components,
in 8 bits: a sixteenth of its float32. The rows that score best by these are scored again in float32. There is no graph
and no list to build or to keep in balance: a row that is added costs one small matrix product, one that is removed
nothing.

What is lost is measured, not bounded: docs/scale.md has recall and time beside those of a graph (usearch).
"""

from typing import NamedTuple

import numpy as np

from diptych.search.index import Scanner, blocks_of, grown, kth_best, products, taken

# Rows. By benchmarks/search.py both take 3 ms at 100,000; at a million the components take 14 ms and 8 bits 23, and a
# third of the memory. As long as nobody waits, an answer that is surely right is worth more. The number is a choice,
# not a measurement.
APPROXIMATE_FROM = 300_000
_SAMPLE = 20_000  # rows that the components are computed from
_FEWER = 4  # times fewer components than dimensions
_AGAIN = 2_000  # rows that are scored again; at least so many
_AGAIN_EACH = 20  # and so many for each that is wanted
_CLIPPED = 0.999  # share of the components' values that 8 bits hold without clipping


class ApproximateScanner(Scanner):
    """Finds most of the best rows of a matrix that may grow; their scores are exact, and so is the first search.

    Args:
        features: [N, D] float32, unit length.
    """

    def __init__(self, features: np.ndarray) -> None:
        super().__init__(features)
        self._sketch: _Sketch | None = None

    def _candidates(self, query: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray | None:
        again = max(_AGAIN, _AGAIN_EACH * count)
        if len(self._features) <= 10 * again or (among is not None and among.mean() < 0.1):
            return None
        self._sketch = (self._sketch or _Sketch.of(self._features)).extended(self._features)
        return self._sketch.candidates(query, again, among)


class _Sketch(NamedTuple):
    """Rows as principal components in 8 bits."""

    mean: np.ndarray  # [D]
    basis: np.ndarray  # [D / 4, D], principal components
    step: float  # of the 8-bit numbers
    integers: np.ndarray  # [N, D / 4] int8

    @classmethod
    def of(cls, features: np.ndarray) -> "_Sketch":
        """The components, from rows at equal distances; no row is projected yet."""
        every = max(1, len(features) // _SAMPLE)
        sample = taken(features, np.arange(0, len(features), every))
        mean = sample.mean(axis=0)
        sample -= mean
        _, vectors = np.linalg.eigh(sample.T @ sample)  # ascending
        count = max(1, features.shape[1] // _FEWER)
        basis = np.ascontiguousarray(vectors[:, -count:].T)
        values = np.abs(sample[:4096] @ basis.T).ravel()
        place = max(1, int(_CLIPPED * len(values))) - 1
        step = max(float(np.partition(values, place)[place]), 1e-30) / 127
        return cls(mean, basis, step, np.empty((0, count), np.int8))

    def extended(self, features: np.ndarray) -> "_Sketch":
        known = len(self.integers)
        if known == len(features):
            return self
        new = grown(self.integers, len(features))
        for where, block in blocks_of(features, known):
            values = (block - self.mean) @ self.basis.T
            values /= np.float32(self.step)
            np.clip(np.rint(values, out=values), -127, 127, out=values)
            new[where] = values
        return self._replace(integers=new)

    def candidates(self, query: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray:
        """[M] rows, ascending: the `count` that score best by their components; a tie goes to the lower row."""
        components = products(self.basis, query)  # [D / 4]
        scale = max(float(np.abs(components).max()), 1e-30) / 127
        scores = products(self.integers, np.rint(components / scale).astype(np.int8))  # [N]
        if among is not None:
            scores[~among] = -np.inf
        worst = kth_best(scores, count)
        better = np.flatnonzero(scores > worst)
        rows = np.sort(np.append(better, np.flatnonzero(scores == worst)[: count - len(better)]))
        return rows if among is None else rows[among[rows]]
