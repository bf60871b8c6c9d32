"""Which rows of features are alike: every pair is compared, block by block."""

import numpy as np
import torch

_PAIRS = 2_048  # rows whose cosines with as many others are held at once
_ROUNDING = 1e-6  # of a cosine: two copies of one row may miss 1 by it


def alike(features: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Groups of rows that a chain of pairs at or above a cosine joins.

    Args:
        features: [N, D] float32, unit length.
        threshold: of a pair.

    Returns:
        Ascending row numbers of each group of at least two, the largest group first.
    """
    rows = torch.from_numpy(np.ascontiguousarray(features))
    parents = list(range(len(rows)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for start in range(0, len(rows), _PAIRS):
        block = rows[start : start + _PAIRS]
        for other in range(start, len(rows), _PAIRS):
            scores = block @ rows[other : other + _PAIRS].T
            for a, b in (scores >= threshold - _ROUNDING).nonzero().tolist():
                first, second = sorted((root(start + a), root(other + b)))
                parents[second] = first
    groups: dict[int, list[int]] = {}
    for row in range(len(rows)):
        groups.setdefault(root(row), []).append(row)
    return [np.array(group) for group in sorted(groups.values(), key=len, reverse=True) if len(group) > 1]
