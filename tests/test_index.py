import numpy as np
import pytest
import torch

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.search import index as index_module
from diptych.search.index import Index, Scanner, plain_search


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_rows_from_the_first_one(monkeypatch):
    monkeypatch.setattr(index_module, "_WORTH", 0)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Clusters, exact copies and rows of few large numbers: what makes 8 bits err most."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((30, 1, 64)) + 0.2 * draw.standard_normal((30, 100, 64))
    rows = rows.reshape(-1, 64)
    rows[100:200] = rows[100]
    rows[200:300] *= draw.random((100, 64)) ** 8
    return unit(rows)


def by_sorting(features: np.ndarray, query: np.ndarray, count: int, among: np.ndarray) -> list[int]:
    """The plain twin: all scores, sorted; ties by row."""
    scores = features @ query
    return sorted(np.flatnonzero(among).tolist(), key=lambda row: (-scores[row], row))[:count]


@pytest.mark.parametrize("count", [1, 10, 150, 5000])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_both_scans_give_what_sorting_gives(features, count, share):
    draw = np.random.default_rng(1)
    among = draw.random(len(features)) < share
    scanner = Scanner(features)
    for query in (features[100], features[250], unit(draw.standard_normal(64)), unit(features[:3].sum(0))):
        expected = by_sorting(features, query, count, among)
        for hits in (plain_search(features, query, count, among), *(scanner.search(query, count, among),) * 2):
            scores = features @ query
            np.testing.assert_allclose(hits.scores, scores[expected], atol=1e-6)
            assert np.all(np.diff(hits.scores) <= 0)
            assert among[hits.rows].all()
            assert len(set(hits.rows.tolist())) == len(expected)


def test_bounds_hold_for_every_row(features):
    small = index_module._Small.empty(64).extended(features)
    for query in features[::371]:
        exact = features.astype(np.float64) @ query
        p, scale, _, error = (part[0] for part in index_module._small(query[None]))
        near = (small.integers.astype(np.int64) @ p.astype(np.int64)) * small.scales.astype(np.float64) * scale
        bounds = small.errors + small.lengths * error + 1e-5
        assert (np.abs(near - exact) <= bounds).all()


def test_few_rows_are_scored_twice(features):
    small = index_module._Small.empty(64).extended(features)
    assert len(small.candidates(features[2000], 5, None)) < 200


def test_rows_that_are_added_are_found(features):
    scanner = Scanner(features[:1000])
    for _ in range(2):
        scanner.search(features[0], 3)
    scanner.extend(features)
    assert scanner.search(features[2500], 1).rows.tolist() == [2500]


def test_processors_that_cannot_multiply_bytes_scan_in_float32(features, monkeypatch):
    monkeypatch.setattr(index_module, "integer_products_are_right", lambda: False)
    monkeypatch.setattr(index_module._Small, "candidates", None)
    scanner = Scanner(features)
    assert [scanner.search(features[7], 1).rows.tolist() for _ in range(2)] == [[7], [7]]


def test_an_index_adds_replaces_removes_and_comes_back_from_disk(tmp_path):
    index = Index(np.eye(3, dtype=np.float32), ["a", "b", "c"])
    index.add(["d", "a"], unit(np.array([[1.0, 1, 0], [0, 1, 1]])))
    assert [key for key, _ in index.search(np.array([1, 0, 0], np.float32), 2)] == ["d", "b"]
    index.remove(["b"])
    assert index.keys == ("c", "d", "a")
    for name in ("i.npz", "i.safetensors"):
        index.save(tmp_path / name)
        again = Index.load(tmp_path / name)
        assert again.search(torch.eye(3)[2], 9) == index.search(torch.eye(3)[2], 9)
    assert index.search(torch.eye(3)[2], 9)[0] == ("c", 1.0)


def test_an_empty_index_finds_nothing():
    index = Index(np.empty((0, 3), np.float32))
    assert index.search(torch.eye(3)[0]) == []
    index.add(["a"], torch.eye(3)[:1])
    assert index.search(torch.eye(3)[0]) == [("a", 1.0)]


def test_what_does_not_fit_is_named(tmp_path):
    index = Index(np.eye(3, dtype=np.float32))
    with pytest.raises(ShapeError, match=r"a query must be \[3\], as the rows of the index\. Got \[4\]"):
        index.search(torch.zeros(4))
    with pytest.raises(ShapeError, match=r"added rows must be \[N, 3\]"):
        index.add(["a"], torch.zeros(1, 4))
    with pytest.raises(ShapeError, match="Got 2 keys, 3 rows"):
        Index(torch.eye(3), ["a", "b"])
    with pytest.raises(ShapeError, match=r"must be \[N, D\] float32\. Got \[3, 3\] float64"):
        Index(np.eye(3))
    with pytest.raises(DataError, match="a comes twice"):
        Index(torch.eye(3), ["a", "b", "a"])
    with pytest.raises(DataError, match="x must be a key"):
        index.remove(["x"])
    with pytest.raises(ConfigError, match="count must be at least 1"):
        index.search(torch.zeros(3), 0)
    (tmp_path / "x.npz").write_text("no")
    for name in ("x.npz", "gone.safetensors"):
        with pytest.raises(DataError, match="must be a file of features"):
            Index.load(tmp_path / name)
