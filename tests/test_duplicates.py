import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("many", [0, 10_000])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_groups_are_those_of_comparing_every_pair(monkeypatch, threshold, many, dtype):
    monkeypatch.setattr(duplicates, "_PAIRS", 7)
    monkeypatch.setattr(duplicates, "_MANY", many)
    monkeypatch.setattr(duplicates, "fast_dtype", lambda _: dtype)
    rows = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    groups = alike(rows, threshold)
    assert sorted((set(group.tolist()) for group in groups), key=min) == pair_by_pair(rows, threshold)
    assert [len(group) for group in groups] == sorted((len(group) for group in groups), reverse=True)


def test_copies_are_alike_at_a_threshold_of_1_and_nothing_has_no_groups():
    rows = np.array([[0.6, 0.8], [1, 0], [0.6, 0.8]], np.float32)
    assert [group.tolist() for group in alike(rows, 1.0)] == [[0, 2]]
    assert alike(np.empty((0, 2), np.float32), 0.9) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pair_just_below_the_threshold_is_no_pair_in_either_type(monkeypatch, dtype):
    monkeypatch.setattr(duplicates, "fast_dtype", lambda _: dtype)
    angles = np.arccos([1, 0.9001, 0.8999])  # bfloat16 has 256 steps between 0.5 and 1
    rows = np.stack([np.cos(angles), np.sin(angles), [0, 0, 0]], axis=1).astype(np.float32)
    rows[2] = [0.8999, 0, np.sqrt(1 - 0.8999**2)]  # on another side, not near the second
    assert [group.tolist() for group in alike(rows, 0.9)] == [[0, 1]]


def test_some_rows_are_compared_and_named_by_their_own_numbers():
    rows = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.6, 0.8], [1, 0]], np.float32)
    assert [group.tolist() for group in alike(rows, 0.99, np.array([1, 3, 4]))] == [[1, 3]]


def test_copies_in_several_blocks_are_one_group(monkeypatch):
    monkeypatch.setattr(duplicates, "_PAIRS", 200)
    monkeypatch.setattr(duplicates, "_MANY", 1_000)
    groups = alike(np.tile(np.array([[0.6, 0.8]], np.float32), (900, 1)), 0.97)
    assert [group.tolist() for group in groups] == [list(range(900))]
