import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.config import from_dict, to_dict, to_toml
from diptych.errors import ConfigError
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.siglip import SigLIPTextTowerConfig
from diptych.train.checkpoint import Checkpoint
from diptych.train.int8 import decoded
from diptych.train.phases import Stage, fitted, recipe_at, stage_at, stages
from diptych.train.plan import plan_run
from diptych.train.recipe import Phase, TrainRecipe, read_recipe
from diptych.train.trainer import StepReport, train
from diptych.weights.bundle import Bundle
from processes import run_ranks
from runs import assert_same_run, count_pairs, furthest, learn, vit
from test_plan import setup

PHASES = (Phase(steps=3, image_size=16, context_length=5), Phase(steps=2, image_size=24))


def phased(recipe: TrainRecipe, **options: Any) -> TrainRecipe:
    """Three steps at 16 px with 5 tokens, two at 24 px, three at the model's own 32 px and 16 tokens."""
    return vit(recipe, **({"phases": PHASES} | options))


def test_each_step_has_the_sizes_of_its_phase(tiny_recipe):
    recipe = phased(tiny_recipe)
    first, second, own = Stage(0, 3, 16, 5), Stage(3, 5, 24, 16), Stage(5, 8, 32, 16)
    assert stages(recipe) == [first, second, own]
    assert [stage_at(recipe, step) for step in range(9)] == [first] * 3 + [second] * 2 + [own] * 4
    assert stages(vit(tiny_recipe)) == [Stage(0, 8, 32, 16)]
    at = recipe_at(recipe, first)
    assert (at.model.image.image_size, at.preprocess.image_size, at.model.text.context_length) == (16, 16, 5)
    assert stages(at) == [Stage(0, 8, 16, 5)]


def test_phases_are_read_from_toml_and_printed(tiny_recipe, tmp_path):
    recipe = phased(tiny_recipe)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    assert "[[train.phases]]\nsteps = 3\nimage_size = 16\ncontext_length = 5\n" in to_toml(recipe)
    assert read_recipe(tmp_path / "recipe.toml") == recipe
    assert from_dict(TrainRecipe, to_dict(recipe)) == recipe


def sizes_seen(recipe: TrainRecipe, out: Path, **options: Any) -> tuple[list[int], Any]:
    """The image size that evaluators were given, before the first step and after each."""
    seen = []

    def evaluate(bundle: Bundle) -> dict[str, float]:
        seen.append(bundle.preprocess.image_size)
        return count_pairs(bundle)

    return seen, train(recipe, out, evaluators={"set": evaluate}, **options)


@pytest.fixture(scope="module")
def undisturbed(tiny_recipe, tmp_path_factory) -> tuple[TrainRecipe, Path, list[int], Any]:
    """A run with phases, an average and moments of 8 bits. Not to be written to."""
    recipe = phased(tiny_recipe, ema_decay=0.5, optimizer_state="int8", evaluate_every=1, checkpoint_every=1)
    out = tmp_path_factory.mktemp("phased")
    return recipe, out, *sizes_seen(recipe, out)


def test_a_run_goes_through_its_phases_and_ends_with_the_models_own_size(undisturbed):
    recipe, out, seen, result = undisturbed
    assert seen == [16, 16, 16, 16, 24, 24, 32, 32, 32]
    bundle = Bundle.load(out / "bundle")
    assert bundle.model.config.image.image_size == bundle.preprocess.image_size == 32
    assert bundle.tokenizer.context_length == recipe.model.text.context_length
    assert result.counts["truncated"] > 0  # in the phase of 5 tokens: "a drawing of a red square"


def test_texts_are_cut_in_their_phase_alone(tiny_recipe, tmp_path):
    cut = phased(tiny_recipe, phases=(Phase(steps=1, image_size=32, context_length=3),), steps=2)
    result = train(cut, tmp_path / "cut")
    assert result.counts["truncated"] == 8  # all of the first batch, none of the second


@pytest.mark.parametrize("step", [2, 3, 5])  # within a phase, and right between two
def test_a_run_that_was_stopped_lands_in_the_right_phase_to_the_bit(undisturbed, tmp_path, step):
    recipe, out, _, _ = undisturbed

    def stop(progress: StepReport) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    first, _ = sizes_seen(recipe, tmp_path, on_progress=stop)
    second, _ = sizes_seen(recipe, tmp_path)
    assert first + second == [16, 16, 16, 16, 24, 24, 32, 32, 32]
    assert_same_run(tmp_path, out)


