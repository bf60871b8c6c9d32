"""What the page of a run holds, from a log written by hand."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diptych.config import to_toml
from diptych.data.embedded import HELD_OUT
from diptych.pages.html import render_report
from diptych.pages.page import ReportPage
from diptych.pages.run import chance_levels, run_page
from diptych.train.watch import WatchedRun

START = {"step": 0, "pairs": 0, "seconds": 0.0, "set/top1": 0.25, "time": {"evaluation": 2.0}}
REST = {"learning_rate": 1e-3, "logit_scale": 14.0, "gradient_norm": 1.0, "time": {"step": 1.0, "data": 1.0}}
LINES = [
    START,
    REST | {"step": 4, "pairs": 1000, "seconds": 20.0, "loss": 3.0},
    REST | {"step": 8, "pairs": 2000, "seconds": 90.0, "loss": 2.5, "set/top1": 0.75, "set/recall": 0.375},
]


@pytest.fixture
def laid_out(tiny_recipe, tmp_path):
    def laid_out(lines: Sequence[Mapping[str, Any]], chance: Mapping[str, float] | None = None) -> ReportPage:
        (tmp_path / "recipe.toml").write_text(to_toml(tiny_recipe))
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = WatchedRun(tmp_path)
        run.update(time.time())
        return run_page(run, chance)

    return laid_out


def test_the_numbers_are_loss_metrics_pairs_rate_and_time(laid_out):
    table = laid_out(LINES).table
    assert table.header == ("number", "first", "at step", "last", "at step")
    assert table.rows == [
        ("loss, nats", "3", "4", "2.5", "8"),
        ("set/top1", "25.0%", "0", "75.0%", "8"),
        ("set/recall", "0.375", "8", "0.375", "8"),
        ("pairs learned from", "-", "-", "2,000", "8"),
        ("pairs a second of training, mean", "-", "-", "22", "8"),  # 2,000 in 90 s
        ("minutes of training", "-", "-", "1.5", "8"),
    ]


def test_what_was_measured_before_the_first_step_is_drawn(laid_out):
    curves = {curve.title: curve for curve in laid_out(LINES).curves}
    assert curves["set/top1"].points == [(0, 0.25), (8, 0.75)]
    assert curves["set/top1"].is_share
    assert curves["loss"].points == [(4, 3.0), (8, 2.5)]
    assert curves["pairs/s"].points == [(4, 50.0), (8, 1000 / 70)]


def test_chance_is_drawn_where_it_is_known(laid_out):
    curves = laid_out(LINES, {"set/top1": 0.125, "other/top1": 0.5}).curves
    assert {curve.title: curve.chance for curve in curves if curve.chance is not None} == {"set/top1": 0.125}
    assert all(curve.chance is None for curve in laid_out(LINES).curves)


def test_chance_is_one_of_so_many_classes_of_the_sets_at_hand(tiny_recipe, tmp_path):
    for name in ("blue", "red", "grey"):
        (tmp_path / "small" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), name).save(tmp_path / "small" / name / "0.png")
    recipe = dataclasses.replace(tiny_recipe, evaluate=(HELD_OUT, str(tmp_path / "small"), str(tmp_path / "gone")))
    assert chance_levels(recipe) == {
        "twemoji/top1": 1 / 1940,
        "twemoji/top5": 5 / 1940,
        "small/top1": 1 / 3,
        "small/top5": 1.0,
    }


def test_a_run_before_its_first_step_is_a_page(laid_out):
    page = laid_out([START])
    assert page.headline == [("state", "stopped", "step 0 of 8")]
    assert page.left_out is None
    assert page.table is not None
    assert page.table.rows[0] == ("set/top1", "25.0%", "0", "25.0%", "0")
    assert "set/top1" in render_report(page)


def test_samples_that_were_left_out_have_a_table_of_their_own(laid_out):
    assert laid_out(LINES).left_out.rows == [("none", "0", "0.000%")]
    page = laid_out([*LINES[:2], LINES[2] | {"bad": {"truncated": 500}}])
    assert page.left_out.rows == [("truncated", "500", "20.000%")]  # of 2,000 learned from and 500 bad
    assert page.left_out.note == "By cause, of 2,500 drawn."


def test_settings_are_dotted_and_none_is_empty(laid_out, tiny_recipe):
    conditions = laid_out(LINES).conditions
    assert conditions["train.learning_rate"] == "0.002"
    assert conditions["data.sources[0].path"] == tiny_recipe.data.sources[0].path
    assert (conditions["start_from"], conditions["train.freeze"]) == ("-", "-")
    assert conditions["train.compile"] == "false"
    assert conditions["data.sources[0].caption_columns"] == "caption"
    assert all(conditions.values())


def test_a_run_whose_recipe_cannot_be_read_is_named_by_its_folder(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    run = WatchedRun(folder)
    run.update(time.time())
    page = run_page(run)
    assert (page.title, page.summary, page.conditions) == ("mine", "A run at step 8, stopped.", {})
