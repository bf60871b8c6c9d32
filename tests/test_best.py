import signal
from pathlib import Path

import pytest

from diptych.errors import ConfigError, DataError, WeightsError
from diptych.model.clip import CLIP
from diptych.torch_runtime import generator
from diptych.train.best import Best, BestBundle, check_metric, read_best
from diptych.train.heads import Heads
from diptych.train.trainer import StepReport, train
from diptych.weights.bundle import Bundle
from runs import change, count_pairs
from test_files import names, room_for

NONE = Heads(objectives=(), tensors={})


@pytest.fixture
def bundle(tiny_recipe, tokenizer) -> Bundle:
    model = CLIP(tiny_recipe.model, generator(0))
    return Bundle(model=model, preprocess=tiny_recipe.preprocess, tokenizer=tokenizer)


def scripted(*values: float):
    """An evaluator that gives one value after the other."""
    left = list(values)
    return lambda _: {"top1": left.pop(0)}


def test_the_highest_is_kept_and_of_equals_the_earlier(bundle, tmp_path):
    best = BestBundle(tmp_path / "best", "a", is_new=True)
    steps = []
    for step, value in enumerate([0.2, 0.1, 0.4, 0.4, 0.3], start=10):
        best.offer(bundle, NONE, {"a": value, "b": 9.0}, step)
        found = read_best(tmp_path / "best")
        assert found
        steps.append(found.step)
    assert steps == [10, 10, 12, 12, 12]
    assert read_best(tmp_path / "best") == Best("a", 0.4, 12)
    assert Bundle.load(tmp_path / "best").fingerprint() == bundle.fingerprint()


def test_who_goes_on_knows_what_was_there_and_who_starts_or_asks_for_another_metric_does_not(bundle, tmp_path):
    BestBundle(tmp_path / "best", "a", is_new=True).offer(bundle, NONE, {"a": 0.5}, 3)
    BestBundle(tmp_path / "best", "a", is_new=False).offer(bundle, NONE, {"a": 0.4}, 4)
    assert read_best(tmp_path / "best") == Best("a", 0.5, 3)
    BestBundle(tmp_path / "best", "b", is_new=False).offer(bundle, NONE, {"b": 0.1}, 5)
    assert read_best(tmp_path / "best") == Best("b", 0.1, 5)
    BestBundle(tmp_path / "best", "b", is_new=True).offer(bundle, NONE, {"b": 0.0}, 0)
    assert read_best(tmp_path / "best") == Best("b", 0.0, 0)


def test_a_full_disk_leaves_the_one_before(bundle, tmp_path):
    best = BestBundle(tmp_path / "best", "a", is_new=True)
    best.offer(bundle, NONE, {"a": 0.1}, 1)
    with room_for(50_000), pytest.raises(DataError, match="best could not be written: File too large"):
        best.offer(bundle, NONE, {"a": 0.2}, 2)
    assert names(tmp_path) == ["best"]
    assert read_best(tmp_path / "best") == Best("a", 0.1, 1)
    best.offer(bundle, NONE, {"a": 0.15}, 3)
    assert read_best(tmp_path / "best") == Best("a", 0.15, 3)


def test_a_damaged_record_is_one_sentence(tmp_path):
    (tmp_path / "best.json").write_text('{"metric": "a"')
    with pytest.raises(WeightsError, match=r"best\.json must be the record of an evaluation: "):
        read_best(tmp_path)
    assert read_best(tmp_path / "not there") is None


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"train\.keep_best: set/top is not a metric .* mean set/top1\?"):
        check_metric("train.keep_best", "set/top", {"set/top1": 0.1, "set/mean": 0.2})
    with pytest.raises(ConfigError, match=r"the run measures nothing\. Name a labelled set in `evaluate`\."):
        check_metric("train.keep_best", "set/top1", {})


def test_a_run_keeps_its_best_evaluation(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, keep_best="set/top1", evaluate_every=2, checkpoint_every=1, keep_checkpoints=8)
    train(recipe, tmp_path, evaluators={"set": scripted(0.0, 0.1, 0.3, 0.3, 0.2)})  # at steps 0, 2, 4, 6, 8
    assert read_best(tmp_path / "best") == Best("set/top1", 0.3, 4)
    wanted = Bundle.load(tmp_path / "checkpoints" / "step-00000004")
    assert Bundle.load(tmp_path / "best").fingerprint() == wanted.fingerprint()


def test_a_name_that_is_wrong_stops_a_run_before_its_first_step(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, keep_best="set/top2")
    with pytest.raises(ConfigError, match=r"train\.keep_best: set/top2 is not a metric of this run\. Did you mean"):
        train(recipe, tmp_path, evaluators={"set": scripted(0.1)}, on_progress=lambda _: pytest.fail("a step was done"))
    with pytest.raises(ConfigError, match="the run measures nothing"):
        train(recipe, tmp_path)


def test_the_best_survives_a_stop_and_a_kill(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, keep_best="set/mean", evaluate_every=1, checkpoint_every=4)

    def disturb(progress: StepReport) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGTERM)
        if progress.step == 6:  # after the evaluation, before the next checkpoint
            raise RuntimeError("as if killed")

    def state(folder: Path) -> tuple[Best | None, str]:
        return read_best(folder / "best"), Bundle.load(folder / "best").fingerprint()

    evaluators = {"set": count_pairs}
    train(recipe, tmp_path / "undisturbed", evaluators=evaluators)
    train(recipe, tmp_path / "run", evaluators=evaluators, on_progress=disturb)
    with pytest.raises(RuntimeError, match="as if killed"):
        train(recipe, tmp_path / "run", evaluators=evaluators, on_progress=disturb)
    train(recipe, tmp_path / "run", evaluators=evaluators)
    assert state(tmp_path / "run") == state(tmp_path / "undisturbed")
