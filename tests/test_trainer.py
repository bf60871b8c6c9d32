import dataclasses
import json
import math
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from conftest import drawing, png
from diptych.config import to_toml
from diptych.errors import ConfigError, DataError, DiptychError, TrainingError
from diptych.files import folder_lock
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.pairs.pipeline import Source, batches, pair_sources
from diptych.pairs.shards import ShardWriter
from diptych.runtime import generator
from diptych.train import distributed, exchange, trainer
from diptych.train.checkpoint import Checkpoint
from diptych.train.laps import Laps
from diptych.train.log import read_log
from diptych.train.recipe import TrainRecipe, read_recipe
from diptych.train.schedule import learning_rate
from diptych.train.trainer import Progress, TrainResult, train
from diptych.weights.bundle import Bundle
from test_distributed import run_ranks, start_ranks, vit
from test_files import names
from test_loss import pair_by_pair_loss


def change(recipe: TrainRecipe, **options: Any) -> TrainRecipe:
    """A recipe with some options of its loop changed."""
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **options))


def with_source(recipe: TrainRecipe, folder: Path, **options: Any) -> TrainRecipe:
    data = dataclasses.replace(recipe.data, sources=(Source(path=str(folder)),), **options)
    return dataclasses.replace(recipe, data=data)


def watched(recipe: TrainRecipe, out: Path, **options: Any) -> tuple[TrainResult, list[Progress]]:
    seen: list[Progress] = []
    return train(recipe, out, on_progress=seen.append, **options), seen


def timeless(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("seconds", "time")} for line in log]


def count_pairs(bundle: Bundle) -> dict[str, float]:
    """An evaluator that depends on the weights."""
    return {"mean": bundle.encode_texts(["red square"]).mean().item()}


def assert_same_run(out: Path, undisturbed: Path) -> None:
    """To the bit: the bundle, the optimizer's memory, and the log but for times."""
    last = max(names(undisturbed / "checkpoints"))
    assert max(names(out / "checkpoints")) == last
    for file in ("bundle/model.safetensors", f"checkpoints/{last}/training.safetensors"):
        assert (out / file).read_bytes() == (undisturbed / file).read_bytes(), file
    assert timeless(read_log(out / "log.jsonl")) == timeless(read_log(undisturbed / "log.jsonl"))


@pytest.fixture(scope="module")
def undisturbed(tiny_recipe, tmp_path_factory) -> tuple[Path, TrainResult, list[Progress]]:
    """The tiny recipe, run once. Not to be written to."""
    out = tmp_path_factory.mktemp("undisturbed")
    return out, *watched(change(tiny_recipe, evaluate_every=3), out, evaluators={"set": count_pairs})


@pytest.fixture
def run_tiny(tiny_recipe) -> Callable[..., tuple[TrainResult, list[Progress]]]:
    """The same run somewhere else, with an ear on its progress."""

    def run(out: Path, on_progress: Callable[[Progress], None] = lambda _: None, **options: Any):
        seen: list[Progress] = []

        def listen(progress: Progress) -> None:
            seen.append(progress)
            on_progress(progress)

        recipe = change(tiny_recipe, evaluate_every=3, **options)
        return train(recipe, out, evaluators={"set": count_pairs}, on_progress=listen), seen

    return run


def test_progress_tells_where_the_run_is(undisturbed, tiny_recipe):
    _, _, seen = undisturbed
    assert [progress.step for progress in seen] == list(range(1, 9))
    assert {progress.steps for progress in seen} == {8}
    assert [progress.pairs for progress in seen] == list(range(8, 65, 8))
    rates = [learning_rate(step, peak=2e-3, warmup_steps=2, steps=8) for step in range(8)]
    assert [progress.learning_rate for progress in seen] == rates
    assert all(0 < progress.loss < 3 * math.log(8) for progress in seen)
    assert all(progress.gradient_norm > 0 for progress in seen)
    assert seen[0].logit_scale == pytest.approx(1 / 0.07, rel=0.01)
    assert [p.seconds for p in seen] == sorted(p.seconds for p in seen)
    assert seen[0].pairs_per_second == pytest.approx(8 / seen[0].seconds)


def test_the_folder_of_a_run_holds_recipe_log_checkpoints_and_bundle(undisturbed, tiny_recipe):
    out, result, seen = undisturbed
    assert names(out) == [".lock", "bundle", "checkpoints", "log.jsonl", "recipe.toml"]
    assert names(out / "checkpoints") == ["step-00000006", "step-00000008"]
    assert read_recipe(out / "recipe.toml") == change(tiny_recipe, evaluate_every=3)
    start, *lines = read_log(out / "log.jsonl")
    assert start.pop("time")["evaluation"] > 0
    assert start == {"step": 0, "pairs": 0, "seconds": 0.0, "set/mean": start["set/mean"]}
    assert lines == [progress.logged(with_metrics=progress.step in (3, 6, 8)) for progress in seen]
    assert seen[0].metrics == {"set/mean": start["set/mean"]}
    fields = {"step", "pairs", "seconds", "loss", "gradient_norm", "learning_rate", "logit_scale", "time"}
    assert [line.keys() - fields for line in lines] == [
        {"set/mean"} if step in (3, 6, 8) else set() for step in range(1, 9)
    ]
    bundle = Bundle.load(out / "bundle")
    assert bundle.fingerprint() == result.bundle.fingerprint()
    assert bundle.about.recipe == (out / "recipe.toml").read_text()


