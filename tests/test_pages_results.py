import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.errors import DataError
from diptych.eval.outcomes import Outcomes, ResultFile, RetrievalFile, read_results, read_retrievals
from diptych.pages.html import render_report
from diptych.pages.results import results_page
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled

NAMES = ("cat", "dog", "emu")
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    """Two pictures a class: positions 0 and 1 are cats."""
    for number, name in enumerate(NAMES):
        (tmp_path / "mnist" / name).mkdir(parents=True)
        for i in range(2):
            noise = np.random.default_rng(2 * number + i).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "mnist" / name / f"{i}.png")
    return read_labelled(tmp_path / "mnist")


def result(folder: Path, name: str = "mnist", *, model: str = "RN50.openai", fingerprint: str = "f0") -> ResultFile:
    outcomes = Outcomes(
        positions=torch.arange(6),
        targets=torch.tensor([0, 0, 1, 1, 2, 2]),
        predictions=torch.tensor([1, 1, 1, 0, 2, 2]),
        correct=torch.tensor([0, 0, 1, 0, 1, 1]).bool(),
        confidences=torch.tensor([0.9, 0.7, 0.8, 0.95, 0.6, 0.6]),
    )
    values = {
        "task": "zero-shot",
        "model": {"name": model, "fingerprint": fingerprint},
        "data": {"name": name, "split": "test", "sha256": "abcdef" * 10},
        "classnames": list(NAMES),
        "pictures": outcomes.to_dict(),
        "top1": 0.5,
        "mean_per_class": 0.5,
        "interval": {"low": 0.1, "high": 0.9, "level": 0.95},
        "templates": ["a {}", "b {}", "c {}", "d {}"],
        "seed": 3,
        "skipped": {"truncated": 2},
        "hardware": {"cpu": "a processor", "cores": 2},
        "versions": {"diptych": "0.1"},
    }
    (folder / f"{name}.json").write_text(json.dumps(values))
    return read_results(folder / f"{name}.json")[0]


def test_the_table_stands_beside_the_published_figures(tmp_path: Path):
    page = results_page([result(tmp_path), result(tmp_path, "my own")], {})
    assert page.table
    assert list(page.table.header[-2:]) == ["CLIP, table 11", "open_clip, docs"]
    first, second = page.table.rows
    # |confidence - accuracy| by bin: two of 0.6 right, 0.7 wrong, 0.8 right, 0.9 wrong, 0.95 wrong.
    error = (2 * 0.4 + 0.7 + 0.2 + 0.9 + 0.95) / 6
    assert list(first) == [
        *("mnist", "6", "3", "50.0%", "10.0% to 90.0%", "50.0%", f"{error:.1%}"), "66.6%", "57.6%"
    ]  # fmt: skip
    assert list(second[-2:]) == ["-", "-"]
    assert page.headline == [("mean top-1", "50.0%", "of 2 sets")]


def test_a_model_that_nobody_published_has_no_such_column(tmp_path: Path):
    page = results_page([result(tmp_path, model="mine")], {})
    assert page.table
    assert page.table.header[-1] == "calibration error"
    assert page.table.note == ""


def test_classes_are_shown_best_first(tmp_path: Path):
    [bars] = results_page([result(tmp_path)], {}).bars
    assert bars.bars == [("emu", 1), ("dog", 0.5), ("cat", 0)]


def test_of_many_classes_the_best_and_the_worst_are_shown(tmp_path: Path):
    one = result(tmp_path)
    names, many = tuple(f"class {i}" for i in range(40)), torch.arange(40)
    right = many % 2 == 0
    outcomes = Outcomes(many, many, many, right, torch.full((40,), 0.5))
    [bars] = results_page([dataclasses.replace(one, classnames=names, outcomes=outcomes)], {}).bars
    assert [label for label, _ in bars.bars[:5]] == [f"class {i}" for i in (0, 2, 4, 6, 8)]
    assert {share for _, share in bars.bars[5:]} == {0}
    assert bars.note == "The 5 best and the 11 worst of 40."


def test_failures_are_the_surest_and_confusions_the_most_frequent(tmp_path: Path, data: LabelledImages):
    page = results_page([result(tmp_path)], {"mnist": data}, failures=2)
    assert [(one.truth, one.guesses) for one in page.wrong] == [
        ("dog", (("cat", pytest.approx(0.95)),)),
        ("cat", (("dog", pytest.approx(0.9)),)),
    ]
    assert np.array_equal(np.asarray(page.wrong[1].picture), np.asarray(data.open(0)))
    assert [(truth, guess) for truth, _, guess, _ in page.confusions] == [("cat (2)", "dog"), ("dog (1)", "cat")]
    assert np.array_equal(np.asarray(page.confusions[0][3]), np.asarray(data.open(2)))  # the first dog


def test_without_the_pictures_the_numbers_are_there(tmp_path: Path):
    page = results_page([result(tmp_path)], {})
    assert not page.wrong
    assert not page.confusions
    assert page.reliability[0].points[0] == (pytest.approx(0.6), 1, 2)
    assert page.conditions["prompts"] == "mnist: a {}, b {}, c {} and 1 more"
    assert page.conditions["pictures left out"].startswith("2,")


