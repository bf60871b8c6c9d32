from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from diptych.sets.changed import changed, chosen, draw_pictures
from probes import colour_set


def test_a_changed_set_has_the_keys_and_classes_of_the_other_and_knows_the_position(tmp_path: Path):
    data = colour_set(tmp_path / "set")
    positions = []

    def mirror(picture: Image.Image, index: int) -> Image.Image:
        positions.append(index)
        return ImageOps.invert(picture)

    other = changed(data, mirror)
    assert (other.keys, other.classnames) == (data.keys, data.classnames)
    assert np.array_equal(np.asarray(other.open(5)), 255 - np.asarray(data.open(5)))
    assert positions == [5]
    assert other.image_bytes(5) == data.image_bytes(5)


def test_drawn_pictures_keep_their_classes_and_classes_without_one_go(tmp_path: Path):
    data = colour_set(tmp_path / "set")
    some, numbers = draw_pictures(data, 2, seed=1)
    assert len(some) == 2
    assert [data.classnames[number] for number in numbers] == list(some.classnames)
    for row, key in enumerate(some.keys):
        assert key.startswith(some.classnames[some.targets[row]])
        assert np.array_equal(np.asarray(some.open(row)), np.asarray(data.open(data.keys.index(key))))
    assert draw_pictures(data, 2, seed=1)[0].keys == some.keys
    assert draw_pictures(data, 99)[0].keys == data.keys


def test_chosen_pictures_keep_all_classes(tmp_path: Path):
    data = colour_set(tmp_path / "set")
    some = chosen(data, [5, 0])
    assert some.keys == (data.keys[5], data.keys[0])
    assert some.classnames == data.classnames
    assert some.targets.tolist() == data.targets[[5, 0]].tolist()
