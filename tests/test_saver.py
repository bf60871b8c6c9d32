import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from diptych.config import to_toml
from diptych.errors import DataError
from diptych.train.checkpoint import Checkpoint, list_checkpoints
from diptych.train.recipe import read_recipe
from diptych.train.trainer import StepReport, train
from diptych.weights.bundle import Bundle
from processes import run_ranks, start_ranks, wait_until
from runs import furthest, learn, vit, weights
from test_files import names


@pytest.fixture
def recipe(tiny_recipe):
    # The loss does not depend on the bias of keys: its gradient is rounding, of which a small epsilon makes steps.
    return vit(
        tiny_recipe, steps=8, parallel="fsdp", ema_decay=0.9, epsilon=1e-4, checkpoint_every=3,
        checkpoint_format="shares",
    )  # fmt: skip


def test_shares_go_on_in_any_number_of_processes_and_hold_all_that_a_run_is(recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "undisturbed", False)
    for count, stop_after in ((2, 2), (4, 5), (2, 7)):
        run_ranks(learn, count, tmp_path / "recipe.toml", tmp_path / "run", False, stop_after)
        newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
        assert newest.name == f"step-{stop_after:08d}"
        assert sum(name.endswith(".distcp") for name in names(newest / "shares")) == count
        listed = set(json.loads((newest / "digests.json").read_text()))
        there = {f"shares/{name}" for name in names(newest / "shares")} | {
            path.name for path in newest.iterdir() if path.is_file()
        }
        assert listed == there - {"digests.json"}
    learn(tmp_path / "recipe.toml", tmp_path / "run", False)  # the last step in one process, which saves a bundle
    assert furthest(tmp_path / "run", tmp_path / "undisturbed") < 2e-4
    last = tmp_path / "run" / "checkpoints" / "step-00000008"
    assert Checkpoint.load(last).shares is None
    assert Bundle.load(last).fingerprint() != Bundle.load(tmp_path / "run" / "bundle").fingerprint()  # the average


def test_a_run_in_shares_goes_on_to_the_bit(recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "undisturbed", False)
    for stop_after in (4, 0):
        run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "run", False, stop_after)
    assert furthest(tmp_path / "run", tmp_path / "undisturbed") == 0
    assert names(tmp_path / "run" / "checkpoints") == ["step-00000006", "step-00000008"]


def fail_to_write(path: Path, out: Path) -> str:
    """The folder of checkpoints is gone when the shares are written."""
    patch = pytest.MonkeyPatch()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    if os.environ["RANK"] == "1":
        patch.setattr("torch.distributed.checkpoint.filesystem.FileSystem.create_stream", full)
    try:
        train(read_recipe(path), out)
    except DataError as error:
        return str(error)
    finally:
        patch.undo()
    return ""


def test_a_full_disk_in_one_process_is_one_sentence_in_all_and_leaves_nothing(recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    first, second = run_ranks(fail_to_write, 2, tmp_path / "recipe.toml", tmp_path / "run")
    step = tmp_path / "run" / "checkpoints" / "step-00000003"
    assert first == second == (f"{step} could not be written: No space left on device. Nothing was left half-written.")
    assert names(tmp_path / "run" / "checkpoints") == []


def live(path: Path, out: Path) -> None:
    """A run that saves all the time, in no hurry."""

    def wait(_: StepReport) -> None:
        time.sleep(0.2)

    learned = train(read_recipe(path), out, on_progress=wait)
    assert learned.finished


def saved(run: Path) -> list[str]:
    return [path.name for path in list_checkpoints(run / "checkpoints")]


def kill_at_random(recipe: Path, run: Path, *, times: int) -> int:
    """Lives that end by SIGKILL; in how many of them a checkpoint was under way."""
    moments, during = random.Random(0), 0
    for _ in range(times):
        processes, _ = start_ranks(live, 2, recipe, run)
        before = saved(run)
        try:
            wait_until(lambda before=before: saved(run) != before)
            time.sleep(moments.uniform(0, 0.2))
        finally:
            for process in processes:
                process.kill()
        for process in processes:
            process.join()
            assert process.exitcode == -signal.SIGKILL
        during += any(run.glob("checkpoints/.step-*.part"))
        for path in list_checkpoints(run / "checkpoints"):
            Checkpoint.load(path)  # whole, by its digests
    return during


def test_a_run_in_shares_that_is_killed_comes_out_the_same(recipe, tmp_path):
    recipe = vit(recipe, steps=14, checkpoint_every=1)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    kill_at_random(tmp_path / "recipe.toml", tmp_path / "run", times=3)
    for out in (tmp_path / "run", tmp_path / "undisturbed"):
        run_ranks(learn, 2, tmp_path / "recipe.toml", out, False, seconds=300)
    assert furthest(tmp_path / "run", tmp_path / "undisturbed") == 0
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "undisturbed").keys()
