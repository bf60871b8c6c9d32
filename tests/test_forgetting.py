import dataclasses

import pytest

from diptych.errors import ConfigError, TrainingError
from diptych.train.checkpoint import Checkpoint
from diptych.train.forgetting import forgotten, with_changes
from diptych.train.log import read_log
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train
from runs import change
from test_best import scripted
from test_files import names


def test_a_change_is_now_less_before():
    assert with_changes({"a/top1": 0.5}, {"a/top1": 0.75}) == {"a/top1": 0.5, "a/top1_change": -0.25}
    assert with_changes({"a/top1": 0.5}, {}) == {"a/top1": 0.5}


def test_the_task_that_lost_the_most_is_named_with_before_after_and_cure():
    before, after = {"a": 0.5, "b": 0.9, "new": 0.9}, {"a": 0.25, "b": 0.8, "new": 0.0}
    sentence = forgotten(after, before, old_tasks=("a", "b"), limit=0.05)
    assert sentence.startswith("a may fall by 0.05 at most (train.max_forgetting), and fell from 0.500 to 0.250.")
    for cure in ("train.learning_rate", "train.layer_decay", "diptych models average"):
        assert cure in sentence
    assert forgotten(after, before, old_tasks=("a", "b"), limit=0.25) == ""  # as much as is borne
    assert forgotten(after, before, old_tasks=("b",), limit=0.2) == ""
    assert forgotten(after, before, old_tasks=("a",), limit=0.0) == ""  # no limit


@pytest.fixture(scope="module")
def tuned(tiny_recipe, tmp_path_factory) -> TrainRecipe:
    """A recipe that starts from a trained model."""
    out = tmp_path_factory.mktemp("start")
    train(change(tiny_recipe, steps=1), out)
    recipe = dataclasses.replace(tiny_recipe, start_from=str(out / "bundle"))
    return change(recipe, steps=4, evaluate_every=2, checkpoint_every=100, old_tasks=("set/top1",))


def test_each_evaluation_logs_how_far_it_is_from_the_start(tuned, tmp_path):
    result = train(tuned, tmp_path, evaluators={"set": scripted(0.5, 0.75, 0.25)})
    assert result.metrics == {"set/top1": 0.25, "set/top1_change": -0.25}
    lines = [line for line in read_log(tmp_path / "log.jsonl") if "set/top1" in line]
    assert [(line["step"], line.get("set/top1_change")) for line in lines] == [(0, None), (2, 0.25), (4, -0.25)]
    assert Checkpoint.load(tmp_path / "checkpoints" / "step-00000004").reference == {"set/top1": 0.5}


def test_a_run_that_forgets_too_much_stops_saved_and_goes_on_when_the_limit_is_raised(tuned, tmp_path):
    limited = change(tuned, max_forgetting=0.125)
    with pytest.raises(TrainingError, match=r"fell from 0\.500 to 0\.250\. .* The run is saved at step 2\.$") as caught:
        train(limited, tmp_path, evaluators={"set": scripted(0.5, 0.25)})
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "checkpoints") == ["step-00000002"]
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(TrainingError, match=r"fell from 0\.500 to 0\.250\."):  # again, at once
        train(limited, tmp_path, on_progress=lambda _: pytest.fail("a step was done"))
    result = train(change(tuned, max_forgetting=0.375), tmp_path, evaluators={"set": scripted(0.25)})
    assert result.finished
    assert result.metrics["set/top1_change"] == -0.25  # of the first evaluation, two lives ago


def test_a_limit_reached_at_the_last_step_leaves_no_bundle(tuned, tmp_path):
    with pytest.raises(TrainingError, match=r"The run is saved at step 4\."):
        train(change(tuned, max_forgetting=0.1), tmp_path, evaluators={"set": scripted(0.5, 0.5, 0.25)})
    assert not (tmp_path / "bundle").exists()


def test_a_run_from_scratch_has_no_changes(tiny_recipe, tmp_path):
    result = train(change(tiny_recipe, steps=1), tmp_path, evaluators={"set": scripted(0.5, 0.25)})
    assert result.metrics == {"set/top1": 0.25}


def test_old_tasks_that_cannot_be_are_refused(tiny_recipe, tuned, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.old_tasks: set/top2 is not a metric of this run\."):
        train(change(tuned, old_tasks=("set/top2",)), tmp_path, evaluators={"set": scripted(0.5)})
    with pytest.raises(ConfigError, match=r"train\.old_tasks must be empty without start_from"):
        change(tiny_recipe, old_tasks=("set/top1",))
    with pytest.raises(ConfigError, match=r"train\.max_forgetting must be 0 unless train\.old_tasks names"):
        change(tiny_recipe, max_forgetting=0.1)