def test_positions_their_moments_and_their_average_are_stretched_and_nothing_else(undisturbed):
    _, out, _, _ = undisturbed
    saved = Checkpoint.load(out / "checkpoints" / "step-00000008")  # 32 px, 4 x 4 patches
    larger = fitted(saved, 64)
    assert fitted(saved, 32) is saved
    name = "image.position_embedding"
    assert larger.bundle.model.image.position_embedding.shape == larger.average[name].shape == (65, 32)
    changed = {key for key in saved.optimizer if larger.optimizer[key] is not saved.optimizer[key]}
    assert changed == {f"{name}.{key}" for key in ("exp_avg", "exp_avg_scale", "exp_avg_sq", "exp_avg_sq_scale")}
    before, after = (
        [decoded(c.optimizer[f"{name}.{key}"], c.optimizer[f"{name}.{key}_scale"]) for key in ("exp_avg", "exp_avg_sq")]
        for c in (saved, larger)
    )
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new[0], old[0], rtol=0.15, atol=1e-9)  # of the class token, rounded once more
        assert new[1:].mean().item() == pytest.approx(old[1:].mean().item(), rel=0.2, abs=1e-6)
    assert (after[1] >= 0).all()
    others = {key for key in saved.average if larger.average[key] is not saved.average[key]}
    assert others == {name}


def test_second_moments_that_vary_wildly_stay_positive(tiny_recipe, tmp_path):
    train(phased(tiny_recipe, steps=1, phases=()), tmp_path)
    saved = Checkpoint.load(tmp_path / "checkpoints" / "step-00000001")
    moment = torch.zeros(17, 32)
    moment[6] = 1.0  # a bicubic stretch would go below 0 beside it
    optimizer = {**saved.optimizer, "image.position_embedding.exp_avg_sq": moment}
    larger = fitted(dataclasses.replace(saved, optimizer=optimizer), 64).optimizer
    assert larger["image.position_embedding.exp_avg_sq"].min() == 0
    assert larger["image.position_embedding.exp_avg_sq"].max() > 0.5


def test_a_resnet_goes_through_phases_too(tiny_recipe, tmp_path):
    image = dataclasses.replace(tiny_recipe.model.image, image_size=64)
    assert isinstance(image, ResNetTowerConfig)
    recipe = dataclasses.replace(
        tiny_recipe,
        model=dataclasses.replace(tiny_recipe.model, image=image),
        preprocess=dataclasses.replace(tiny_recipe.preprocess, image_size=64),
        train=dataclasses.replace(tiny_recipe.train, phases=(Phase(steps=2, image_size=32),), steps=3),
    )
    train(recipe, tmp_path)
    assert Checkpoint.load(tmp_path / "checkpoints" / "step-00000002").bundle.preprocess.image_size == 32
    assert Bundle.load(tmp_path / "bundle").preprocess.image_size == 64


def test_a_run_with_phases_may_start_from_a_bundle_of_any_size(undisturbed, tiny_recipe, tmp_path):
    _, out, _, _ = undisturbed
    recipe = dataclasses.replace(phased(tiny_recipe, evaluate_every=1), start_from=str(out / "bundle"))
    seen, _ = sizes_seen(recipe, tmp_path)
    assert seen == [16, 16, 16, 16, 24, 24, 32, 32, 32]


@pytest.mark.parametrize(
    ("options", "bound"),
    [({"parallel": "fsdp", "ema_decay": 0.5}, 2e-4), ({"optimizer_state": "int8", "layer_decay": 0.8}, 2e-3)],
)
def test_several_processes_go_through_phases_as_one_does(tiny_recipe, tmp_path, options, bound):
    recipe = phased(tiny_recipe, steps=6, checkpoint_every=100, **options)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    learn(tmp_path / "recipe.toml", tmp_path / "alone", False)
    for stop_after in (3, 0):
        run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "run", False, stop_after)
    assert furthest(tmp_path / "run", tmp_path / "alone") < bound


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((Phase(steps=8, image_size=16),), r"must leave steps for the model's own sizes, .* Got 8 of train\.steps=8\."),
        ((Phase(steps=1, image_size=17),), r"train\.phases\[0\]\.image_size: image\.patch_size must divide"),
        ((Phase(steps=1, image_size=16, context_length=17),), r"phases\[0\]\.context_length must lie in 3 to .*=16"),
        ((Phase(steps=1, image_size=16, context_length=2),), r"phases\[0\]\.context_length must lie in 3 to .* Got 2"),
    ],
)
def test_phases_that_cannot_be_are_refused(tiny_recipe, phases, message):
    with pytest.raises(ConfigError, match=message) as caught:
        phased(tiny_recipe, phases=phases)
    assert "\n" not in str(caught.value)


def test_what_a_phase_cannot_do_is_refused(tiny_recipe):
    with pytest.raises(ConfigError, match="at least 1 step each"):
        Phase(steps=0, image_size=16)
    text = SigLIPTextTowerConfig(context_length=16, vocab_size=600, width=32, layers=1, heads=2)
    recipe = phased(tiny_recipe)
    with pytest.raises(ConfigError, match="cannot shorten texts for a siglip text tower, which reads the padding"):
        dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, text=text))


def test_a_plan_counts_the_time_of_each_phase(tiny_recipe):
    recipe = phased(tiny_recipe)
    found = plan_run(recipe, setup())
    own = plan_run(vit(tiny_recipe), setup())
    assert found.memory == own.memory
    parts = [plan_run(recipe_at(recipe, stage), setup()).seconds["step"] for stage in stages(recipe)]
    assert parts[0] < parts[1] < parts[2] == own.seconds["step"]
    assert found.seconds["run"] == pytest.approx(3 * parts[0] + 2 * parts[1] + 3 * parts[2])
