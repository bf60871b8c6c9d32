"""measures/clusters.py: k-means of unit features."""

import numpy as np
import pytest

from diptych.errors import ConfigError, ShapeError
from diptych.measures import clusters as module
from diptych.measures.clusters import k_means, nearest_centroids


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def around(directions: np.ndarray, count: int, noise: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    rows = np.repeat(directions, count, axis=0)
    return draw.permutation(unit(rows + noise * draw.standard_normal(rows.shape)))


def plain_k_means(features: np.ndarray, k: int, iterations: int) -> np.ndarray:
    """The plain twin, where no cluster runs empty."""
    centroids = [row.astype(np.float64) for row in features[:k]]
    for _ in range(iterations):
        own: list[list[np.ndarray]] = [[] for _ in range(k)]
        for row in features:
            own[max(range(k), key=lambda c, row=row: float(row @ centroids[c]))].append(row)
        centroids = [sum(rows) / np.linalg.norm(sum(rows)) for rows in own]
    return np.array(centroids)


def test_centroids_are_those_of_the_plain_twin():
    features = unit(np.random.default_rng(3).standard_normal((60, 4)))
    np.testing.assert_allclose(k_means(features, 5, iterations=4), plain_k_means(features, 5, 4), atol=1e-5)


def test_rows_around_a_few_directions_fall_apart_into_these():
    directions = np.eye(4, 6)
    features = around(directions, 50, 0.05)
    centroids = k_means(features, 4)
    assert sorted(centroids.argmax(axis=1).tolist()) == [0, 1, 2, 3]
    assert (centroids.max(axis=1) > 0.99).all()
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)


def test_one_cluster_is_the_mean_direction():
    features = unit([[1, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(k_means(features, 1), unit([[1, 2]]), rtol=1e-6)


def test_as_many_clusters_as_rows_and_equal_rows_end_without_a_nan():
    features = unit([[1, 0]] * 5 + [[-1, 0]] * 5)
    for k in (2, 3, 10):
        centroids = k_means(features, k)
        assert np.isfinite(centroids).all()
        assert {tuple(row) for row in centroids.tolist()} == {(1, 0), (-1, 0)}


def test_opposite_rows_whose_mean_is_nothing_keep_the_centroid_before():
    centroids = k_means(unit([[1, 0], [-1, 0]]), 1)
    assert centroids.tolist() == [[1, 0]]


@pytest.mark.parametrize("at_once", [1, 7, 1 << 22])
def test_the_nearest_are_those_of_sorting_all(monkeypatch, at_once):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    draw = np.random.default_rng(0)
    features, centroids = unit(draw.standard_normal((30, 5))), unit(draw.standard_normal((6, 5)))
    clusters, cosines = nearest_centroids(features, centroids, 3)
    plain = [sorted(range(6), key=lambda c, row=row: -float(row @ centroids[c]))[:3] for row in features]
    assert clusters.tolist() == plain
    expected = [[row @ centroids[c] for c in own] for row, own in zip(features, plain, strict=True)]
    np.testing.assert_allclose(cosines, expected, atol=1e-6)


def test_a_tie_goes_to_the_lower_number_and_no_rows_have_none():
    clusters, _ = nearest_centroids(unit([[1, 1]]), np.eye(2, dtype=np.float32), 2)
    assert clusters.tolist() == [[0, 1]]
    assert nearest_centroids(np.empty((0, 2), np.float32), np.eye(2, dtype=np.float32), 2)[0].shape == (0, 2)


def test_what_cannot_be_is_refused():
    rows = unit([[1, 0], [0, 1]])
    for k in (0, 3):
        with pytest.raises(ConfigError, match=rf"k must be 1 to the number of rows, 2\. Got {k}"):
            k_means(rows, k)
    with pytest.raises(ShapeError, match=r"features must be \[N, D\]\. Got \[2\]"):
        k_means(rows[0], 1)
