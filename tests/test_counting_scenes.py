from collections import Counter

import numpy as np
import pytest

from diptych.errors import DataError
from diptych.sets.counting_scenes import COLOURS, SHAPES, SIZE, Solid, draw_scene, hidden, place, scenes


def test_a_scene_has_as_many_things_as_asked_for_and_none_hides_another():
    for count in (3, 10):
        solids = place(count, np.random.default_rng(count))
        assert len(solids) == count
        assert [one.y for one in solids] == sorted(one.y for one in solids)
        assert max(hidden(a, b) for a in solids for b in solids if a is not b) <= 0.1
        # all of it within the middle square: a centre crop keeps the count
        assert all(one.x - one.radius >= 80 and one.x + one.radius <= 400 for one in solids)
        assert all(one.radius < one.y < SIZE[1] - one.radius for one in solids)


def test_things_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="500 things must fit"):
        place(500, np.random.default_rng(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_is_drawn_where_it_stands_in_its_colour(shape):
    empty = np.asarray(draw_scene([])).astype(int)
    picture = np.asarray(draw_scene([Solid(shape, "red", False, 240, 160, 30)])).astype(int)
    red, green, blue = picture[160, 240]
    assert red > 2 * max(green, blue)
    changed = np.abs(picture - empty).sum(axis=2) > 0
    assert not changed[:, :200].any()
    assert not changed[:100].any()
    assert changed[131:189, 215:265].mean() > 0.8


def test_what_comes_later_lies_before():
    first, second = (Solid("sphere", colour, False, 240, 160, 30) for colour in ("red", "blue"))
    assert np.asarray(draw_scene([first, second]))[160, 240].argmax() == 2
    assert np.asarray(draw_scene([second, first]))[160, 240].argmax() == 0


def test_counts_come_equally_often_and_the_seed_decides_all():
    labels = Counter(label for _, _, label in scenes(16, seed=0, split="test"))
    assert labels == dict.fromkeys(range(8), 2)
    once, again, other = (
        [np.asarray(picture) for _, picture, _ in scenes(1, seed=seed, split=split)]
        for seed, split in ((1, "test"), (1, "test"), (1, "train"))
    )
    assert np.array_equal(once[0], again[0])
    assert not np.array_equal(once[0], other[0])
    assert len(COLOURS) == 8
