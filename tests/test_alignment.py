import numpy as np
import pytest
from PIL import Image

from diptych.curate.copies import small_grey
from diptych.errors import ShapeError
from diptych.measures.alignment import SIDE, Alignment, align, contrast
from scenes import CHANGES, cropped, scene


def look(first: Image.Image, second: Image.Image) -> Alignment:
    return align(*contrast(np.stack([small_grey(first), small_grey(second)])))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_fits_and_another_picture_does_not(change: str):
    for number in range(4):
        assert look(scene(number), CHANGES[change](scene(number))).score > 0.85
        assert look(scene(number), CHANGES[change](scene(number + 100))).score < 0.6


def test_a_crop_is_found_where_it_was_cut():
    found = look(scene(1), cropped(scene(1), 0.75))  # a third of the rest lies to its left, two thirds above
    assert (found.is_larger, found.mirrored) == (True, False)
    assert found.box == pytest.approx((0.25 / 3, 0.5 / 3, 0.25 / 3 + 0.75, 0.5 / 3 + 0.75), abs=0.02)
    turned = look(CHANGES["mirrored"](cropped(scene(1), 0.75)), scene(1))
    assert (turned.is_larger, turned.mirrored) == (False, True)
    # The second was mirrored to fit, so the crop lies as far from the other side.
    assert turned.box == pytest.approx((0.5 / 3, 0.5 / 3, 0.5 / 3 + 0.75, 0.5 / 3 + 0.75), abs=0.02)


def test_black_frames_say_nothing():
    black = Image.new("RGB", (64, 48))
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 3, (48, 64, 3), np.uint8))
    for first, second in ((black, black), (noisy, noisy), (black, noisy)):
        assert look(first, second).score == 0


def test_a_thing_on_white_is_not_told_by_the_white_around_it():
    """Two shapes of one outline: what lies inside of them differs."""
    first, second = (Image.new("RGB", (120, 120), "white") for _ in range(2))
    for number, canvas in enumerate((first, second)):
        canvas.paste(scene(number).resize((80, 80)), (20, 20))
    assert look(first, second).score < 0.6
    assert look(first, first).score == pytest.approx(1)


def test_contrast_equals_its_plain_twin_and_knows_no_light():
    grey = np.random.default_rng(3).integers(60, 120, (SIDE, SIDE)).astype(np.uint8)
    np.testing.assert_allclose(contrast(grey[None])[0], plain_contrast(grey), atol=1e-4)
    np.testing.assert_allclose(contrast(grey[None] + np.uint8(100)), contrast(grey[None]), atol=1e-3)


def plain_contrast(grey: np.ndarray) -> np.ndarray:
    def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
        def along(line: np.ndarray) -> np.ndarray:
            weights = [[np.exp(-0.5 * ((i - j) / sigma) ** 2) for j in range(SIDE)] for i in range(SIDE)]
            return np.array([np.dot(row, line) / sum(row) for row in weights])

        return np.apply_along_axis(along, 0, np.apply_along_axis(along, 1, values))

    band = blurred(grey.astype(float), 1) - blurred(grey.astype(float), 5)
    return band / np.sqrt(blurred(band**2, 5) + 16)


def test_another_size_is_named():
    with pytest.raises(ShapeError, match=r"\[M, 64, 64\]. Got \[1, 32, 32\]"):
        contrast(np.zeros((1, 32, 32), np.uint8))
