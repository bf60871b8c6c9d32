import dataclasses
from typing import Any

import pytest

from diptych.train.bottleneck import bottleneck
from diptych.train.laps import SECTIONS, time_shares
from diptych.train.recipe import TrainRecipe
from runs import vit


def change(recipe: TrainRecipe, **options: Any) -> TrainRecipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **options))


# Seconds, worked by hand: 62 of 100 wait for data, whose one thread decodes for 95 of them.
DATA = {"data": 62.0, "step": 30.0, "optimizer": 8.0, "read": 3.0, "decode": 95.0}


def test_waiting_for_data_names_threads_and_cores_while_there_are_some(tiny_recipe):
    time = time_shares(DATA)
    smaller = "store pictures nearer to the 32 px that the model takes"
    assert bottleneck(time, tiny_recipe, cores=2) == (
        f"62% of the time waits for data: raise train.threads (now 1 of 2 cores), or {smaller}."
    )
    assert bottleneck(time, change(tiny_recipe, threads=2), cores=2) == (
        f"62% of the time waits for data: {smaller}; train.threads (2) already takes each of 2 cores."
    )
    assert "train.threads (now 1) while there are cores" in bottleneck(time, tiny_recipe)


def test_threads_that_wait_for_bytes_need_no_core(tiny_recipe):
    time = time_shares(DATA | {"read": 60.0, "decode": 38.0})
    assert bottleneck(time, change(tiny_recipe, threads=2), cores=2) == (
        "62% of the time waits for data: reading is slow; raise train.threads (now 2), or bring the data nearer: "
        "a faster disk, a cache."
    )


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [
        ({"communication": 40, "step": 60}, "40% of the time waits for other processes: the slowest one sets the pace"),
        ({"saving": 50, "data": 25, "step": 25}, "50% of the time is saving: raise train.checkpoint_every (now 2)."),
        ({"optimizer": 30, "step": 70}, "30% of the time is the optimizer: a larger train.batch_size (now 8)"),
        ({"evaluation": 3, "step": 2}, "60% of the time is evaluation: evaluate on fewer sets, or train longer."),
        ({"inputs": 3, "step": 1}, "75% of the time prepares and moves inputs: "),
        ({"other": 3, "step": 1}, "75% of the time goes by between the steps: "),
        # Each part is below a fifth: it computes.
        ({"data": 19, "saving": 19, "step": 62}, "62% of the time is forward and backward pass: what it is for; "),
        ({"data": 20, "step": 80}, "20% of the time waits for data: "),
    ],
)
def test_the_largest_part_that_is_not_computing_is_named_from_a_fifth_on(tiny_recipe, seconds, sentence):
    assert bottleneck(time_shares(seconds), tiny_recipe).startswith(sentence)


def test_advice_for_the_step_leaves_out_what_is_done_already(tiny_recipe):
    time = {"step": 1.0}
    assert bottleneck(time, tiny_recipe).endswith("try train.precision = auto, train.compile, a smaller model.")
    saving = vit(tiny_recipe, precision="auto", compile=True, micro_batch_size=4, activation_checkpointing=True)
    assert bottleneck(time, saving).endswith(
        "try a larger train.micro_batch_size, or 0, train.activation_checkpointing = false where memory allows, "
        "train.patch_dropout, a smaller model."
    )


def test_an_evaluation_on_schedule_can_be_rarer(tiny_recipe):
    advice = bottleneck({"evaluation": 1.0}, change(tiny_recipe, evaluate_every=5))
    assert "raise train.evaluate_every (now 5), or" in advice


def test_every_section_has_its_advice_in_one_line_and_no_time_has_none(tiny_recipe):
    for name in SECTIONS:
        sentence = bottleneck({name: 1.0}, tiny_recipe)
        assert sentence.startswith("100% of the time ")
        assert "\n" not in sentence
    assert bottleneck({}, tiny_recipe) == ""