def test_the_result_counts_what_was_seen(undisturbed):
    _, result, seen = undisturbed
    assert (result.step, result.finished) == (8, True)
    counts = dict(result.counts)
    assert counts.pop("train_seconds") == pytest.approx(seen[-1].seconds, abs=0.01)
    time = counts.pop("time")
    assert sum(time[name] for name in ("data", "inputs", "step", "optimizer")) == pytest.approx(
        seen[-1].seconds, rel=0.1, abs=0.05
    )
    assert counts == {"pairs": 64, "truncated": 0, "bad": {}}
    assert not result.bundle.model.training


def test_evaluators_are_called_on_schedule_with_a_model_that_stands_still(tiny_recipe, tmp_path):
    calls = []

    def evaluate(bundle: Bundle) -> dict[str, float]:
        calls.append(bundle.model.training)
        return {"top1": len(calls) / 10, "top5": 1.0}

    recipe = change(tiny_recipe, evaluate_every=3, checkpoint_every=100)
    result, seen = watched(recipe, tmp_path, evaluators={"one": evaluate})
    assert calls == [False] * 4  # before the first step, after steps 3 and 6, at the end
    tops = [progress.metrics.get("one/top1") for progress in seen]
    assert tops == [0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.4]
    assert result.metrics == {"one/top1": 0.4, "one/top5": 1.0}
    calls.clear()
    watched(change(tiny_recipe, checkpoint_every=100), tmp_path / "at the end", evaluators={"one": evaluate})
    assert len(calls) == 2


def test_the_logit_scale_is_held_in_bounds_on_the_way(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, learning_rate=1.0, warmup_steps=0, checkpoint_every=100)
    _, seen = watched(recipe, tmp_path)  # Adam moves its logarithm, 2.7 at first, by up to 1 a step
    assert min(progress.logit_scale for progress in seen) == 1.0
    assert max(progress.logit_scale for progress in seen) <= 100.001


def test_the_loss_falls_on_pairs_that_can_be_told_apart(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, steps=40, batch_size=20, checkpoint_every=100, log_every=100)
    _, seen = watched(recipe, tmp_path)
    losses = [progress.loss for progress in seen]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("same_text_is_positive", [True, False])
def test_the_first_loss_is_that_of_the_plain_twin(tiny_recipe, tmp_path, same_text_is_positive):
    recipe = change(tiny_recipe, steps=1, batch_size=40, same_text_is_positive=same_text_is_positive)
    recipe = with_source(recipe, Path(recipe.data.sources[0].path), templates=("{}", "a drawing of one {} on white"))
    result, (progress,) = watched(recipe, tmp_path)
    (batch,) = batches(
        pair_sources(recipe.data),
        recipe.data,
        preprocess=recipe.preprocess,
        tokenizer=result.bundle.tokenizer,
        batch_size=40,
        seed=recipe.seed,
        start=0,
        stop=1,
    )
    model = CLIP(recipe.model, generator(recipe.seed)).train()
    output = model(recipe.preprocess.normalise(batch.images), batch.tokens)
    ids, own = batch.text_ids.tolist(), list(range(40))
    twins = {True: pair_by_pair_loss(*output[:3], (ids, ids)), False: pair_by_pair_loss(*output[:3], (own, own))}
    assert twins[True].item() != pytest.approx(twins[False].item(), rel=1e-3)
    assert progress.loss == pytest.approx(twins[same_text_is_positive].item(), rel=1e-4)


