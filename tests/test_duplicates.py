import numpy as np
import pytest

from diptych.search import duplicates
from diptych.search.duplicates import alike


def pair_by_pair(features: np.ndarray, threshold: float) -> list[set[int]]:
    """The plain twin: groups grow until nothing joins them."""
    groups = [{row} for row in range(len(features))]
    for a in range(len(features)):
        for b in range(a):
            if features[a] @ features[b] >= threshold:
                first, second = (next(group for group in groups if row in group) for row in (a, b))
                if first is not second:
                    groups.remove(second)
                    first |= second
    return sorted((group for group in groups if len(group) > 1), key=min)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_groups_are_those_of_comparing_every_pair(monkeypatch, threshold):
    monkeypatch.setattr(duplicates, "_PAIRS", 7)
    rows = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    groups = alike(rows, threshold)
    assert sorted((set(group.tolist()) for group in groups), key=min) == pair_by_pair(rows, threshold)
    assert [len(group) for group in groups] == sorted((len(group) for group in groups), reverse=True)


def test_copies_are_alike_at_a_threshold_of_1_and_nothing_has_no_groups():
    rows = np.array([[0.6, 0.8], [1, 0], [0.6, 0.8]], np.float32)
    assert [group.tolist() for group in alike(rows, 1.0)] == [[0, 2]]
    assert alike(np.empty((0, 2), np.float32), 0.9) == []
