import subprocess
import sys

import numpy as np
import pytest
import torch

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.search import index as index_module
from diptych.search.index import Index, Scanner, integer_products_are_right, kth_best, plain_search, products


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


WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, NoTorch())

import numpy as np
from pathlib import Path
from diptych.search import index as index_module
from diptych.search.ann import ApproximateScanner
from diptych.search.duplicates import alike
from diptych.search.index import Index

rows = np.random.default_rng(0).standard_normal((25_000, 32)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
index = Index(rows[:24_990])
index.add([f"new {row}" for row in range(10)], rows[24_990:])
index.remove(["7", "8"])
for name in ("i.npz", "i.safetensors"):
    index.save(Path(sys.argv[1]) / name)
    again = Index.load(Path(sys.argv[1]) / name)
    for _ in range(3):  # a plain scan, one that makes 8-bit rows, one that has them
        assert again.search(rows[24_995], 1)[0][0] == "new 5"
    assert again._scanner._small is not None
approximate = ApproximateScanner(rows)
assert [approximate.search(rows[3], 1).rows.tolist() for _ in range(3)] == [[3]] * 3
rows[9_000] = rows[3]
assert [group.tolist() for group in alike(rows, 0.99)] == [[3, 9_000]]
"""


def test_none_of_this_needs_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [1, 9, 64, 1_000, 20_001])
def test_the_kth_best_is_that_of_sorting_also_with_ties_and_infinities_and_nan_is_the_largest(size):
    draw = np.random.default_rng(size)
    for values in (
        draw.standard_normal(size).astype(np.float32),
        draw.integers(0, 5, size).astype(np.float32),
        np.where(draw.random(size) < 0.9, -np.inf, draw.random(size)).astype(np.float32),
        np.where(draw.random(size) < 0.01, np.nan, draw.random(size)).astype(np.float32),
        np.sort(draw.random(size)).astype(np.float32),  # the best lie beside each other
    ):
        for count in (1, 2, 10, 300, 30_000):
            expected = np.sort(values)[max(0, size - count)]
            np.testing.assert_array_equal(kth_best(values, count), expected)


def test_products_of_bytes_are_exact_and_those_of_equal_rows_are_equal_wherever_they_lie():
    assert integer_products_are_right()
    draw = np.random.default_rng(0)
    for length in (1, 31, 64, 100, 1_000):
        rows = draw.integers(-127, 128, (200, length), dtype=np.int8)
        np.testing.assert_array_equal(products(rows, rows[7]), rows.astype(np.int64) @ rows[7].astype(np.int64))
    for length in (7, 64, 100):
        rows = np.tile(draw.standard_normal(length).astype(np.float32), (999, 1))
        assert len(np.unique(products(rows, rows[0]))) == 1
    assert products(np.empty((0, 8), np.float32), np.ones(8, np.float32)).shape == (0,)


def test_several_threads_give_what_one_gives(monkeypatch):
    rows = np.random.default_rng(0).integers(-127, 128, (1_003, 64), dtype=np.int8)
    alone = products(rows, rows[7])
    monkeypatch.setattr(index_module, "_SHARE", 10_000)
    monkeypatch.setattr(index_module, "usable_cores", lambda: 3)
    np.testing.assert_array_equal(products(rows, rows[7]), alone)


def test_searching_for_long_takes_no_reference_away():
    rows = np.eye(4, dtype=np.float32)
    before = sys.getrefcount(None)
    for _ in range(1_000):
        products(rows, rows[0])
    assert sys.getrefcount(None) > before - 500


def test_rows_and_queries_may_lie_apart_in_memory_and_a_tensor_may_be_learned():
    rows = unit(np.random.default_rng(0).standard_normal((40, 8)))
    expected = Index(rows).search(rows[3], 5)
    assert Index(np.asfortranarray(rows)).search(np.repeat(rows[3], 2)[::2], 5) == expected
    assert Index(torch.from_numpy(rows).requires_grad_()).search(torch.from_numpy(rows[3]).double(), 5) == expected


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