def test_seconds_are_those_of_training_alone(tiny_recipe, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    update, save = trainer._Run.update, Checkpoint.save

    def takes(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any, **options: Any) -> Any:
            clock[0] += seconds
            return function(*args, **options)

        return slow

    monkeypatch.setattr(trainer._Run, "update", takes(2.0, update))
    monkeypatch.setattr(Checkpoint, "save", takes(1000.0, save))
    evaluators = {"slow": takes(1000.0, count_pairs)}
    recipe = change(tiny_recipe, steps=4, evaluate_every=1, checkpoint_every=1)
    seen: list[Progress] = []
    result = train(recipe, tmp_path, evaluators=evaluators, on_progress=takes(1000.0, seen.append))
    assert [(progress.seconds, progress.pairs_per_second) for progress in seen] == [(2, 4), (4, 4), (6, 4), (8, 4)]
    assert result.counts["train_seconds"] == 8


def test_each_line_of_the_log_says_where_the_time_since_the_last_one_went(tiny_recipe, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(distributed, "Laps", lambda: Laps(lambda: clock[0]))

    def takes(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any, **options: Any) -> Any:
            clock[0] += seconds
            return function(*args, **options)

        return slow

    for owner, name, seconds in (
        (trainer._Run, "_inputs", 1.0),
        (trainer._Run, "_forward", 2.0),
        (trainer, "clip_gradients", 2.0),
        (trainer, "clamp_logit_scale", 4.0),
        (Checkpoint, "save", 8.0),
    ):
        monkeypatch.setattr(owner, name, takes(seconds, getattr(owner, name)))
    draw = trainer.batches

    def late(*args: Any, **options: Any) -> Iterator[Any]:
        for batch in draw(*args, **options):
            clock[0] += 3.0
            yield dataclasses.replace(batch, seconds={"read": 0.5, "decode": 6.0})

    monkeypatch.setattr(trainer, "batches", late)
    recipe = change(tiny_recipe, steps=4, log_every=2, evaluate_every=4, checkpoint_every=1)
    evaluators = {"slow": takes(16.0, count_pairs)}
    result = train(recipe, tmp_path, evaluators=evaluators, on_progress=takes(2.0, lambda _: None))
    start, first, second = (line["time"] for line in read_log(tmp_path / "log.jsonl"))
    assert start == {"evaluation": 16, "saving": 0, "other": 0}
    # Before the first line after it: two steps, a save and a call between them.
    seconds = {"data": 6, "inputs": 2, "step": 8, "optimizer": 8, "saving": 8, "other": 2}
    assert first == seconds | {"read": 1, "decode": 12}
    # Then once more, with an evaluation; the save and the call after the first line are the second line's.
    assert second == first | {"evaluation": 16, "saving": 16, "other": 4}
    whole = {"data": 12, "inputs": 4, "step": 16, "optimizer": 16, "evaluation": 32, "saving": 32, "other": 8}
    assert result.counts["time"] == whole | {"read": 2, "decode": 24}


def test_bfloat16_comes_near_float32_and_is_not_it(tiny_recipe, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16"):
        recipe = change(tiny_recipe, steps=2, precision=precision, checkpoint_every=100)
        _, seen = watched(recipe, tmp_path / precision)
        losses[precision] = [progress.loss for progress in seen]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]


def test_a_gradient_is_clipped_and_its_own_length_is_told(tiny_recipe, tmp_path):
    free = change(tiny_recipe, steps=2, checkpoint_every=100)
    _, (first, second) = watched(free, tmp_path / "free")
    _, (clipped_first, clipped_second) = watched(change(free, max_gradient_norm=1e-3), tmp_path / "clipped")
    assert clipped_first.gradient_norm == first.gradient_norm > 1
    assert clipped_second.loss != second.loss


def test_a_finished_run_is_not_run_again(undisturbed, run_tiny, tmp_path):
    first, _ = run_tiny(tmp_path)
    (tmp_path / "bundle" / "model.safetensors").unlink()  # as if killed before it was written
    log = (tmp_path / "log.jsonl").read_bytes()
    again, seen = run_tiny(tmp_path)
    assert seen == []
    counts = [{**result.counts, "time": None} for result in (first, again)]  # no save knows how long it took itself
    assert (again.step, again.finished, again.metrics, counts[1]) == (8, True, first.metrics, counts[0])
    assert (tmp_path / "log.jsonl").read_bytes() == log
    assert_same_run(tmp_path, undisturbed[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_saved_after_the_step_in_hand(undisturbed, run_tiny, tmp_path, number):
    def ask(progress: Progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), number)

    result, seen = run_tiny(tmp_path, ask)
    assert (result.step, result.finished, len(seen)) == (3, False, 3)
    assert names(tmp_path / "checkpoints") == ["step-00000002", "step-00000003"]
    assert not (tmp_path / "bundle").exists()
    before = Checkpoint.load(tmp_path / "checkpoints" / "step-00000003").counts["time"]
    result, seen = run_tiny(tmp_path)
    assert [progress.step for progress in seen] == [4, 5, 6, 7, 8]
    assert (result.finished, result.counts["pairs"]) == (True, 64)
    assert all(result.counts["time"][name] >= seconds for name, seconds in before.items())
    assert_same_run(tmp_path, undisturbed[0])


def test_threads_and_the_rhythm_of_saving_may_change_on_the_way(undisturbed, run_tiny, tmp_path):
    def fail(progress: Progress) -> None:
        if progress.step == 5:
            raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError, match="as if killed"):
        run_tiny(tmp_path, fail, threads=3)
    _, seen = run_tiny(tmp_path, checkpoint_every=3)
    assert seen[0].step == 5  # checkpoint 4 is the newest
    assert_same_run(tmp_path, undisturbed[0])


def test_the_precision_that_auto_came_to_is_kept(tiny_recipe, tmp_path, monkeypatch):
    recipe = change(tiny_recipe, precision="auto", steps=4)
    monkeypatch.setattr(trainer, "fast_dtype", lambda _: torch.bfloat16)
    watched(recipe, tmp_path / "undisturbed")

    def fail(progress: Progress) -> None:
        if progress.step == 3:
            raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError, match="as if killed"):
        train(recipe, tmp_path / "run", on_progress=fail)
    monkeypatch.setattr(trainer, "fast_dtype", lambda _: torch.float32)  # as measured on a busier day
    train(recipe, tmp_path / "run")
    assert Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000004").precision == "bfloat16"
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_ends_the_run_with_nothing_saved_after(tiny_recipe, tmp_path, monkeypatch, what):
    loss_of, calls = exchange.clip_loss, []

    def spoiled(image_features: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        calls.append(None)
        loss = loss_of(image_features, *args, **options)
        if len(calls) < 5:
            return loss
        # 0, with an infinite slope: the root of 0.
        return loss * torch.nan if what == "loss" else loss + (image_features - image_features.detach()).sum().sqrt()

    monkeypatch.setattr(exchange, "clip_loss", spoiled)
    with pytest.raises(TrainingError, match=rf"the {what} must be finite, and is (nan|inf) at step 5\. ") as caught:
        train(tiny_recipe, tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "checkpoints") == ["step-00000002", "step-00000004"]
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    assert not (tmp_path / "bundle").exists()


def test_a_rate_that_is_far_too_high_ends_the_run_with_the_step_named(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, learning_rate=1e38, warmup_steps=0, checkpoint_every=100)
    with pytest.raises(TrainingError, match=r"must be finite, and is (nan|inf) at step [2-8]\."):
        train(recipe, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_folder_of_another_run_is_left_alone(undisturbed, tiny_recipe, run_tiny, tmp_path):
    out = tmp_path / "run"
    run_tiny(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        ConfigError, match=r"run holds a run of another recipe \(train\.learning_rate was 0\.002 and is"
    ):
        run_tiny(out, learning_rate=1e-4)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_that_began_before_an_option_existed_goes_on_with_its_default(tiny_recipe, tmp_path):
    train(change(tiny_recipe, steps=2), tmp_path)
    state = tmp_path / "checkpoints" / "step-00000002" / "training.json"
    values = json.loads(state.read_text())

    def goes_on(**options: Any) -> int:
        plain = values["recipe"] | {"train": values["recipe"]["train"] | options}
        state.write_text(json.dumps(values | {"recipe": plain}))
        return train(change(tiny_recipe, steps=2), tmp_path).step

    del values["recipe"]["train"]["layer_decay"], values["recipe"]["start_from"]
    assert goes_on() == 2
    with pytest.raises(ConfigError, match=r"another version of diptych began\. train\.layer_decoy is not an option"):
        goes_on(layer_decoy=0.5)


def test_a_run_does_not_go_on_with_other_data(tiny_recipe, tmp_path):
    folder = tmp_path / "pairs"

    def write(count: int) -> None:
        for path in folder.glob("*"):
            path.unlink()
        with ShardWriter(folder) as writer:
            for n in range(count):
                writer.add(str(n), {"png": png(drawing("red", "bar", n + 2)), "txt": b"red bar"})

    write(4)
    recipe = with_source(change(tiny_recipe, steps=1, batch_size=2), folder)
    train(recipe, tmp_path / "run")
    write(5)
    with pytest.raises(ConfigError, match=r"run holds a run of other data: the pairs of .*pairs were changed\."):
        train(recipe, tmp_path / "run")


def test_two_runs_do_not_work_in_one_folder(tiny_recipe, tmp_path):
    with folder_lock(tmp_path), pytest.raises(ConfigError, match="another process works in it"):
        train(tiny_recipe, tmp_path)
    assert names(tmp_path) == [".lock"]


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tiny_recipe, tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(DataError, match=r"run could not be written: File exists\."):
        train(tiny_recipe, tmp_path / "run", on_progress=lambda _: pytest.fail("a step was done"))


def test_leftovers_of_a_killed_run_are_cleaned_away(tiny_recipe, tmp_path):
    half = tmp_path / "checkpoints" / ".step-00000002.0a1b2c3d.part"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_text("half a mod")
    (tmp_path / ".recipe.toml.0a1b2c3d.part").write_text("half a rec")
    train(change(tiny_recipe, steps=2), tmp_path)
    assert names(tmp_path / "checkpoints") == ["step-00000002"]
    assert names(tmp_path) == [".lock", "bundle", "checkpoints", "log.jsonl", "recipe.toml"]


def test_a_disk_that_fills_up_costs_no_older_checkpoint(undisturbed, run_tiny, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(progress: Progress) -> None:
        if progress.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))

    try:
        with pytest.raises(DataError, match=r"step-00000006 could not be written: File too large\.") as caught:
            run_tiny(tmp_path, fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "checkpoints") == ["step-00000002", "step-00000004"]
    run_tiny(tmp_path)
    assert_same_run(tmp_path, undisturbed[0])


@pytest.fixture
def spoiled_shards(tmp_path) -> Path:
    """Every fifth of 40 pictures is cut short."""
    folder = tmp_path / "spoiled"
    with ShardWriter(folder) as writer:
        for n in range(40):
            picture = png(drawing("red" if n % 2 else "blue", "cross", 4 + n % 10))
            writer.add(str(n), {"png": picture[:60] if n % 5 == 0 else picture, "txt": b"blue cross"})
    return folder


def test_too_many_bad_samples_end_a_run_with_their_causes(tiny_recipe, spoiled_shards, tmp_path):
    recipe = with_source(change(tiny_recipe, steps=100, checkpoint_every=100), spoiled_shards)
    with pytest.raises(DataError) as caught:
        train(recipe, tmp_path / "run")
    sentence = str(caught.value)
    assert sentence.startswith("at most 1.00% of the samples may be bad (data.max_bad). 1")  # the 11th of up to 1000
    assert "are: truncated 1" in sentence
    assert sentence.endswith("Mend the shards, or raise the limit.")


def test_bad_samples_within_the_limit_are_counted_and_left_out(tiny_recipe, spoiled_shards, tmp_path):
    recipe = with_source(change(tiny_recipe, steps=5, checkpoint_every=100), spoiled_shards, max_bad=0.2)
    result, seen = watched(recipe, tmp_path / "run")
    assert result.counts["bad"] == {"truncated": 8}  # one epoch
    assert result.counts["pairs"] == seen[-1].pairs == 32


def test_a_batch_without_two_good_samples_is_one_sentence(tiny_recipe, tmp_path):
    with ShardWriter(tmp_path / "pairs") as writer:
        writer.add("a", {"png": b"", "txt": b"red cross red cross"})
    recipe = with_source(tiny_recipe, tmp_path / "pairs", max_bad=1.0)
    with pytest.raises(DataError, match=r"a batch must have at least two good samples, .* Bad so far: empty 8"):
        train(recipe, tmp_path / "run")


def test_a_source_that_is_not_there_is_one_sentence(tiny_recipe, tmp_path):
    with pytest.raises(DiptychError, match=r"nowhere must be a folder with \.tar shards"):
        train(with_source(tiny_recipe, tmp_path / "nowhere"), tmp_path / "run")


# Savers of memory, each off unless a recipe asks for it.


def train_in_two_parts(recipe: TrainRecipe, out: Path, *, then: TrainRecipe | None = None) -> TrainResult:
    def stop_at_3(progress: Progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(recipe, out, on_progress=stop_at_3).step == 3
    return train(then or recipe, out)


def losses(recipe: TrainRecipe, out: Path, **options: Any) -> list[float]:
    _, seen = watched(vit(recipe, steps=6, checkpoint_every=100, **options), out)
    return [progress.loss for progress in seen]


@pytest.mark.parametrize("options", [{"micro_batch_size": 3}, {"activation_checkpointing": True}], ids=str)
def test_what_is_computed_twice_comes_out_the_same(tiny_recipe, tmp_path, options):
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert losses(tiny_recipe, tmp_path / "saving", **options) == pytest.approx(plain, rel=1e-5)
    saved, twin = (Bundle.load(tmp_path / name / "bundle").model.state_dict() for name in ("saving", "plain"))
    assert max((saved[name] - twin[name]).abs().max().item() for name in twin) < 1e-3


def test_a_run_may_go_on_with_more_memory_saved(tiny_recipe, tmp_path):
    saving = {"micro_batch_size": 3, "activation_checkpointing": True}
    result = train_in_two_parts(vit(tiny_recipe, steps=6), tmp_path / "run", then=vit(tiny_recipe, steps=6, **saving))
    assert result.finished
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert [line["loss"] for line in read_log(tmp_path / "run" / "log.jsonl")] == pytest.approx(plain, rel=1e-5)


def test_dropped_patches_are_drawn_anew_each_step_and_are_back_for_evaluation(tiny_recipe, tmp_path, monkeypatch):
    draw, drawn = trainer.draw_kept_patches, []

    def listen(noise: torch.Tensor, **options: Any) -> torch.Tensor:
        drawn.append(draw(noise, **options))
        return drawn[-1]

    monkeypatch.setattr(trainer, "draw_kept_patches", listen)
    half = losses(tiny_recipe, tmp_path / "half", patch_dropout=0.5)
    assert {tuple(kept.shape) for kept in drawn} == {(8, 8)}  # of 16
    assert not torch.equal(drawn[0], drawn[1])
    assert half != losses(tiny_recipe, tmp_path / "plain")
    micro = losses(tiny_recipe, tmp_path / "micro", patch_dropout=0.5, micro_batch_size=3)
    assert micro == pytest.approx(half, rel=1e-5)
    bundle = Bundle.load(tmp_path / "half" / "bundle")  # its golden features are those of all patches
    assert bundle.model.image.position_embedding.shape[0] == 17


def test_float16_finds_a_factor_that_fits_and_loses_no_batch(tiny_recipe, tmp_path, monkeypatch):
    recipe = vit(tiny_recipe, steps=6, precision="float16")
    _, seen = watched(recipe, tmp_path / "run")
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert [progress.loss for progress in seen] == pytest.approx(plain, rel=0.05)
    assert [progress.gradient_norm for progress in seen] != plain
    assert [progress.pairs for progress in seen] == list(range(8, 49, 8))
    factor = Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000006").loss_scale["factor"]
    assert 1 <= factor <= 2**16
    assert math.log2(factor).is_integer()
    train_in_two_parts(recipe, tmp_path / "again")
    assert_same_run(tmp_path / "again", tmp_path / "run")


def test_the_factor_of_float16_halves_until_it_fits_and_grows_after_2000_steps():
    scale = trainer._LossScale({}, wanted=True)
    tries = scale.tries()
    assert [next(tries), next(tries)] == [2.0**16, 2.0**15]
    for _ in range(1999):
        assert next(scale.tries()) == 2.0**15
    again = trainer._LossScale(scale.plain(), wanted=True)
    assert next(again.tries()) == next(scale.tries()) == 2.0**16
    assert next(trainer._LossScale({"factor": 1.0, "steps": 5}, wanted=True).tries()) == 1.0
    assert list(trainer._LossScale({}, wanted=False).tries()) == [1.0]


@pytest.mark.parametrize(
    ("state", "types"),
    [("bfloat16", {torch.bfloat16}), ("int8", {torch.int8, torch.uint8, torch.float32})],
)
def test_compact_moments_are_saved_as_they_are_and_go_on_to_the_bit(tiny_recipe, tmp_path, state, types):
    recipe = vit(tiny_recipe, steps=6, optimizer_state=state)
    train(recipe, tmp_path / "undisturbed")
    train_in_two_parts(recipe, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
    memory = Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000006").optimizer
    assert {t.dtype for name, t in memory.items() if not name.endswith(".step")} == types


def test_blocks_are_compiled_where_the_recipe_says_so(tiny_recipe, tmp_path, monkeypatch):
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert not compiled
    assert losses(tiny_recipe, tmp_path / "run", compile=True) == plain
    sizes = vit(tiny_recipe).model
    assert len(compiled) == sizes.image.layers + sizes.text.layers  # pyright: ignore[reportOperatorIssue]


def test_a_sigmoid_head_learns_by_the_sigmoid_loss(tiny_recipe, tmp_path):
    recipe = vit(tiny_recipe, steps=1)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, head="sigmoid"))
    _, (progress,) = watched(recipe, tmp_path)
    assert progress.logit_scale == pytest.approx(10, rel=0.01)
    # At bias -10 all answers are "no", and 8 pictures have one match each: about 10 nats a picture, less the cosines.
    assert 5 < progress.loss < 20


def test_a_sigmoid_head_learns_more_than_how_rare_a_match_is(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, steps=40, batch_size=20, learning_rate=4e-3, checkpoint_every=100, log_every=100)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, head="sigmoid"))
    result, seen = watched(recipe, tmp_path)
    # 20 of 40 captions, of which 2 are alike: 1.25 of 20 texts match a picture, give or take. Who knows that alone:
    rare = 1.25 / 20
    constant = -20 * (rare * math.log(rare) + (1 - rare) * math.log(1 - rare))  # nats a picture
    assert sum(progress.loss for progress in seen[-5:]) / 5 < 0.9 * constant
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.fingerprint() == result.bundle.fingerprint()
    logits = bundle.logits_per_image(
        bundle.encode_images([drawing("red", "bar", 14)]), bundle.encode_texts(["red bar"])
    )
    torch.testing.assert_close(bundle.probabilities(logits), logits.sigmoid())