def test_results_of_several_models_and_changed_sets_are_refused(tmp_path: Path, data: LabelledImages):
    one, other = result(tmp_path), result(tmp_path, "other", model="b", fingerprint="f1")
    with pytest.raises(DataError, match=r"Got results of 2: RN50\.openai, b"):
        results_page([one, other], {})
    with pytest.raises(DataError, match="Got results of 0"):
        results_page([], {})
    changed = dataclasses.replace(one, classnames=("a", "b", "c"))
    with pytest.raises(DataError, match="has the set changed"):
        results_page([changed], {"mnist": data})


def probe(folder: Path, **options) -> ResultFile:
    one = result(folder, **options)
    values = dict(one.values) | {"task": "linear-probe", "top1": 0.75, "interval": {"low": 0.5, "high": 0.9}}
    values |= {"skipped": {"train": {"empty": 4}, "test": {"truncated": 1}}}
    return dataclasses.replace(one, task="linear-probe", values=values)


def retrieved(folder: Path, *, fingerprint: str = "f0") -> RetrievalFile:
    way = {
        "recall": {"1": 0.25, "5": 0.5}, "intervals": {"1": {"low": 0.2, "high": 0.3}}, "median_rank": 3.5,
        "queries": 40, "candidates": 8,
    }  # fmt: skip
    values = {
        "task": "retrieval", "model": {"name": "RN50.openai", "fingerprint": fingerprint},
        "data": {"name": "photos", "split": "val", "sha256": "12" * 32}, "image_to_text": way,
        "text_to_image": way | {"recall": {"1": 0.125, "5": 1.0, "10": 1.0}}, "skipped": {"empty": 1},
        "templates": ["a photo of {}"],
    }  # fmt: skip
    (folder / "photos.retrieval.json").write_text(json.dumps(values))
    return read_retrievals(folder / "photos.retrieval.json")[0]


def test_a_probe_stands_beside_zero_shot_with_its_published_figure(tmp_path: Path):
    page = results_page([probe(tmp_path), result(tmp_path), result(tmp_path, "my own")], {})
    assert page.table
    assert list(page.table.header[7:9]) == ["linear probe", "95% interval"]
    assert list(page.table.header[-1:]) == ["CLIP, table 10"]
    mnist, own = page.table.rows
    assert (mnist[3], mnist[7], mnist[8], mnist[-1]) == ("50.0%", "75.0%", "50.0% to 90.0%", "98.3%")
    assert list(own[7:9]) == ["-", "-"]
    assert page.headline == [("mean top-1", "50.0%", "of 2 sets"), ("linear probe top-1", "75.0%", "")]
    assert [bars.title for bars in page.bars] == ["mnist", "my own"]  # a set once
    assert page.conditions["pictures left out"].startswith("4,")  # of the test pictures; the probe saw the same


def test_a_probe_alone_has_its_own_classes_and_failures(tmp_path: Path, data: LabelledImages):
    page = results_page([probe(tmp_path)], {"mnist": data})
    assert page.table
    assert list(page.table.rows[0][3:9]) == ["-", "-", "-", "-", "75.0%", "50.0% to 90.0%"]
    assert len(page.wrong) == 3


def test_retrieval_has_a_table_of_its_own(tmp_path: Path):
    found = retrieved(tmp_path)
    page = results_page([result(tmp_path)], {}, [found])
    assert page.retrieval_table
    assert page.retrieval_table.rows == [
        ["photos, val: picture to texts", "40", "8", "25.0%", "20.0% to 30.0%", "50.0%", "-", "3.5"],
        ["photos, val: text to pictures", "40", "8", "12.5%", "20.0% to 30.0%", "100.0%", "100.0%", "3.5"],
    ]
    assert page.headline[-1] == ("recall@1, photos, val", "25.0% / 12.5%", "of texts / of pictures")
    alone = results_page([], {}, [found])
    assert alone.table is None
    assert "photos, val" in render_report(alone)
    with pytest.raises(DataError, match="Got results of 2"):
        results_page([result(tmp_path)], {}, [retrieved(tmp_path, fingerprint="f1")])


def test_two_results_of_one_kind_and_set_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"must be of two sets\. Both: mnist"):
        results_page([result(tmp_path), result(tmp_path)], {})


@pytest.mark.skipif(not (os.path.exists(CHROMIUM) or shutil.which("chromium")), reason="needs chromium")  # noqa: PTH110
def test_the_page_opens_offline_in_a_browser_with_all_its_pictures(tmp_path: Path, data: LabelledImages):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    page = results_page([result(tmp_path), probe(tmp_path)], {"mnist": data}, [retrieved(tmp_path)])
    (tmp_path / "report.html").write_text(render_report(page), encoding="utf-8")
    asked: list[str] = []
    complaints: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": 900, "height": 700}, offline=True)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto((tmp_path / "report.html").as_uri())
        tab.wait_for_load_state("load")
        widths = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
        plots = tab.evaluate(
            "[...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect().width)"
        )
        overflow = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
    assert len(widths) == 3 + 2 * 2  # three failures, two pairs of classes
    assert set(widths) == {64}
    assert len(plots) == 1
    assert plots[0] > 200
    assert overflow <= 0
    assert complaints == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == 900
        assert len(shot.convert("RGB").getcolors(1 << 24) or ()) > 1000  # noise of the pictures, not a blank page
