"""Grids of patches by SigLIP 2's own rule, and pixels that come back out of their rows."""

import math
from fractions import Fraction

import numpy as np
import pytest

from diptych.data.patch_rows import MOST_PATCHES_A_SIDE, largest_grid, to_patch_rows


def grid_by_trial(width: int, height: int, length: int) -> tuple[int, int]:
    """The twin: of all scales at which a side is whole patches, the largest whose sides, rounded up, have room."""
    best = Fraction(0)
    for side in (width, height):
        for patches in range(1, length + 1):
            scale = Fraction(patches, side)
            if math.ceil(height * scale) * math.ceil(width * scale) <= length:
                best = max(best, scale)
    return math.ceil(height * best), math.ceil(width * best)


@pytest.mark.parametrize("length", [1, 2, 16, 36, 50, 64, 256])
def test_the_grid_is_that_of_the_largest_scale_with_room_for_it(length: int):
    sizes = np.random.default_rng(0).integers(1, 60, (40, 2)).tolist()
    for width, height in sizes:
        if max(width, height) < 4 * min(width, height):
            assert largest_grid(width, height, length) == grid_by_trial(width, height, length), (width, height)


def test_grids_by_hand():
    assert largest_grid(500, 500, 64) == (8, 8)
    assert largest_grid(400, 300, 64) == (7, 9)  # 63 patches
    assert largest_grid(300, 400, 64) == (9, 7)
    assert largest_grid(200, 100, 16) == (3, 5)  # 2.5 x 5 patches, rounded up: the largest scale goes before shape
    assert largest_grid(1, 100_000, 64) == (64, 1)
    assert largest_grid(100_000, 1, 1024) == (1, MOST_PATCHES_A_SIDE)  # a place is a byte
    assert largest_grid(1, 1, 1) == (1, 1)


def test_pixels_come_back_out_of_their_rows_and_what_is_left_is_zero():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)  # 2 x 3 patches of 3
    rows = to_patch_rows(pixels, 3, 8)
    assert rows.shape == (8, 2 + 27)
    assert rows[:, :2].tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3], [0, 0], [0, 0]]
    assert not rows[6:].any()
    for row, column, *numbers in rows[:6].tolist():
        corner = pixels[3 * (row - 1) : 3 * row, 3 * (column - 1) : 3 * column]
        assert np.array_equal(np.reshape(numbers, (3, 3, 3)), corner)
