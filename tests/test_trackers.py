"""train/trackers.py: Weights & Biases, MLflow and trackio as they are, offline; each skips where it is missing."""

import importlib.util
import json
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from diptych.config import to_dict, to_toml
from diptych.errors import ConfigError, MissingExtraError
from diptych.train.log import read_log
from diptych.train.recipe import read_recipe, recipe_of
from diptych.train.trackers import check_trackers
from diptych.train.trainer import train
from runs import change
from test_outside import diptych


def run_with(tracker: str, recipe: Any, folder: Path, **environment: str) -> list[dict[str, Any]]:
    """A run in a process of its own; its log."""
    path, out = folder / "recipe.toml", folder / "run"
    path.write_text(to_toml(change(recipe, trackers=(tracker,), log_every=1, checkpoint_every=2, steps=8)))
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed: pip install 'diptych[{tracker}]'")
    done = diptych("train", path, "--out", out, **environment)
    assert done.returncode == 0, done.stderr
    assert "is left out" not in done.stderr
    return read_log(out / "log.jsonl")


def test_weights_and_biases_has_the_log(tiny_recipe, tmp_path):
    lines = run_with("wandb", tiny_recipe, tmp_path, WANDB_MODE="offline")
    [file] = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    held = file.read_bytes()  # records of a protocol that its client does not read again
    run_id = (tmp_path / "run" / "trackers" / "wandb.txt").read_text().strip()
    assert file.name == f"run-{run_id}.wandb"
    for line in lines:
        assert json.dumps(line["loss"]).encode() in held


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_log(tiny_recipe, tmp_path):
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny keeps runs in a database through sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    lines = run_with("mlflow", tiny_recipe, tmp_path, MLFLOW_TRACKING_URI=uri)
    import mlflow

    client = mlflow.MlflowClient(uri)
    run = client.get_run((tmp_path / "run" / "trackers" / "mlflow.txt").read_text().strip())
    assert (run.info.status, run.data.params["train.steps"]) == ("FINISHED", "8")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(line["step"], line["loss"]) for line in lines]


def test_trackio_has_the_log(tiny_recipe, tmp_path):
    lines = run_with("trackio", tiny_recipe, tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "diptych.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    assert [(step, json.loads(metrics)["loss"]) for step, metrics in rows] == [
        (line["step"], line["loss"]) for line in lines
    ]


CODE = """
class Fails:
    def __init__(self, folder, *, resume_step, recipe):
        self.lines = []
        if {at} == 0:
            raise OSError("no route\\nto host")
    def write(self, *, step, **values):
        self.lines.append(step)
        if step == {at}:
            raise RuntimeError("the quota is used up")
    def close(self):
        if {at} == 99:
            raise RuntimeError("nobody there")
"""


@pytest.mark.parametrize(("at", "reason"), [(0, "no route to host"), (5, "the quota is used up"), (99, "nobody there")])
def test_a_tracker_that_fails_is_said_once_and_ends_no_run(at, reason, tiny_recipe, tmp_path, monkeypatch):
    (tmp_path / f"failing{at}.py").write_text(CODE.format(at=at))
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    name = f"failing{at}:Fails"
    recipe = change(tiny_recipe, trackers=(name,), log_every=1)
    assert train(recipe, tmp_path / "run", on_note=said.append).finished
    assert said == [f"the tracker {name} failed and is left out, and the run goes on: {reason}."]
    assert [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl")] == list(range(1, 9))


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio", "tensorboard"])
def test_what_is_not_installed_is_missed_before_the_run_begins(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(MissingExtraError, match=rf"the tracker {name} needs an extra: pip install 'diptych\[{name}\]'"):
        check_trackers([name])


def test_a_name_that_nobody_knows_is_told_with_those_that_are(tiny_recipe):
    with pytest.raises(ConfigError, match=r"train\.trackers: wandd is not known here.* Did you mean wandb\?"):
        change(tiny_recipe, trackers=("wandd",))


def test_recipes_of_before_still_ask_for_tensorboard(tiny_recipe, tmp_path):
    def old(**train: Any) -> Mapping[str, Any]:
        plain = to_dict(tiny_recipe)
        del plain["train"]["trackers"]
        return {**plain, "train": {**plain["train"], **train}}

    assert recipe_of(old(tensorboard=False)) == tiny_recipe
    assert recipe_of(old(tensorboard=True)).train.trackers == ("tensorboard",)
    assert recipe_of(old(tensorboard=True, trackers=["wandb"])).train.trackers == ("tensorboard", "wandb")
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(tiny_recipe))
    assert read_recipe(path, ["train.tensorboard=true"]).train.trackers == ("tensorboard",)
