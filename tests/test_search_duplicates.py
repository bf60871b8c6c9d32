import datetime

import numpy as np
import pytest

from diptych.search import duplicates
from diptych.search.duplicates import alike, best_first
from diptych.search.results import Hit


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


@pytest.mark.parametrize("sample", [20, 1_000])
@pytest.mark.parametrize("many", [0, 10_000])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_groups_are_those_of_comparing_every_pair(monkeypatch, threshold, many, sample):
    monkeypatch.setattr(duplicates, "_WIDE", 22)
    monkeypatch.setattr(duplicates, "_NARROW", 7)
    monkeypatch.setattr(duplicates, "_MANY", many)
    monkeypatch.setattr(duplicates, "_SAMPLE", sample)
    rows = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    groups = alike(rows, threshold)
    assert sorted((set(group.tolist()) for group in groups), key=min) == pair_by_pair(rows, threshold)
    assert [len(group) for group in groups] == sorted((len(group) for group in groups), reverse=True)


def test_no_pair_has_a_cosine_above_the_bound_by_components_and_few_that_are_not_alike_come_near_it():
    draw = np.random.default_rng(0)
    rows = (draw.standard_normal((400, 64)) / np.arange(1, 65) + 0.3).astype(np.float32)
    rows[200:] = rows[:200] + 0.02 * draw.standard_normal((200, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    basis = duplicates._components(rows, np.arange(400))
    assert basis is None  # few rows are compared in full
    _, vectors = np.linalg.eigh(rows.T @ rows)
    short = duplicates._Block.of(rows, vectors[:, -16:]).short
    assert short is not None
    bounds, cosines = short @ short.T, rows.astype(np.float64) @ rows.T
    assert (cosines <= bounds + duplicates._ROUGH / 10).all()
    assert (bounds >= 0.97).sum() < 3 * (cosines >= 0.97).sum()


def test_copies_are_alike_at_a_threshold_of_1_and_nothing_has_no_groups():
    rows = np.array([[0.6, 0.8], [1, 0], [0.6, 0.8]], np.float32)
    assert [group.tolist() for group in alike(rows, 1.0)] == [[0, 2]]
    assert alike(np.empty((0, 2), np.float32), 0.9) == []


@pytest.mark.parametrize("sample", [2, 1_000])
def test_a_pair_just_below_the_threshold_is_no_pair_by_components_either(monkeypatch, sample):
    monkeypatch.setattr(duplicates, "_SAMPLE", sample)
    rows = np.zeros((3, 4), np.float32)
    rows[:, 0] = 1, 0.9001, 0.8999
    rows[[1, 2], [1, 2]] = np.sqrt(1 - rows[1:, 0] ** 2)  # on two sides, not near each other
    assert [group.tolist() for group in alike(rows, 0.9)] == [[0, 1]]


def test_some_rows_are_compared_and_named_by_their_own_numbers():
    rows = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.6, 0.8], [1, 0]], np.float32)
    assert [group.tolist() for group in alike(rows, 0.99, np.array([1, 3, 4]))] == [[1, 3]]


def test_copies_in_several_blocks_are_one_group(monkeypatch):
    monkeypatch.setattr(duplicates, "_WIDE", 400)
    monkeypatch.setattr(duplicates, "_NARROW", 200)
    monkeypatch.setattr(duplicates, "_MANY", 1_000)
    groups = alike(np.tile(np.array([[0.6, 0.8]], np.float32), (900, 1)), 0.97)
    assert [group.tolist() for group in groups] == [list(range(900))]


def test_the_best_copy_comes_first_and_names_of_one_file_are_one(tmp_path):
    for name, size in (("a.jpg", 10), ("b.jpg", 30), ("c.jpg", 20), ("d/e.jpg", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "link.jpg").symlink_to("b.jpg")
    (tmp_path / "hard.jpg").hardlink_to(tmp_path / "c.jpg")
    (tmp_path / "linked").symlink_to("d")

    def hit(name: str, side: int, **facts) -> Hit:
        return Hit(path=tmp_path / name, score=1.0, width=side, height=side, **facts)

    names = ("link.jpg", "hard.jpg", "b.jpg", "c.jpg", "gone.jpg")
    found = best_first([hit("a.jpg", 9), hit("linked/e.jpg", 9), hit("d/e.jpg", 9), *(hit(name, 8) for name in names)])
    assert [(one.path.relative_to(tmp_path).as_posix(), one.bytes) for one in found] == [
        ("a.jpg", 10),
        ("d/e.jpg", 5),
        ("b.jpg", 30),
        ("c.jpg", 20),
    ]
    assert [[path.name for path in one.also] for one in found] == [[], ["e.jpg"], ["link.jpg"], ["hard.jpg"]]
    early, late = datetime.datetime(2020, 1, 1), datetime.datetime(2021, 1, 1)
    (tmp_path / "a2.jpg").write_bytes(bytes(10))
    assert best_first([hit("a.jpg", 9, date=late), hit("a2.jpg", 9, date=early)])[0].path.name == "a2.jpg"
