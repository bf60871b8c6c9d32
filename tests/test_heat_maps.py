"""Heat maps from arrays: values worked by hand, and the edges of grids."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diptych.errors import ShapeError
from diptych.measures.heat_maps import (
    best_cell,
    box_around,
    connected,
    contrasted,
    cosines,
    curve_area,
    hot_part,
    overlap_of,
    parts,
    share_beaten,
    smoothed,
)


def mask(*lines: str) -> Tensor:
    return torch.tensor([[character == "#" for character in line] for line in lines])


def test_cosines_do_not_hang_on_the_length_of_a_places_feature():
    grid = torch.tensor([[[3.0, 4.0], [0.5, 0.0]]])  # [1, 2, 2]
    near = cosines(grid, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(near, torch.tensor([[[0.6, 1.0]], [[0.8, 0.0]]]))


def test_features_of_another_model_are_refused():
    with pytest.raises(ShapeError, match=r"grid \[2, 2, 3\] and text_features \[1, 4\]"):
        cosines(torch.zeros(2, 2, 3), torch.zeros(1, 4))


def test_each_text_is_compared_with_the_mean_of_the_others_and_a_single_one_with_other_words():
    near = torch.tensor([[[0.9, 0.2]], [[0.3, 0.2]], [[0.1, 0.5]]])  # [3, 1, 2]
    others = torch.tensor([[[0.4, 0.0]], [[0.2, 0.2]]])
    expected = torch.tensor([[[0.7, -0.15]], [[-0.2, -0.15]], [[-0.5, 0.3]]])
    torch.testing.assert_close(contrasted(near, others), expected)
    torch.testing.assert_close(contrasted(near[:1], others), torch.tensor([[[0.6, 0.1]]]))


def test_a_place_where_all_texts_fit_alike_speaks_for_none_of_them():
    near = torch.tensor([[[0.9, 0.3]], [[0.9, 0.1]]])  # the first place is nearer to both
    assert best_cell(contrasted(near, near)[0]) == (0, 1)


def test_smoothing_is_the_mean_of_the_cells_that_there_are_and_leaves_small_grids_alone():
    heat = torch.zeros(1, 7, 7)
    heat[0, 0, 0] = 36
    found = smoothed(heat)[0]
    assert (found[0, 0], found[0, 1], found[1, 1], found[2, 2]) == (9, 6, 4, 0)
    small = heat[:, :6]
    assert torch.equal(smoothed(small), small)


def test_the_share_of_words_beaten_counts_ties_as_not_beaten():
    near = torch.tensor([[[0.5, 0.0]]])
    others = torch.tensor([0.1, 0.4, 0.5, 0.9])[:, None, None].expand(4, 1, 2)
    assert share_beaten(near, others).tolist() == [[[0.5, 0.0]]]


def test_the_hot_part_is_connected_with_the_hottest_cell_and_at_least_half_as_hot():
    heat = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.6, 0.0, 0.9], [0.0, 0.0, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    )
    assert torch.equal(hot_part(heat), mask(".....", ".##..", ".....", "....."))
    allowed = mask(".....", "....#", ".....", ".....")
    assert torch.equal(hot_part(heat, allowed), mask(".....", ".#...", ".....", "....."))


def test_corners_do_not_connect_and_parts_come_largest_first():
    picture = mask("#..##", ".#.##", "....#")
    assert torch.equal(connected(picture, mask("#....", ".....", ".....")), mask("#....", ".....", "....."))
    assert [int(part.sum()) for part in parts(picture)] == [5, 1, 1]
    assert parts(mask("..")) == []


def test_a_box_goes_around_all_cells_and_one_cell_is_a_box():
    assert box_around(mask("....", ".#..", "..#.")) == (1, 1, 3, 3)
    assert box_around(mask("....", "...#")) == (3, 1, 4, 2)


def test_overlap_is_intersection_over_union():
    assert overlap_of(mask("##.."), mask(".##.")) == pytest.approx(1 / 3)
    assert overlap_of(mask("...."), mask("....")) == 0


def test_the_area_under_a_curve_is_that_of_its_trapezoids():
    assert curve_area(np.array([1.0, 0.0, 0.0])) == 0.25
    assert curve_area(np.array([0.3, 0.3, 0.3, 0.3])) == pytest.approx(0.3)
