"""How many steps fit, by hand; and the first steps of a run, measured."""

import dataclasses

import pytest

from diptych.config import to_toml
from diptych.train import pace as pace_module
from diptych.train.pace import Pace, measure_pace, steps_of
from diptych.train.recipe import Phase
from runs import change


@pytest.fixture
def pace() -> Pace:
    return Pace(step=0.5, evaluation=4.0, spent=28.0)


def test_steps_fill_the_time_that_probe_and_evaluations_leave(pace):
    # 0.95 * (600 - 28 - 3 * 4) = 532 s; a step with its share of an evaluation takes 0.5 + 4 / 40 = 0.6 s: 886.7.
    assert pace.steps_within(600, evaluate_every=40) == 880
    assert pace.steps_within(600, evaluate_every=0) == 1060  # 1,064


def test_where_nothing_fits_there_are_ten_steps(pace):
    assert pace.steps_within(1, evaluate_every=40) == 10


def test_a_faster_machine_has_more_steps(pace):
    twice = dataclasses.replace(pace, step=0.25)
    assert twice.steps_within(600, evaluate_every=0) > 1.9 * pace.steps_within(600, evaluate_every=0)


def test_short_runs_are_not_measured(tiny_recipe):
    assert measure_pace(change(tiny_recipe, steps=8), evaluators={}) is None


def test_the_first_steps_of_a_run_are_timed_at_its_last_sizes_and_leave_nothing(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(pace_module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(pace_module, "_STEPS", 7)
    seen = []

    def evaluator(bundle) -> dict[str, float]:
        seen.append(bundle.preprocess.image_size)
        return {"top1": 0.5}

    recipe = change(tiny_recipe, steps=56, phases=(Phase(steps=50, image_size=64),), keep_best="x/top1")
    found = measure_pace(recipe, evaluators={"x": evaluator})
    assert found is not None
    assert 0 < 2 * found.step < found.spent
    assert 0 <= found.evaluation < found.spent
    assert seen == [32, 32]
    assert not [path for path in tmp_path.rglob("*") if path.name in ("probe", "recipe.toml", "bundle")]


def test_a_run_that_was_begun_keeps_its_steps_and_another_one_does_not(tiny_recipe, tmp_path):
    assert steps_of(tiny_recipe, tmp_path) == 0
    (tmp_path / "recipe.toml").write_text(to_toml(change(tiny_recipe, steps=3)))
    assert steps_of(tiny_recipe, tmp_path) == 3
    assert steps_of(change(tiny_recipe, batch_size=4), tmp_path) == 0
    (tmp_path / "recipe.toml").write_text("steps = ")
    assert steps_of(tiny_recipe, tmp_path) == 0
