from pathlib import Path

import numpy as np
import pytest

from diptych.audit.nearest import Nearest, nearest_in_training
from diptych.audit.stored_sketches import PictureList, StoredSketches
from diptych.curate.copies import Sketches, best_scores, small_grey
from scenes import CHANGES, jpeg, scene

SETS = {"day": range(5), "night": range(5, 9)}
TRAIN = [
    *(scene(number) for number in range(200, 212)),
    CHANGES["mirrored"](scene(3)),
    CHANGES["crop 75 %"](scene(3)),  # two copies of one picture: the one that fits better counts
    CHANGES["grey"](scene(7)),
    CHANGES["grey"](scene(7)),  # two that fit as well: the first
]


def stored(name: str, pictures: list, folder: Path, part_size: int, *, known: bool = False) -> StoredSketches:
    files = [jpeg(picture) for picture in pictures]
    listed = PictureList(
        name=name, count=len(files), fingerprint=name, read=lambda number: (f"{name}{number}", files[number])
    )
    sketches = StoredSketches(listed, folder, part_size=part_size, known=known)
    sketches.make()
    return sketches


def found(folder: Path, part_size: int) -> list[Nearest]:
    sets = [
        stored(name, [scene(number) for number in numbers], folder, part_size, known=True)
        for name, numbers in SETS.items()
    ]
    return nearest_in_training(sets, stored("t", TRAIN, folder, part_size))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Nearest]:
    return found(tmp_path_factory.mktemp("sketches"), 100)


@pytest.mark.parametrize("part_size", [1, 4])
def test_the_size_of_parts_changes_nothing(whole: list[Nearest], tmp_path: Path, part_size: int):
    for a, b in zip(whole, found(tmp_path, part_size), strict=True):
        assert (a.keys, a.train_keys) == (b.keys, b.train_keys)
        for name in ("train_numbers", "scores", "cosines", "hash_bits", "mirrored"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-6)


def test_the_best_copy_is_found_and_of_equal_ones_the_first(whole: list[Nearest]):
    day, night = whole
    assert (day.train_keys[3], bool(day.mirrored[3])) == ("t12", True)
    assert night.train_keys[2] == "t14"
    assert night.hash_bits[2] <= 4
    assert float(day.scores[3]) > 0.9 > 0.6 > max(float(day.scores[row]) for row in (0, 1, 2, 4))


def test_it_agrees_with_what_curation_finds(whole: list[Nearest]):
    """From the other side: of each training picture the evaluation picture that it fits best."""
    train = Sketches.of([small_grey(jpeg(picture)) for picture in TRAIN])
    known = Sketches.of(
        [small_grey(jpeg(scene(number))) for numbers in SETS.values() for number in numbers], known=True
    )
    best, scores = best_scores(train, known)
    assert best[12:].tolist() == [3, 3, 7, 7]
    assert float(whole[0].scores[3]) == pytest.approx(float(scores[12]), abs=0.02)
