"""k-means on directions: features of unit length fall into clusters, each around its mean.

Deterministic: the first k rows are the first centroids, so whoever hands rows over in a drawn order has drawn them.
"""

import numpy as np

from diptych.errors import ConfigError, ShapeError

_AT_ONCE = 1 << 22  # cosines that are held at once


def k_means(features: np.ndarray, k: int, *, iterations: int = 20) -> np.ndarray:
    """Centroids after so many rounds, or when no row changes its cluster.

    A cluster that has lost all its rows takes the row that is farthest from its own centroid.
    Source: spherical k-means, Dhillon and Modha 2001, doi:10.1023/A:1007612920971.

    Args:
        features: [N, D] float32, unit length, in an order that is drawn.
        k: clusters, 1 to N.
        iterations: the most rounds.

    Returns:
        [k, D] float32, unit length.

    Raises:
        ConfigError: k is not 1 to N.
        ShapeError: features are not [N, D].
    """
    if features.ndim != 2:
        raise ShapeError(f"features must be [N, D]. Got {list(features.shape)}.")
    if not 1 <= k <= len(features):
        raise ConfigError(f"k must be 1 to the number of rows, {len(features):,}. Got {k}.")
    centroids = features[:k].astype(np.float32)
    before = np.full(len(features), -1)
    for _ in range(iterations):
        clusters, cosines = (column[:, 0] for column in nearest_centroids(features, centroids, 1))
        if np.array_equal(clusters, before):
            break
        before = clusters
        sums = np.zeros_like(centroids)
        order = np.argsort(clusters, kind="stable")
        there, starts = np.unique(clusters[order], return_index=True)
        sums[there] = np.add.reduceat(features[order], starts, axis=0)
        empty = np.setdiff1d(np.arange(k), there)
        sums[empty] = features[np.argsort(cosines, kind="stable")[: len(empty)]]
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.divide(sums, lengths, out=centroids, where=lengths > 0)
    return centroids


def nearest_centroids(features: np.ndarray, centroids: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest clusters of each row.

    Args:
        features: [N, D] float32, unit length.
        centroids: [k, D] float32, unit length.
        count: how many, at most k.

    Returns:
        [N, count] clusters, the nearest first, of equal ones the lower number; [N, count] their cosines.
    """
    step = max(1, _AT_ONCE // len(centroids))
    clusters = np.empty((len(features), count), np.int64)
    cosines = np.empty((len(features), count), np.float32)
    for start in range(0, len(features), step):
        block = features[start : start + step] @ centroids.T  # [<= step, k]
        rows = np.arange(len(block))
        for place in range(count):
            best = block.argmax(axis=1)
            clusters[start : start + step, place] = best
            cosines[start : start + step, place] = block[rows, best]
            block[rows, best] = -np.inf
    return clusters, cosines
