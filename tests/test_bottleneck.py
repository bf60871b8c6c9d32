import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from diptych.model.clip import CLIP
from diptych.train.bottleneck import bottleneck
from diptych.train.laps import SECTIONS, time_shares
from diptych.train.recipe import TrainRecipe, read_recipe
from runs import vit
from tower_kinds import IMAGE_KINDS, TEXT_KINDS, image_of, text_of, with_model


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


def test_what_happens_once_at_the_end_cannot_be_rarer(tiny_recipe):
    assert "raise train.checkpoint_every (now 2)" in bottleneck({"saving": 1.0}, tiny_recipe)
    once = change(tiny_recipe, evaluate_every=500, checkpoint_every=500)  # of eight steps
    for section in ("evaluation", "saving"):
        sentence = bottleneck({section: 1.0}, once)
        assert "train longer" in sentence
        assert "raise" not in sentence


def test_every_section_has_its_advice_in_one_line_and_no_time_has_none(tiny_recipe):
    for name in SECTIONS:
        sentence = bottleneck({name: 1.0}, tiny_recipe)
        assert sentence.startswith("100% of the time ")
        assert "\n" not in sentence
    assert bottleneck({}, tiny_recipe) == ""


# What a sentence may name, and a value that follows its advice.
FOLLOWED = {
    "precision": "auto",
    "micro_batch_size": 0,
    "activation_checkpointing": False,
    "compile": True,
    "patch_dropout": 0.5,
    "threads": 2,
    "batch_size": 16,
    "evaluate_every": 7,
    "checkpoint_every": 7,
    "log_every": 7,
}


@pytest.mark.parametrize("options", [{}, {"precision": "auto", "compile": True, "activation_checkpointing": True}])
@pytest.mark.parametrize("text", TEXT_KINDS)
@pytest.mark.parametrize("image", IMAGE_KINDS)
def test_every_option_that_a_sentence_names_can_be_had_with_these_towers_and_is_not_yet(
    image, text, options, tiny_recipe
):
    compiles = not image_of(image).row_width
    wanted = {name: value for name, value in options.items() if compiles or name != "compile"}
    recipe = with_model(tiny_recipe, image_of(image), text_of(text), evaluate_every=5, **wanted)
    advice = {name: bottleneck({name: 1.0}, recipe, cores=4) for name in SECTIONS}
    for option in re.findall(r"train\.(\w+)", " ".join(advice.values())):
        followed = change(recipe, **{option: FOLLOWED[option]})  # the recipe takes it
        assert followed != recipe, f"train.{option} is so already"
    has_blocks = bool(CLIP(recipe.model).blocks())
    assert ("train.compile" in advice["step"]) == (has_blocks and compiles and not recipe.train.compile)
    assert ("train.activation_checkpointing" in advice["step"]) == (
        has_blocks and recipe.train.activation_checkpointing
    )
    if recipe.model.image.can_drop_patches:
        dropping = change(recipe, patch_dropout=0.5)
        assert "train.patch_dropout" in bottleneck({"inputs": 1.0}, dropping)
        assert "train.patch_dropout" not in bottleneck({"step": 1.0}, dropping)


def test_a_run_of_the_captions_recipe_is_given_no_advice_that_would_be_refused():
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "photo-captions.toml")
    sentence = "100% of the time is forward and backward pass: what it is for; to go faster, try a smaller model."
    assert bottleneck({"step": 1.0}, recipe) == sentence


def test_a_frozen_image_tower_is_not_to_drop_patches(tiny_recipe):
    recipe = dataclasses.replace(tiny_recipe, start_from="somewhere")
    assert "patch_dropout" in bottleneck({"step": 1.0}, vit(recipe))
    assert "patch_dropout" not in bottleneck({"step": 1.0}, vit(recipe, freeze=("image",)))
