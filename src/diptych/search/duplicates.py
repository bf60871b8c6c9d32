"""Which rows of features are alike, and which file of those that are is the best copy.

Every pair of rows is compared, block by block.

In bfloat16 where the processor is quick at it: either vector and their product are each rounded by at most 2^-9 of
themselves, so a cosine is off by 3 * 2^-9 and a trifle. Pairs that may reach the threshold by this are compared again
in float32.
"""

import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diptych.search.index import taken
from diptych.search.results import Hit
from diptych.torch_runtime import default_device, fast_dtype

_PAIRS = 2_048  # rows whose cosines with as many others are held at once
_ROUNDING = 1e-6  # of a cosine: two copies of one row may miss 1 by it
_ROUGH = 0.007  # of a cosine in bfloat16, more than 3 * 2^-9
_MANY = 32_768  # pairs of a block that are compared again one by one; beyond, all are


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
    rough = fast_dtype(default_device())

    def block_of(start: int) -> Tensor:
        return torch.from_numpy(taken(features, rows[start : start + _PAIRS]))

    for start in range(0, len(rows), _PAIRS):
        block = block_of(start)
        for other in range(start, len(rows), _PAIRS):
            a, b = _pairs(block, block if other == start else block_of(other), threshold, rough)
            _join(groups, start + a.numpy(), other + b.numpy())
    order = np.argsort(groups, kind="stable")
    found = np.split(rows[order], np.flatnonzero(np.diff(groups[order])) + 1)
    return sorted((group for group in found if len(group) > 1), key=len, reverse=True)


def _pairs(left: Tensor, right: Tensor, threshold: float, rough: torch.dtype) -> tuple[Tensor, Tensor]:
    """[K] and [K], rows of either side whose cosine reaches the threshold."""
    least = threshold - _ROUNDING
    if rough != torch.float32:
        a, b = (left.to(rough) @ right.to(rough).T >= least - _ROUGH).nonzero(as_tuple=True)
        if len(a) <= _MANY:
            is_alike = (left[a] * right[b]).sum(dim=1) >= least
            return a[is_alike], b[is_alike]
    a, b = (left @ right.T >= least).nonzero(as_tuple=True)
    return a, b


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
