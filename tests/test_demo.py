"""The demo's page, of a model that ships and a log written by hand."""

import dataclasses
import json

import numpy as np
import pytest

from diptych.data.embedded import HELD_OUT, data_path
from diptych.pages.demo import LABELS, QUERIES, DemoReport, demo_report
from diptych.pages.html import render_report
from diptych.sets.open import read_labelled
from diptych.train.trainer import TrainResult
from diptych.weights.registry import load_in_torch
from diptych.where import Locator

LINES = [
    {"step": 0, "pairs": 0, "seconds": 0.0, "twemoji/top1": 0.125},
    {"step": 1, "pairs": 8, "seconds": 4.0, "loss": 2.0},
    {"step": 2, "pairs": 16, "seconds": 8.0, "loss": 1.5, "twemoji/top1": 0.5},
]


@pytest.fixture(scope="module")
def run(tiny_recipe) -> tuple[TrainResult, DemoReport]:
    counts = {"pairs": 16, "train_seconds": 8.0, "time": {"step": 6.0, "data": 2.0}}
    bundle = load_in_torch("diptych-pictogram-small")
    result = TrainResult(bundle=bundle, step=2, finished=True, metrics={}, counts=counts)
    recipe = dataclasses.replace(tiny_recipe, about_data="drawings", seed=3)
    return result, demo_report(result, recipe, LINES, date="2026-11-29", planned_steps=30)


def test_the_results_are_the_number_with_its_conditions(run):
    result, report = run
    results = json.loads(json.dumps(report.results))
    assert results["data"] == HELD_OUT
    assert (results["classes"], results["images"]) == (1940, 1940)
    assert (results["top1"], results["top5"]) == (report.scored.top1, report.scored.top5)
    assert results["pairs_seen"] == result.counts["pairs"] == 16
    assert results["model"] == result.bundle.fingerprint()
    assert (results["date"], results["seed"]) == ("2026-11-29", 3)
    assert results["bottleneck"].startswith("25% of the time waits for data")
    assert results["hardware"]["cores"] >= 1
    assert (results["steps"], results["planned_steps"]) == (8, 30)


def test_curves_begin_before_the_first_step_and_know_chance(run):
    loss, accuracy = run[1].page.curves
    assert loss.points == [(1, 2.0), (2, 1.5)]
    assert (loss.unit, loss.chance) == ("nats", None)
    assert accuracy.points == [(0, 0.125), (2, 0.5)]
    assert (accuracy.is_share, accuracy.chance) == (True, 1 / 1940)


def test_the_page_says_what_was_measured_on_what(run):
    _, report = run
    page = report.page
    assert page.headline[0][:2] == ("top-1", f"{report.scored.top1:.1%}")
    assert page.headline[0][2].endswith("chance 0.05%")
    assert page.headline[2][:2] == ("pairs seen", "16")
    assert page.headline[2][2] == "2 a second"
    assert page.conditions["trained on"] == "drawings"
    assert page.conditions["steps"] == "8 of 30, as this machine was slow"
    assert page.conditions["model"] == run[0].bundle.fingerprint()
    assert page.conditions["on"].startswith("Twemoji, 1,940 pictures")


def test_pictures_come_with_names_queries_and_free_labels(run):
    page = run[1].page
    names = set(read_labelled(data_path(HELD_OUT)).classnames)
    assert [query for query, _ in page.retrievals] == list(QUERIES)
    for query, hits in page.retrievals:
        assert {hit.is_match is None for hit in hits} == {query not in names}
        plain = Locator(run[0].bundle, [query])(hits[0].picture).overlay()
        assert np.array_equal(hits[0].why, plain)
        assert all(hit.why.size == hit.picture.size and hit.why is not hit.picture for hit in hits)
    assert [query for query in QUERIES if query in names] == list(QUERIES[:4])
    assert len(page.classified) >= 8
    assert all(label in LABELS for card in page.classified for label, _ in card.guesses)
    assert len(page.right) == len(page.wrong) == 12
    assert all(card.truth == card.guesses[0][0] for card in page.right)
    assert all(card.truth in names - {card.guesses[0][0]} for card in page.wrong)


def test_the_page_is_written_without_a_word_from_elsewhere(run):
    html = render_report(run[1].page)
    assert html == render_report(run[1].page)
    assert "<script" not in html
    assert html.count("<svg role") == 2
