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

from diptych.config import to_toml
from diptych.errors import ConfigError, DataError
from diptych.files import folder_lock
from diptych.model.clip import CLIPConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.pairs.pipeline import batches, pair_sources
from diptych.train import distributed, trainer
from diptych.train import update as update_module
from diptych.train.checkpoint import Checkpoint
from diptych.train.laps import Laps
from diptych.train.log import read_log
from diptych.train.recipe import read_recipe, without_folders
from diptych.train.schedule import learning_rate
from diptych.train.trainer import StepReport, train
from diptych.weights.bundle import Bundle
from processes import run_ranks, start_ranks, wait_until
from runs import assert_same_run, change, count_pairs, vit, watched, with_source
from test_files import names


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
    assert bundle.about.recipe == to_toml(without_folders(read_recipe(out / "recipe.toml")))


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


def test_the_loss_falls_on_pairs_that_can_be_told_apart(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, steps=40, batch_size=20, checkpoint_every=100, log_every=100)
    _, seen = watched(recipe, tmp_path)
    losses = [progress.loss for progress in seen]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_seconds_are_those_of_training_alone(tiny_recipe, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    step, save = trainer.train_step, Checkpoint.save

    def takes(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any, **options: Any) -> Any:
            clock[0] += seconds
            return function(*args, **options)

        return slow

    monkeypatch.setattr(trainer, "train_step", takes(2.0, step))
    monkeypatch.setattr(Checkpoint, "save", takes(1000.0, save))
    evaluators = {"slow": takes(1000.0, count_pairs)}
    recipe = change(tiny_recipe, steps=4, evaluate_every=1, checkpoint_every=1)
    seen: list[StepReport] = []
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
        (update_module, "_inputs", 1.0),
        (update_module, "_forward", 2.0),
        (update_module, "clip_gradients", 2.0),
        (update_module, "clamp_logit_scale", 4.0),
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
    def ask(progress: StepReport) -> None:
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
    def fail(progress: StepReport) -> None:
        if progress.step == 5:
            raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError, match="as if killed"):
        run_tiny(tmp_path, fail, threads=3)
    _, seen = run_tiny(tmp_path, checkpoint_every=3)
    assert seen[0].step == 5  # checkpoint 4 is the newest
    assert_same_run(tmp_path, undisturbed[0])


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

    def fill_up(progress: StepReport) -> None:
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
    train_step, rank = trainer.train_step, os.environ.get("RANK", "0")
    torch.set_num_threads(1)  # as many as in the process of the tests, or the last bits differ
    with pytest.MonkeyPatch.context() as patch, Path(f"{out}.keys-{rank}").open("ab", buffering=0) as told:

        def telling(run: Any, batch: Any, sizes: Sequence[int]) -> Any:
            done = train_step(run, batch, sizes)
            told.write(json.dumps([run.step, list(batch.keys)]).encode() + b"\n")
            return done

        patch.setattr(trainer, "train_step", telling)
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
    wait_until(lambda: not process.is_alive() or is_time())
    time.sleep(wait)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)


def finish(start: Callable[[], Any], tmp_path: Path) -> None:
    """Let a run end, and compare it with one that was never killed."""
    process = start()
    process.join(120)
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
    steps = 400  # more than twenty lives of a quick machine come to
    recipe = change(recipe, steps=steps, evaluate_every=7, checkpoint_every=1)
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
    assert counted(run)["bad"] == {"truncated": steps * 8 // 5}


@pytest.mark.slow
def test_a_run_of_two_processes_that_are_killed_comes_out_the_same(tiny_recipe, tmp_path):
    recipe = vit(tiny_recipe, steps=40, evaluate_every=7, checkpoint_every=1)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    run, moments = tmp_path / "run", random.Random(0)
    for _ in range(5):
        lines = len(read_log(run / "log.jsonl"))
        processes, _ = start_ranks(live, 2, tmp_path / "recipe.toml", run)
        try:
            wait_until(
                lambda lines=lines, processes=processes: (
                    len(read_log(run / "log.jsonl")) > lines or not all(process.is_alive() for process in processes)
                )
            )
            time.sleep(moments.uniform(0, 0.3))
        finally:
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
