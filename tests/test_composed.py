"""Scenes side by side: what is where is what the scene says, and the draw hangs on the seed alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.errors import DataError
from diptych.sets.composed import compose
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


@pytest.fixture
def colours(tmp_path: Path) -> LabelledImages:
    for name, colour in COLOURS.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (30, 20), colour).save(tmp_path / "set" / name / "0.png")
    return read_labelled(tmp_path / "set")


@pytest.mark.parametrize("squares", [2, 4])
def test_each_square_shows_the_picture_of_its_class(colours: LabelledImages, squares: int):
    found = compose(colours, 6, squares=squares, side=16).scenes
    assert len(found) == 6
    for scene in found:
        assert scene.picture.size == (32, 8 * squares)
        assert len(set(scene.classes)) == squares
        owners, pixels = scene.owners(8 * squares, 32), np.asarray(scene.picture)
        for square, number in enumerate(scene.classes):
            assert (pixels[owners == square] == COLOURS[colours.classnames[number]]).all()
            assert (owners == square).sum() == 256
            assert scene.keys[square].startswith(colours.classnames[number])


def test_the_draw_hangs_on_the_seed_and_not_on_the_size(colours: LabelledImages):
    small, large, other = (
        [scene.classes for scene in compose(colours, 8, squares=2, side=side, seed=seed).scenes]
        for side, seed in ((8, 0), (24, 0), (8, 1))
    )
    assert small == large != other


def test_a_scene_with_a_picture_that_cannot_be_read_is_left_out_and_counted(colours: LabelledImages, tmp_path: Path):
    (tmp_path / "set" / "red" / "0.png").write_bytes(b"no picture")
    found = compose(colours, 20, squares=2, side=8)
    assert 0 < len(found.scenes) < 20
    assert sum(found.skipped.values()) == 20 - len(found.scenes)
    assert not any(key.startswith("red") for scene in found.scenes for key in scene.keys)


def test_too_few_classes_are_refused(colours: LabelledImages):
    with pytest.raises(DataError, match="6 squares and 4 classes"):
        compose(colours, 1, squares=6, side=8)
    with pytest.raises(DataError, match="a multiple of 2"):
        compose(colours, 1, squares=3, side=8)
