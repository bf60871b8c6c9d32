"""Maps over pictures: each cell lies where it belongs, and nothing else is changed."""

import numpy as np
from PIL import Image

from diptych.data.overlay import COLOURS, draw_box, heat_over, parts_over, stretched

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_a_grid_is_stretched_over_its_picture():
    values = np.array([[0.0, 1.0]], dtype=np.float32)
    large = stretched(values, (40, 10), WHOLE)
    assert large.shape == (10, 40)
    assert large[:, 0].max() == 0
    assert large[:, -1].min() == 1
    assert (np.diff(large, axis=1) >= 0).all()


def test_what_a_grid_covers_beyond_its_picture_is_left_out():
    values = np.array([[0.0, 1.0, 2.0, 3.0]], dtype=np.float32)
    large = stretched(values, (200, 4), (-0.5, 0.0, 1.5, 1.0))  # the picture is the two cells in the middle
    assert 0.4 < large[0, 0] < 1
    assert 2 < large[0, -1] < 2.6


def test_the_hottest_place_is_yellow_and_the_coldest_dark_blue_under_which_the_picture_shows():
    values = np.array([[0.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    for grey in (0, 255):
        pixels = np.asarray(heat_over(Image.new("RGB", (64, 64), (grey,) * 3), values, WHOLE)).astype(int)
        assert pixels[0, -1, 0] > pixels[-1, 0, 0]
        red, _, blue = pixels[0, -1] - pixels[-1, 0]
        assert red > blue
    flat = heat_over(Image.new("RGB", (8, 8)), np.ones((2, 2), dtype=np.float32), WHOLE)
    assert len(set(flat.get_flattened_data())) == 1


def test_parts_are_coloured_and_what_is_no_part_stays_as_it_is():
    picture = Image.new("RGB", (4, 1), (100, 100, 100))
    drawn = np.asarray(parts_over(picture, np.array([[-1, 0, 1, len(COLOURS)]])))[0]
    assert drawn[0].tolist() == [100, 100, 100]
    assert drawn[1].tolist() == [round((100 + part) / 2) for part in COLOURS[0]]
    assert drawn[2].tolist() == [round((100 + part) / 2) for part in COLOURS[1]]
    assert drawn[3].tolist() == drawn[1].tolist()


def test_a_box_is_drawn_at_the_edges_that_it_names():
    picture = Image.new("RGB", (101, 101), (90, 90, 90))
    draw_box(picture, (0.2, 0.3, 0.6, 0.9))
    changed = (np.asarray(picture) != 90).any(axis=2)
    rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (20, 30, 60, 90)
    assert not changed[60, 40]
