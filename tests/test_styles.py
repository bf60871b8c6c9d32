"""Styles made of a picture, by hand."""

import numpy as np

from diptych.pairs.styles import lines, posterized, toned


def test_few_levels_are_spread_evenly_and_black_and_white_stay():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.unique(posterized(ramp, 2)).tolist() == [0, 255]
    assert np.unique(posterized(ramp, 4)).tolist() == [0, 85, 170, 255]
    assert posterized(ramp, 256).tolist() == ramp.tolist()
    assert posterized(np.full((1, 1, 3), (127, 128, 200), dtype=np.uint8), 2).tolist() == [[[0, 255, 255]]]


def test_a_tone_curve_is_a_power_of_the_value():
    grey = np.full((1, 1, 3), (0, 64, 255), dtype=np.uint8)
    assert toned(grey, 2.0).tolist() == [[[0, 16, 255]]]  # 255 * (64 / 255) ** 2 = 16.06
    assert toned(grey, 0.5).tolist() == [[[0, 128, 255]]]  # 127.75
    assert toned(grey, 1.0).tolist() == grey.tolist()


def test_lines_are_where_the_luma_changes_and_the_strongest_are_black():
    picture = np.full((8, 8, 3), 255, dtype=np.uint8)
    picture[:, 4:] = 0  # a strong edge between columns 3 and 4
    picture[:, :2] = 155  # and one of 100 of 255 between 1 and 2
    drawn = lines(picture)
    assert drawn.shape == (8, 8, 3)
    assert drawn.dtype == np.uint8
    assert drawn[0].tolist() == [[v] * 3 for v in (255, 155, 155, 0, 0, 255, 255, 255)]
    assert (drawn == drawn[0]).all()


def test_lines_of_one_colour_are_white():
    assert (lines(np.full((4, 4, 3), 90, dtype=np.uint8)) == 255).all()