def test_siglips_towers_are_trained_saved_and_opened_again(tiny_recipe, tmp_path):
    model = CLIPConfig(
        embed_dim=32,
        head="sigmoid",
        image=SigLIPImageTowerConfig(image_size=32, patch_size=8, width=32, layers=1, heads=2),
        text=SigLIPTextTowerConfig(context_length=16, vocab_size=600, width=32, layers=1, heads=2),
    )
    recipe = dataclasses.replace(change(tiny_recipe, steps=10, warmup_steps=0), model=model)
    result, seen = watched(recipe, tmp_path)
    assert seen[-1].loss < 0.6 * seen[0].loss  # the bias alone gets this far
    assert Bundle.load(tmp_path / "bundle").fingerprint() == result.bundle.fingerprint()
    assert Bundle.load(tmp_path / "bundle").tokenizer.context_length == 16


# Runs that are killed. Each life is a process of its own, forked from a server that has imported all there is.


def live(recipe_path: Path, out: Path) -> None:
    """One life of a run. Each step that it does leaves a line beside `out`: its number, and the keys of its pairs."""
    update, rank = trainer._Run.update, os.environ.get("RANK", "0")
    with pytest.MonkeyPatch.context() as patch, Path(f"{out}.keys-{rank}").open("ab", buffering=0) as told:

        def telling(run: Any, batch: Any, sizes: Sequence[int]) -> Any:
            done = update(run, batch, sizes)
            told.write(json.dumps([run.step, list(batch.keys)]).encode() + b"\n")
            return done

        patch.setattr(trainer._Run, "update", telling)
        train(read_recipe(recipe_path), out, evaluators={"set": count_pairs})


