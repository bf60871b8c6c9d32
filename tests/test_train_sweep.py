"""train/sweep.py, and `diptych sweep` and `diptych watch` on its folder."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from diptych.cli.main import main
from diptych.config import to_toml
from diptych.errors import ConfigError
from diptych.files import folder_lock
from diptych.train.log import read_log
from diptych.train.sweep import (
    Axis,
    Outcome,
    Sweep,
    Trial,
    default_metric,
    draws,
    grid,
    outcomes,
    read_axis,
    read_sweep,
    run_trials,
)
from processes import started, wait_until
from runs import change
from test_files import names


@pytest.fixture(scope="module")
def recipe_path(tiny_recipe, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sweeps") / "recipe.toml"
    path.write_text(to_toml(change(tiny_recipe, steps=4, log_every=1, checkpoint_every=1)))
    return path


@pytest.fixture
def in_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process that the sweep starts imports is what this one does."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("train.learning_rate=1e-3,2e-3", Axis("train.learning_rate", ("1e-3", "2e-3"))),
        ("train.learning_rate=1e-3,1e-3", Axis("train.learning_rate", ("1e-3",))),
        ("train.learning_rate=1e-4..1e-2", Axis("train.learning_rate", low=1e-4, high=1e-2)),
        ("train.batch_size=8..64", Axis("train.batch_size", low=8, high=64, is_whole=True)),
        ("train.weight_decay=0..0.5", Axis("train.weight_decay", low=0, high=0.5)),
        ('data.templates=["{}","a, b"],["{}"]', Axis("data.templates", ('["{}","a, b"]', '["{}"]'))),
    ],
)
def test_an_option_has_values_or_a_range(text: str, axis: Axis):
    assert read_axis(text) == axis


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.steps", r"--over takes OPTION=VALUE,VALUE or OPTION=LOW\.\.HIGH"),
        ("train.steps=", "--over takes OPTION=VALUE"),
        ("train.steps=1,,2", "must have a value between its commas"),
        ("train.steps=5..2", r"LOW must be below HIGH\. Got 5\.\.2"),
        ("train.steps=1e..2", r"a range is of two numbers"),
    ],
)
def test_what_is_neither_is_told(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_axis(text)


def test_a_grid_is_each_with_each():
    axes = [Axis("a.x", ("1", "2")), Axis("a.y", ("3", "4"))]
    assert [trial.name for trial in grid(axes)] == ["x=1,y=3", "x=1,y=4", "x=2,y=3", "x=2,y=4"]
    with pytest.raises(ConfigError, match=r"--over a\.z is a range, which a grid cannot try whole"):
        grid([*axes, Axis("a.z", low=1, high=2)])


def test_draws_are_a_function_of_seed_and_number_and_even_in_the_logarithm():
    axes = [read_axis("a.rate=1e-4..1e-2"), read_axis("a.size=8..64"), read_axis("a.kind=x,y")]
    many = draws(axes, 400, seed=3)
    assert many[:5] == draws(axes, 5, seed=3)
    assert many[:5] != draws(axes, 5, seed=4)
    rates = [float(trial.options["a.rate"]) for trial in many]
    assert 1e-4 <= min(rates) < max(rates) <= 1e-2
    assert 0.42 < sum(rate < 1e-3 for rate in rates) / len(rates) < 0.58  # evenly, a tenth would lie below
    assert {int(trial.options["a.size"]) for trial in many} <= set(range(8, 65))
    assert {trial.options["a.kind"] for trial in many} == {"x", "y"}
    assert len(draws([read_axis("a.size=1..2")], 50, seed=0)) == 2  # equal ones are one
    assert 0 <= float(Axis("a", low=0, high=1).draw(random.Random(1))) <= 1


def test_a_folders_name_tells_the_options_and_no_two_share_one():
    assert Trial({"a.x": "1", "b.x": "2"}).name == "a.x=1,b.x=2"
    first, second = (Trial({"data.templates": text}).name for text in ('["{}"]', '["{}!"]'))
    assert first != second
    assert "/" not in Trial({"start_from": "/a/b"}).name
    assert len(Trial({"a": "x" * 300}).name) < 110


def test_the_metric_is_top_1_of_the_first_set_or_the_loss(tiny_recipe):
    import dataclasses

    assert default_metric(tiny_recipe) == "loss"
    assert default_metric(dataclasses.replace(tiny_recipe, evaluate=("embedded:twemoji", "x"))) == "twemoji/top1"
    assert default_metric(dataclasses.replace(tiny_recipe, evaluate=("/data/mine",))) == "mine/top1"


def fake(folder: Path, losses: list[float], *, ends: bool) -> None:
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    lines = [
        {"step": step, "pairs": 8 * step, "seconds": 1.0 * step, "loss": loss, "set/top1": 1 / loss}
        for step, loss in enumerate(losses, start=1)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if ends:
        (folder / "results.json").write_text("{}")


def test_runs_are_told_best_first_and_those_without_a_number_last(tmp_path):
    trials = [Trial({"a": value}) for value in "12345"]
    fake(tmp_path / "a=1", [3.0, 2.0], ends=True)
    fake(tmp_path / "a=2", [4.0, 1.5], ends=True)
    fake(tmp_path / "a=3", [3.5], ends=False)
    (tmp_path / "a=4").mkdir()
    (tmp_path / "a=4" / "failed.txt").write_text("diptych: no such option\n")
    Sweep(name="s", metric="loss", trials=trials).write(tmp_path)

    def told(metric: str) -> list[tuple[str, str, float | None]]:
        found: list[Outcome] = outcomes(Sweep(name="s", metric=metric, trials=trials), tmp_path, time.time())
        return [(one.trial.name, one.state, one.value) for one in found]

    last = [("a=4", "failed", None), ("a=5", "waiting", None)]
    by_loss = [("a=2", "finished", 1.5), ("a=1", "finished", 2.0), ("a=3", "stopped", 3.5)]
    assert told("loss") == [*by_loss, *last]
    assert [name for name, _, _ in told("set/top1")[:3]] == ["a=2", "a=1", "a=3"]
    assert told("set/top1")[0][2] == 1 / 1.5
    assert read_sweep(tmp_path) == Sweep(name="s", metric="loss", trials=trials)


def test_no_more_than_so_many_run_at_once_and_one_is_asked_for_when_there_is_room(tmp_path):
    asked: list[str] = []
    ended: list[tuple[str, str]] = []
    trials = [Trial({"a": str(number)}) for number in range(4)]
    pending = iter(trials)

    def ask() -> Trial | None:
        trial = next(pending, None)
        if trial:
            asked.append(f"{trial.name} after {len(ended)}")
        return trial

    script = "import sys; print('said'); sys.exit(int(sys.argv[1]) == 2)"
    done = run_trials(
        ask,
        tmp_path,
        lambda trial: [sys.executable, "-c", script, trial.options["a"]],
        jobs=1,
        stop_requested=lambda: False,
        on_start=lambda _: None,
        on_end=lambda trial, fault: ended.append((trial.name, fault)),
    )
    assert done
    assert asked == ["a=0 after 0", "a=1 after 1", "a=2 after 2", "a=3 after 3"]
    assert ended == [("a=0", ""), ("a=1", ""), ("a=2", "said"), ("a=3", "")]


def test_a_run_that_a_killed_sweep_left_behind_is_waited_for(tmp_path):
    trial = Trial({"a": "1"})
    looks: list[int] = []

    def stop_requested() -> bool:
        looks.append(1)
        if len(looks) == 3:
            lock.__exit__(None, None, None)
            (tmp_path / "a=1" / "results.json").write_text("{}")
        return False

    lock = folder_lock(tmp_path / "a=1")
    lock.__enter__()
    pending, ended = iter([trial]), []
    run_trials(
        lambda: next(pending, None),
        tmp_path,
        lambda _: pytest.fail("it is under way already"),
        jobs=1,
        stop_requested=stop_requested,
        on_start=lambda _: None,
        on_end=lambda trial, fault: ended.append((trial.name, fault)),
    )
    assert ended == [("a=1", "")]
    assert len(looks) == 3


def test_a_sweep_runs_is_kept_shown_and_goes_on(recipe_path, tmp_path, in_here, capsys):
    out = tmp_path / "out"
    words = ["sweep", str(recipe_path), "--over", "train.learning_rate=1e-3,2e-3", "--jobs", "2", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr()
    runs = ["learning_rate=1e-3", "learning_rate=2e-3"]
    assert [name for name in names(out) if not name.startswith(".")] == [
        *runs,
        "report.html",
        "results.json",
        "sweep.json",
    ]
    results = json.loads((out / "results.json").read_text())
    losses = {run: read_log(out / run / "log.jsonl")[-1]["loss"] for run in runs}
    assert {one["run"]: one["value"] for one in results["runs"]} == losses
    assert results["runs"][0]["value"] == min(losses.values())
    assert said.out.splitlines()[1].split()[0] == results["runs"][0]["options"]["train.learning_rate"]
    before = {run: (out / run / "results.json").stat().st_mtime_ns for run in runs}
    assert main([*words[:3], "train.learning_rate=1e-3,2e-3,4e-3", *words[4:]]) == 0  # one more value
    assert {run: (out / run / "results.json").stat().st_mtime_ns for run in runs} == before
    assert (out / "learning_rate=4e-3" / "bundle").is_dir()
    capsys.readouterr()
    assert main(["watch", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("finished") == 3
    assert main([*words[:3], "train.learning_rate=8e-3", *words[4:]]) == 0  # alone: the others stay
    assert capsys.readouterr().out.count("finished") == 4
    assert main([*words[:3], "seed=1,2", *words[4:]]) == 2
    assert "holds a sweep over train.learning_rate. Got seed: choose another --out" in capsys.readouterr().err
    assert main([*words, "--set", "seed=5"]) == 2  # or runs of two recipes would stand in one table
    assert "holds a run of another recipe (seed was 0 and is now 5)" in capsys.readouterr().err
    assert main(["watch", str(out), "--report", str(tmp_path / "page.html")]) == 0
    assert "A sweep of 4 runs, of which 4 are finished, by loss" in (tmp_path / "page.html").read_text()


def test_a_run_of_another_recipe_and_a_wrong_option_are_refused_before_anything_runs(recipe_path, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["sweep", str(recipe_path), "--out", str(out)]
    for over, message in (
        (["--over", "train.learning_rat=1"], "train.learning_rat is not an option"),
        (["--over", "train.steps=4", "--over", "train.steps=5"], "must name each option once"),
        (["--over", "train.steps=2..5"], "is a range, which a grid cannot try whole"),
        (["--over", "train.steps=4", "--random", "2", "--study", "2"], "--random and --study are two ways"),
    ):
        assert main([*words, *over]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
    (out / "steps=5").mkdir(parents=True)
    text = recipe_path.read_text().replace("seed = 0", "seed = 7")
    (out / "steps=5" / "recipe.toml").write_text(text.replace("steps = 4", "steps = 5"))
    assert main([*words, "--over", "train.steps=5"]) == 2
    assert "holds a run of another recipe (seed was 7 and is now 0)" in capsys.readouterr().err


def test_runs_that_fail_are_named_and_the_others_go_on(recipe_path, tmp_path, in_here, capsys):
    out = tmp_path / "out"
    over = ["--over", "train.max_gradient_norm=0.0,1.0", "--set", "data.max_bad=0.0", "--set", "train.steps=2"]
    (out / "max_gradient_norm=0.0").mkdir(parents=True)
    (out / "max_gradient_norm=0.0" / "log.jsonl").mkdir()  # in the way
    assert main(["sweep", str(recipe_path), *over, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert "1 of 2 runs failed: see" in said.err
    assert "failed: " in said.out
    assert "finished" in said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_or_killed_goes_on_to_the_same_runs(number, recipe_path, tmp_path, in_here, capsys):
    def command(out: Path) -> list[object]:
        options = ["--over", "train.learning_rate=1e-3,2e-3", "--set", "train.steps=30", "--out", out]
        return [sys.executable, "-m", "diptych", "sweep", recipe_path, *options]

    first = tmp_path / "out" / "learning_rate=1e-3"
    with started(command(tmp_path / "out")) as process:
        wait_until(lambda: len(read_log(first / "log.jsonl")) > 3, seconds=300)
        process.send_signal(number)
        process.wait(300)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert not (first / "results.json").exists() or number == signal.SIGKILL
    with started(command(tmp_path / "out")) as process:
        assert process.wait(300) == 0
    lines = read_log(first / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["runs"]) == 2
