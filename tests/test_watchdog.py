import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.config import to_toml
from diptych.errors import ShardError
from diptych.train import trainer
from diptych.train.checkpoint import list_checkpoints
from diptych.train.distributed import Ranks
from diptych.train.recipe import read_recipe
from diptych.train.trainer import train
from diptych.train.watchdog import EXIT_CODE, Watchdog
from processes import run_ranks, start_ranks, wait_until
from runs import vit


def live(path: Path, out: Path, trouble: str) -> None:
    """A run far too long for a test; in its second process something goes wrong at step 4."""
    read = trainer.batches

    def troubled(*args: Any, **options: Any) -> Any:
        for number, batch in enumerate(read(*args, **options)):
            if os.environ["RANK"] == "1" and number == 3:
                if trouble == "hangs":
                    time.sleep(1000)
                if trouble == "fails":
                    raise ShardError("shard-7 is gone")
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "batches", troubled)
        train(read_recipe(path), out, on_alarm=(out / "alarm.txt").write_text)


@pytest.fixture
def run_with_trouble(tiny_recipe, tmp_path):
    """Two processes, trouble in the second: exit code of the first, what it says, and the stacks by rank."""
    lives: list[Any] = []

    def run(trouble: str, number: signal.Signals | None = None) -> tuple[int, str, dict[int, str]]:
        recipe = vit(tiny_recipe, steps=100_000, checkpoint_every=2, stall_seconds=6.0)
        (tmp_path / "recipe.toml").write_text(to_toml(recipe))
        processes, _ = start_ranks(live, 2, tmp_path / "recipe.toml", tmp_path / "run", trouble)
        lives.extend(processes)
        if number is not None:
            wait_until(
                lambda: not processes[0].is_alive() or bool(list_checkpoints(tmp_path / "run" / "checkpoints")),
                every=0.05,
            )
            time.sleep(recipe.train.stall_seconds / 3)  # a live process has told by now that it is beyond the start
            os.kill(processes[1].pid, number)
        processes[0].join(60)
        out = tmp_path / "run"
        stacks = {rank: (out / "stall" / f"rank-{rank}.txt").read_text() for rank in range(2)}
        return processes[0].exitcode, (out / "alarm.txt").read_text(), stacks

    yield run
    for process in lives:
        process.kill()
        process.join()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stopped_is_named_and_the_run_ends(run_with_trouble, number):
    code, sentence, stacks = run_with_trouble("none", number)
    assert code == EXIT_CODE
    assert sentence.startswith("rank 1 gives no sign of life for ")
    assert "(killed or stopped), last at step " in sentence
    assert "with 4 pairs in hand (0" in sentence  # the keys of drawings are 000 to 039
    assert "goes on from the newest checkpoint" in sentence
    assert "most recent call first" in stacks[0]
    assert "in _go_on" in stacks[0] or "in wait_for_verdict" in stacks[0]


def test_a_process_that_hangs_is_named_with_the_stacks_of_all(run_with_trouble):
    code, sentence, stacks = run_with_trouble("hangs")
    assert code == EXIT_CODE
    assert sentence.startswith("no progress for ")
    assert "rank 1 stands still at step 4 in 'data'" in sentence
    assert "rank 0" not in sentence
    assert "in collect" in stacks[0]
    assert "in troubled" in stacks[1]


def test_a_process_that_ends_by_an_error_of_its_own_is_named_with_it(run_with_trouble):
    code, sentence, _ = run_with_trouble("fails")
    assert code == EXIT_CODE
    assert sentence.startswith("rank 1 ended with ShardError: shard-7 is gone. ")


def test_a_process_by_itself_is_not_watched(tmp_path):
    with Watchdog(Ranks(0, 1, torch.device("cpu")), tmp_path / "stall", seconds=1.0, on_alarm=pytest.fail) as watchdog:
        watchdog.at("step", 1, ["a"])
        watchdog.wait_for_verdict()
    assert not (tmp_path / "stall").exists()


def learn(recipe: Path, out: Path) -> None:
    train(read_recipe(recipe), out)


@pytest.mark.parametrize("count", [1, 2])
def test_what_more_processes_left_when_they_were_killed_ends_no_later_run(tiny_recipe, tmp_path, count):
    (tmp_path / "recipe.toml").write_text(to_toml(vit(tiny_recipe, steps=2)))
    stall = tmp_path / "run" / "stall"
    stall.mkdir(parents=True)
    for rank in range(4):
        (stall / f"rank-{rank}.txt").touch()
    if count == 1:
        learn(tmp_path / "recipe.toml", tmp_path / "run")
    else:
        run_ranks(learn, count, tmp_path / "recipe.toml", tmp_path / "run")
    assert (tmp_path / "run" / "bundle").is_dir()
    assert not stall.exists()