def assert_samples_were_seen_as_planned(out: Path, *, ranks: int = 1) -> None:
    """Each step of each life had the keys of its place in the plan, and no step was passed over."""
    recipe = read_recipe(out / "recipe.toml")
    for rank in range(ranks):
        plan = batches(
            pair_sources(recipe.data),
            recipe.data,
            preprocess=recipe.preprocess,
            tokenizer=Bundle.load(out / "bundle").tokenizer,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            start=0,
            stop=recipe.train.steps,
            part=rank,
            parts=ranks,
        )
        planned = dict(enumerate((list(batch.keys) for batch in plan), 1))
        told = [json.loads(line) for line in Path(f"{out}.keys-{rank}").read_text().splitlines()]
        surviving, before = {}, 0
        for step, keys in told:
            assert keys == planned[step]
            assert step <= before + 1  # the next one, or one that is done again from a checkpoint on
            surviving[step], before = keys, step
        assert surviving == planned


def counted(out: Path) -> dict[str, Any]:
    """What the last checkpoint says was seen."""
    counts = dict(Checkpoint.load(out / "checkpoints" / max(names(out / "checkpoints"))).counts)
    return {name: counts[name] for name in ("pairs", "truncated", "bad")}


@pytest.fixture
def start(tiny_recipe, tmp_path) -> Iterator[Callable[[], Any]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["diptych.train.trainer", "torch._dynamo", "grain"])
    (tmp_path / "recipe.toml").write_text(to_toml(change(tiny_recipe, steps=24, evaluate_every=5, checkpoint_every=1)))
    lives = []

    def start() -> Any:
        lives.append(context.Process(target=live, args=(tmp_path / "recipe.toml", tmp_path / "run")))
        lives[-1].start()
        return lives[-1]

    yield start
    for process in lives:
        process.kill()
        process.join()


