import re
from collections import Counter
from typing import get_args

import numpy as np
import pytest

from diptych.cli.make_data import SceneTask
from diptych.sets.scene_tasks import MATERIALS, SCENE_TASKS, Material, scene_choices, scene_counts, set_name, words
from scene_solver import is_true, things_in

SETS = [(task, material) for task in SCENE_TASKS for material in MATERIALS]


@pytest.mark.parametrize(("task", "material"), SETS)
def test_who_reads_the_picture_by_rule_is_always_right(task: str, material: Material):
    choices = scene_choices(task, material, pairs=6, seed=3)
    for number in range(len(choices)):
        things = things_in(choices.open(number), material)
        said = choices.right[number], choices.wrong[number]
        assert [is_true(caption, things) for caption in said] == [True, False], (said, things)


@pytest.mark.parametrize("material", MATERIALS)
def test_who_counts_by_rule_is_always_right(material: Material):
    counts = scene_counts(material, count=20, seed=5)
    assert [len(things_in(counts.open(number), material)) - 1 for number in range(20)] == counts.targets.tolist()
    assert Counter(counts.targets.tolist()) == dict.fromkeys(range(10), 2)
    assert (counts.classnames[0], counts.classnames[9]) == ("one thing", "ten things")


@pytest.mark.parametrize(("task", "material"), SETS)
def test_who_reads_the_captions_alone_is_right_on_one_of_two(task: str, material: Material):
    choices = scene_choices(task, material, pairs=5)
    assert choices.right[::2] == choices.wrong[1::2]
    assert choices.right[1::2] == choices.wrong[::2]
    assert list(choices.kinds[::2]) == list(choices.kinds[1::2])
    assert len(set(choices.keys)) == len(choices)


@pytest.mark.parametrize(("task", "material"), SETS)
def test_words_are_the_same_where_their_order_is_asked(task: str, material: Material):
    choices = scene_choices(task, material, pairs=5)
    for right, wrong, kind in zip(choices.right, choices.wrong, choices.kinds, strict=True):
        of_right, of_wrong = (Counter(re.sub(r"\ban\b", "a", text).split()) for text in (right, wrong))
        assert (of_right == of_wrong) == (kind == "order")
        if kind == "name":  # one word is another, and it is a name that may stand in a picture
            (other,) = of_wrong - of_right
            assert other in {*words().things, *words().solids, *words().colours}


def test_the_seed_decides_all_and_sets_do_not_hang_on_each_other():
    once, again, other = (scene_choices("size", "drawings", pairs=2, seed=seed) for seed in (1, 1, 2))
    assert once.scenes == again.scenes
    assert np.array_equal(np.asarray(once.open(3)), np.asarray(again.open(3)))
    assert once.scenes != other.scenes
    longer = scene_choices("size", "drawings", pairs=3, seed=1)
    assert set(once.scenes) < set(longer.scenes)


def test_the_command_offers_all_tasks():
    assert get_args(SceneTask) == (*SCENE_TASKS, "counting")
    assert set_name("left-right", "solids") == "scenes_left_right_solids"
