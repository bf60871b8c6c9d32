from pathlib import Path

import numpy as np
import pytest

from diptych.errors import ConfigError, ShapeError
from diptych.search import ann
from diptych.search import index as index_module
from diptych.search.ann import ApproximateScanner
from diptych.search.index import Scanner, blocks_of, plain_search, taken

SMAPS = Path("/proc/self/smaps")


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch):
    monkeypatch.setattr(ann, "_AGAIN", 200)
    monkeypatch.setattr(ann, "_AGAIN_EACH", 5)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """As of a CLIP model: a common direction, clusters, and variance that falls as 1 / i."""
    draw = np.random.default_rng(0)
    spread = 1 / np.sqrt(np.arange(1, 129))
    centres = draw.standard_normal((200, 128)) * spread
    rows = centres[draw.integers(0, 200, 4000)] + 0.5 * draw.standard_normal((4000, 128)) * spread + 0.4
    rows = rows @ np.linalg.qr(draw.standard_normal((128, 128)))[0]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def recall(scanner: ApproximateScanner, features: np.ndarray, among: np.ndarray | None = None) -> float:
    shares = []
    for query in features[::97]:
        exact = plain_search(features, query, 10, among).rows
        shares.append(len(np.intersect1d(scanner.search(query, 10, among).rows, exact)) / len(exact))
    return float(np.mean(shares))


def test_most_of_the_best_are_found_and_their_scores_are_exact(features):
    scanner = ApproximateScanner(features)
    assert recall(scanner, features) > 0.95
    hits = scanner.search(features[5], 10)
    np.testing.assert_allclose(hits.scores, features[hits.rows] @ features[5], atol=1e-6)
    assert (np.diff(hits.scores) <= 0).all()
    assert hits.rows[0] == 5


def test_the_first_search_is_exact(features):
    for query in features[:40]:
        found = ApproximateScanner(features).search(query, 20).rows
        np.testing.assert_array_equal(found, plain_search(features, query, 20).rows)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_filters_are_kept(features, share):
    among = np.random.default_rng(1).random(len(features)) < share
    scanner = ApproximateScanner(features)
    assert recall(scanner, features, among) > 0.95
    assert among[scanner.search(features[0], 30, among).rows].all()


def test_rows_that_are_added_are_found_with_the_components_of_the_first(features):
    scanner = ApproximateScanner(features[:3000])
    for _ in range(2):
        scanner.search(features[0], 3)
    before = scanner._sketch
    scanner.extend(features)
    assert scanner.search(features[3500], 1).rows.tolist() == [3500]
    assert before is not None
    assert scanner._sketch is not None
    assert scanner._sketch.basis is before.basis
    assert recall(scanner, features) > 0.95


def test_of_rows_that_tie_by_their_components_the_lower_ones_are_scored_again():
    rows = np.tile(np.eye(1, 16, dtype=np.float32), (5_000, 1))
    scanner = ApproximateScanner(rows)
    scanner.search(rows[0], 3)
    np.testing.assert_array_equal(scanner._candidates(rows[0], 3, None), np.arange(200))
    assert scanner.search(rows[0], 3).rows.tolist() == [0, 1, 2]


def test_what_does_not_fit_is_named(features):
    with pytest.raises(ConfigError, match="count must be at least 1"):
        ApproximateScanner(features).search(features[0], 0)
    with pytest.raises(ShapeError, match=r"a query must be \[128\]"):
        ApproximateScanner(features).search(features[0, :3], 1)


def test_rows_of_a_mapped_file_are_the_same_after_their_pages_are_let_go_of(features, tmp_path):
    features.tofile(tmp_path / "f.f32")
    mapped = np.memmap(tmp_path / "f.f32", np.float32, "r", shape=features.shape)
    in_memory, on_disk = ApproximateScanner(features), ApproximateScanner(mapped)
    for query in features[:40]:
        np.testing.assert_array_equal(in_memory.search(query, 5).rows, on_disk.search(query, 5).rows)


def resident(path: Path) -> int:
    """KB of a mapped file that count as this process's memory."""
    _, _, of_file = SMAPS.read_text().partition(f"{path}\n")
    return int(of_file.partition("Rss:")[2].split()[0])


@pytest.fixture
def mapped(features, tmp_path) -> np.memmap:
    """32 MB: the system may map 2 MB for a row that is read."""
    np.tile(features, (16, 1)).tofile(tmp_path / "f.f32")
    return np.memmap(tmp_path / "f.f32", np.float32, "r", shape=(64_000, 128))


@pytest.mark.skipif(not SMAPS.exists(), reason="/proc/self/smaps tells what is mapped, and is Linux's")
@pytest.mark.parametrize("kind", [Scanner, ApproximateScanner])
def test_no_search_leaves_the_mapped_file_in_memory(mapped, kind):
    path = Path(mapped.filename)
    assert mapped.sum() != 0
    assert resident(path) == 32_000  # all of it was read, and is counted
    query, scanner = np.array(mapped[5]), kind(mapped)
    for _ in range(3):  # a plain one, one that makes the codes, one that has them
        scanner.search(query, 10)
        assert resident(path) == 0


@pytest.mark.skipif(not SMAPS.exists(), reason="/proc/self/smaps tells what is mapped, and is Linux's")
def test_of_a_mapped_file_only_what_is_read_at_a_time_is_in_memory(mapped, monkeypatch):
    monkeypatch.setattr(index_module, "_BLOCK", 4_000)
    path = Path(mapped.filename)
    held = [(block.sum(), resident(path))[1] for _, block in blocks_of(mapped)]
    assert len(held) == 16
    assert max(held) < 8_000  # KB: a block of 2,000, and what the system adds on both sides

    peaks = []
    let_go = index_module._let_go
    monkeypatch.setattr(index_module, "_let_go", lambda features: (peaks.append(resident(path)), let_go(features)))
    rows = np.arange(0, len(mapped), 25)
    np.testing.assert_array_equal(taken(mapped, rows), np.array(mapped)[rows])
    assert max(peaks[1:]) < 8_000  # 256 rows lie in 3,200 KB


def test_what_was_written_to_a_mapped_file_of_ones_own_is_not_let_go_of(features, tmp_path):
    features.tofile(tmp_path / "f.f32")
    own = np.memmap(tmp_path / "f.f32", np.float32, "c", shape=features.shape)
    own[7] = features[8]
    for _ in range(2):
        np.testing.assert_array_equal(plain_search(own, features[8], 2).rows, [7, 8])