def kill_when(process: Any, is_time: Callable[[], bool], *, wait: float = 0.0) -> None:
    """Kill a run at a moment or some seconds later, unless it has ended before."""
    while process.is_alive() and not is_time():
        time.sleep(0.0005)
    time.sleep(wait)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)


def finish(start: Callable[[], Any], tmp_path: Path) -> None:
    """Let a run end, and compare it with one that was never killed."""
    process = start()
    process.join()
    assert process.exitcode == 0
    live(tmp_path / "recipe.toml", tmp_path / "undisturbed")
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
    assert counted(tmp_path / "run") == counted(tmp_path / "undisturbed")
    for out in ("run", "undisturbed"):
        assert_samples_were_seen_as_planned(tmp_path / out)
    assert names(tmp_path / "run" / "checkpoints") == names(tmp_path / "undisturbed" / "checkpoints")
    assert names(tmp_path / "run") == names(tmp_path / "undisturbed")


def test_a_run_that_is_killed_while_it_learns_saves_and_ends_comes_out_the_same(start, tmp_path):
    run = tmp_path / "run"
    kill_when(start(), lambda: len(read_log(run / "log.jsonl")) >= 7)
    lines = len(read_log(run / "log.jsonl"))
    assert 0 < lines < 24
    kill_when(start(), lambda: len(read_log(run / "log.jsonl")) > lines and any(run.glob("checkpoints/.step-*.part/*")))
    assert any(run.glob("checkpoints/.step-*.part"))  # it was saving
    kill_when(start(), lambda: any(run.glob(".bundle.*.part/*")))
    finish(start, tmp_path)


