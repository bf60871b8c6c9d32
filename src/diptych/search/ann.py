"""The approximate scan, for so many rows that even 8 bits of each are too much to read.

Features of CLIP models lie near a space of fewer dimensions. So a row is held as its first D / 4 principal components,
in 8 bits: a sixteenth of its float32. The rows that score best by these are scored again in float32. There is no graph
and no list to build or to keep in balance: a row that is added costs one small matrix product, one that is removed
nothing.

What is lost is measured, not bounded: docs/scale.md has recall and time beside those of a graph (usearch).
"""

import mmap
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diptych.search.index import Hits, best_of, check_query, integer_products, integer_products_are_right, plain_search

# Rows. By benchmarks/search.py the components are quicker at 100,000 already (3 ms of processor time, not 7), but as
# long as nobody waits an answer that is surely right is worth more; at a million somebody does (13 ms, not 68). The
# number between the two is a choice, not a measurement.
APPROXIMATE_FROM = 300_000
_SAMPLE = 20_000  # rows that the components are computed from
_FEWER = 4  # times fewer components than dimensions
_AGAIN = 2_000  # rows that are scored again; at least so many
_AGAIN_EACH = 20  # and so many for each that is wanted
_BLOCK = 65_536  # rows that are projected at a time
_LET_GO = 16  # searches after which the pages that were read are let go of
_CLIPPED = 0.999  # share of the components' values that 8 bits hold without clipping


class ApproximateScanner:
    """Finds most of the best rows of a matrix that may grow; used as `diptych.search.index.Scanner` is.

    The first search is a plain scan, as most processes ask once; from the second on the components help.

    Args:
        features: [N, D] float32, unit length.
    """

    def __init__(self, features: np.ndarray) -> None:
        self._features = features
        self._sketch: _Sketch | None = None
        self._searches = 0

    def extend(self, features: np.ndarray) -> None:
        """The same rows as before, and perhaps more behind them."""
        self._features = features

    def search(self, query: np.ndarray, count: int, among: np.ndarray | None = None) -> Hits:
        """Most of the best rows of one query; their scores are exact.

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
        again = max(_AGAIN, _AGAIN_EACH * count)
        few = len(self._features) <= 10 * again or (among is not None and among.mean() < 0.1)
        if self._searches == 1 or few or not integer_products_are_right():
            return plain_search(self._features, query, count, among)
        sketch = _sketched(self._features) if self._sketch is None else self._sketch
        self._sketch = _extended(sketch, self._features)
        components = torch.from_numpy(query) @ self._sketch.basis  # [D / 4]
        scale = components.abs().max().clamp(min=1e-30) / 127
        scores = integer_products(self._sketch.integers, (components / scale).round().to(torch.int8))  # [N] int32
        if among is not None:
            scores.masked_fill_(~torch.from_numpy(among), torch.iinfo(torch.int32).min)
        rows = np.sort(scores.topk(again, sorted=False).indices.numpy())
        if among is not None:
            rows = rows[among[rows]]
        hits = best_of(rows, np.asarray(self._features[rows]) @ query, count)
        if self._searches % _LET_GO == 0:
            _let_go(self._features)
        return hits


class _Sketch(NamedTuple):
    mean: Tensor  # [D]
    basis: Tensor  # [D, D / 4], principal components
    step: float  # of the 8-bit numbers
    integers: Tensor  # [N, D / 4] int8


def _let_go(features: np.ndarray) -> None:
    """Mapped pages count as this process's memory until they are let go of; they stay in the system's cache."""
    mapped = getattr(features, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _sketched(features: np.ndarray) -> _Sketch:
    """The components, from rows at equal distances; no row is projected yet."""
    _let_go(features)
    every = max(1, len(features) // _SAMPLE)
    sample = torch.from_numpy(np.array(features[::every]))
    mean = sample.mean(dim=0)
    sample -= mean
    _, vectors = torch.linalg.eigh(sample.T @ sample)  # ascending
    count = max(1, features.shape[1] // _FEWER)
    basis = vectors[:, -count:].contiguous()
    values = (sample[:4096] @ basis).abs().flatten()
    step = values.kthvalue(max(1, int(_CLIPPED * len(values)))).values.clamp(min=1e-30).item() / 127
    return _Sketch(mean, basis, step, torch.empty(0, count, dtype=torch.int8))


def _extended(sketch: _Sketch, features: np.ndarray) -> _Sketch:
    known = len(sketch.integers)
    if known == len(features):
        return sketch
    new = torch.empty(len(features), sketch.integers.shape[1], dtype=torch.int8)
    new[:known] = sketch.integers
    for start in range(known, len(features), _BLOCK):
        block = torch.from_numpy(np.array(features[start : start + _BLOCK]))
        values = ((block - sketch.mean) @ sketch.basis).div_(sketch.step).round_().clamp_(-127, 127)
        new[start : start + len(block)] = values.to(torch.int8)
        _let_go(features)
    return sketch._replace(integers=new)
