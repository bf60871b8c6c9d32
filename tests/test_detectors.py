"""curate/detectors.py: functions from outside that find boxes."""

import numpy as np
import pytest

from diptych.curate.detectors import boxes_in
from diptych.errors import DataError

PICTURE = np.zeros((20, 30, 3), np.uint8)


def test_boxes_are_whole_pixels_within_the_picture_and_those_of_enough_confidence():
    found = [
        [1.2, 2.9, 9.1, 10, 0.9],
        [-5, -5, 500, 500, 0.5],
        [3, 3, 9, 9, 0.4],
        [9, 9, 9, 12, 1],
        [40, 40, 50, 50, 1],
    ]
    boxes = boxes_in(PICTURE, lambda pixels: np.array(found), 0.5)
    assert boxes.tolist() == [[1, 2, 10, 10], [0, 0, 30, 20]]


@pytest.mark.parametrize("none", [[], np.empty((0, 5)), np.empty((0, 4)), ()])
def test_nothing_found_is_no_box(none):
    assert boxes_in(PICTURE, lambda pixels: none, 0.5).shape == (0, 4)


@pytest.mark.parametrize("wrong", [[[1, 2, 3, 4]], [1, 2, 3, 4, 5], [[1, 2, 3, 4, float("nan")]]])
def test_what_is_no_list_of_boxes_is_told(wrong):
    with pytest.raises(DataError, match=r"must return \[N, 5\] finite numbers"):
        boxes_in(PICTURE, lambda pixels: np.array(wrong), 0.5)


def test_a_detector_may_draw_on_what_it_is_handed():
    def draws(pixels):
        pixels[:] = 255
        return []

    boxes_in(PICTURE, draws, 0)
    assert PICTURE.max() == 0