def is_saving(run: Path) -> bool:
    return any(run.glob("checkpoints/.step-*.part"))


@pytest.mark.slow
def test_a_run_that_is_killed_at_20_random_moments_comes_out_the_same(start, tiny_recipe, spoiled_shards, tmp_path):
    recipe = with_source(tiny_recipe, spoiled_shards, max_bad=0.5)
    recipe = change(recipe, steps=100, evaluate_every=7, checkpoint_every=1)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    run, moments = tmp_path / "run", random.Random(0)
    log, during_save = run / "log.jsonl", 0
    for number in range(20):
        lines, begun = len(read_log(log)), time.monotonic() + moments.uniform(0, 4)
        process = start()
        if number % 4 == 0:  # from its start on: while it reads the checkpoint, learns, evaluates or saves
            kill_when(process, lambda begun=begun: time.monotonic() > begun)
        elif number % 4 == 1:  # while it writes a checkpoint, of which there may be little or most
            is_time = lambda lines=lines: len(read_log(log)) > lines and is_saving(run)  # noqa: E731
            kill_when(process, is_time, wait=moments.uniform(0, 0.01))
        else:  # after some steps
            kill_when(process, lambda lines=lines: len(read_log(log)) > lines, wait=moments.uniform(0, 0.3))
        assert process.exitcode == -signal.SIGKILL
        during_save += is_saving(run)
    assert during_save >= 5
    finish(start, tmp_path)
    assert counted(run)["bad"] == {"truncated": 100 * 8 // 5}


@pytest.mark.slow
def test_a_run_of_two_processes_that_are_killed_comes_out_the_same(tiny_recipe, tmp_path):
    recipe = vit(tiny_recipe, steps=40, evaluate_every=7, checkpoint_every=1)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    run, moments = tmp_path / "run", random.Random(0)
    for _ in range(5):
        lines = len(read_log(run / "log.jsonl"))
        processes, _ = start_ranks(live, 2, tmp_path / "recipe.toml", run)
        while len(read_log(run / "log.jsonl")) <= lines and all(process.is_alive() for process in processes):
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.3))
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
            assert process.exitcode == -signal.SIGKILL
    for out in (run, tmp_path / "undisturbed"):
        run_ranks(live, 2, tmp_path / "recipe.toml", out)
        assert_samples_were_seen_as_planned(out, ranks=2)
    assert_same_run(run, tmp_path / "undisturbed")
    assert counted(run) == counted(tmp_path / "undisturbed")


# Starting from a model that is trained.


def starting_from(recipe: TrainRecipe, bundle: Path, **options: Any) -> TrainRecipe:
    return change(dataclasses.replace(recipe, start_from=str(bundle)), **options)


def test_a_run_may_start_from_a_bundle(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", steps=1, warmup_steps=0, learning_rate=1e-12)
    after = train(recipe, tmp_path / "run").bundle
    start = Bundle.load(before / "bundle")
    learned = after.model.state_dict()
    for name, value in start.model.named_parameters():
        torch.testing.assert_close(learned[name], value, rtol=0, atol=1e-9, msg=name)
    assert after.tokenizer.encode(["red square"]).equal(start.tokenizer.encode(["red square"]))
    assert 'start_from = "' in after.about.recipe


def test_lower_layers_move_less_where_the_recipe_says_so(tiny_recipe, tmp_path):
    before = CLIP(vit(tiny_recipe).model, generator(0)).state_dict()
    moved: dict[float, dict[str, float]] = {}
    for decay in (1.0, 0.5):
        recipe = vit(tiny_recipe, steps=1, warmup_steps=0, weight_decay=0.0, layer_decay=decay)
        after = train(recipe, tmp_path / str(decay)).bundle.model.state_dict()
        moved[decay] = {name: (after[name] - before[name]).norm().item() for name in before}
    shares = {name: moved[0.5][name] / moved[1.0][name] for name in moved[1.0] if moved[1.0][name] > 1e-4}
    for name, factor in (("image.projection", 1), ("image.blocks.1.mlp.up.weight", 0.5), ("text.projection", 1),
                         ("image.patch_embedding.weight", 0.125), ("text.position_embedding", 0.125)):  # fmt: skip
        assert shares[name] == pytest.approx(factor, rel=1e-3), name


@pytest.mark.parametrize(("locked", "other"), [("image", "text"), ("text", "image")])
def test_a_frozen_tower_keeps_weights_and_batch_statistics_while_the_other_learns(
    undisturbed, tiny_recipe, tmp_path, locked, other
):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", freeze=(locked,))
    result = train(recipe, tmp_path / "run", evaluators={"set": count_pairs})
    start, end = Bundle.load(before / "bundle").model.state_dict(), result.bundle.model.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(end[name].cpu(), value)}
    assert not [name for name in moved if name.startswith(f"{locked}.")]
    assert [name for name in moved if name.startswith(f"{other}.")]
    kept = Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000008").optimizer
    assert {name.split(".")[0] for name in kept} == {other, "logit_scale"}


def test_frozen_batch_statistics_stay_while_all_weights_learn(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", freeze_batch_statistics=True)
    model = train(recipe, tmp_path / "run", evaluators={"set": count_pairs}).bundle.model
    start, end = Bundle.load(before / "bundle").model.state_dict(), model.state_dict()
    statistics = {name for name, _ in model.named_buffers()}
    assert {name for name, value in start.items() if torch.equal(end[name].cpu(), value)} == statistics


def test_a_run_with_a_frozen_tower_goes_on_to_the_same_end(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", freeze=("image",))
    train(recipe, tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert not train(recipe, tmp_path / "broken", on_progress=stop).finished
    train(recipe, tmp_path / "broken")
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize("frozen", ["image", "text"])
def test_micro_batches_with_a_frozen_tower_learn_what_the_whole_batch_does(tiny_recipe, tmp_path, frozen):
    # The loss does not depend on the bias of keys: its gradient is rounding, of which a small epsilon makes steps.
    plain = vit(tiny_recipe, epsilon=1e-4)
    train(change(plain, steps=1), tmp_path / "start")
    whole = starting_from(plain, tmp_path / "start" / "bundle", freeze=(frozen,))
    ends = [train(r, tmp_path / str(n)).bundle for n, r in enumerate((whole, change(whole, micro_batch_size=3)))]
    for name, value in ends[0].model.state_dict().items():
        torch.testing.assert_close(ends[1].model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_may_start_from_a_model_for_smaller_pictures(tiny_recipe, tmp_path):
    small = vit(tiny_recipe)
    train(change(small, steps=1), tmp_path / "small")
    image = dataclasses.replace(small.model.image, image_size=64)
    large = dataclasses.replace(
        small,
        model=dataclasses.replace(small.model, image=image),
        preprocess=dataclasses.replace(small.preprocess, image_size=64),
    )
    result = train(starting_from(large, tmp_path / "small" / "bundle"), tmp_path / "large")
    assert result.finished
    assert result.bundle.preprocess.image_size == 64


def test_a_start_of_other_sizes_is_refused(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(vit(tiny_recipe), before / "bundle")
    with pytest.raises(ConfigError, match=r"must be those of start_from=.*, but for the image size: model\."):
        train(recipe, tmp_path / "run")


# Distillation.


def stored_features(path: Path, keys: Sequence[str], seed: int) -> str:
    features = torch.randn(len(keys), 5, generator=torch.Generator().manual_seed(seed))
    save_file({"features": features}, path, metadata={"keys": json.dumps(list(keys))})
    return str(path)


@pytest.fixture
def taught(tiny_recipe, tmp_path) -> TrainRecipe:
    """The tiny recipe with a teacher in five dimensions."""
    source = tiny_recipe.data.sources[0]
    (pairs,) = pair_sources(tiny_recipe.data)
    captions = dict.fromkeys(text for index in range(len(pairs)) for text in pairs.captions(index))
    source = dataclasses.replace(
        source,
        teacher_images=stored_features(tmp_path / "images.safetensors", [pairs[n].key for n in range(len(pairs))], 0),
        teacher_texts=stored_features(tmp_path / "texts.safetensors", list(captions), 1),
    )
    return dataclasses.replace(
        tiny_recipe,
        data=dataclasses.replace(tiny_recipe.data, sources=(source,)),
        train=dataclasses.replace(tiny_recipe.train, distillation=0.5, teacher_logit_scale=20.0, steps=1),
    )


def test_the_loss_of_a_teacher_is_added_with_its_weight(taught, tiny_recipe, tmp_path):
    _, (with_teacher,) = watched(taught, tmp_path / "taught")
    _, (without,) = watched(change(tiny_recipe, steps=1), tmp_path / "plain")
    model = CLIP(taught.model, generator(taught.seed)).train()
    bundle = Bundle.load(tmp_path / "taught" / "bundle")
    (batch,) = batches(
        pair_sources(taught.data), taught.data, preprocess=taught.preprocess, tokenizer=bundle.tokenizer,
        batch_size=8, seed=0, start=0, stop=1,
    )  # fmt: skip
    output = model(taught.preprocess.normalise(batch.images), batch.tokens)
    ours = output.logit_scale * output.image_features @ output.text_features.T
    assert batch.teacher_image_features is not None
    assert batch.teacher_text_features is not None
    theirs = 20 * batch.teacher_image_features @ batch.teacher_text_features.T
    divergences = [
        torch.nn.functional.kl_div(a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="batchmean").item()
        for a, b in ((ours, theirs), (ours.T, theirs.T))
    ]
    assert with_teacher.loss - without.loss == pytest.approx(0.5 * sum(divergences) / 2, rel=1e-4)
