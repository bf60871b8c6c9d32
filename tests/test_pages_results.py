import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.errors import DataError
from diptych.eval.result import Conditions, DataId, ModelId, ProbeFit, Result, Rows
from diptych.eval.tasks import Prompts
from diptych.eval.zero_shot import Rejection, Temperature
from diptych.measures.calibration import RejectThreshold, reliability
from diptych.measures.metrics import Interval
from diptych.measures.retrieval import Ranking, RetrievalResult
from diptych.pages.html import render_report
from diptych.pages.results import measured_pictures, results_page
from diptych.sets.digest import digest
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from test_shift import models

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


KEYS = tuple(f"{name}/{i}.png" for name in NAMES for i in range(2))


def result(name: str = "mnist", *, model: str = "RN50.openai", fingerprint: str = "f0", **values) -> Result:
    rows = Rows(
        keys=KEYS,
        targets=torch.tensor([0, 0, 1, 1, 2, 2]),
        predictions=torch.tensor([1, 1, 1, 0, 2, 2]),
        correct=torch.tensor([0, 0, 1, 0, 1, 1]).bool(),
        confidences=torch.tensor([0.9, 0.7, 0.8, 0.95, 0.6, 0.6]),
    )
    assert rows.confidences is not None
    assert rows.correct is not None
    facts = {
        "measurement": "zero-shot",
        "kind": "classification",
        "model": ModelId(name=model, fingerprint=fingerprint),
        "data": DataId(name=name, split="test", sha256="abcdef" * 10),
        "metric": "accuracy",
        "value": 0.5,
        "interval": Interval(0.1, 0.9, 0.95),
        "n": 6,
        "numbers": {"top-1": 0.5, "mean per class": 0.5},
        "prompts": Prompts(
            templates=("a {}", "b {}", "c {}", "d {}"),
            classnames=tuple((one,) for one in NAMES),
            labels=NAMES,
            source="the set's own",
        ),
        "skipped": {"truncated": 2},
        "conditions": Conditions(seed=3, versions={"diptych": "0.1"}, hardware={"cpu": "a processor", "cores": 2}),
        "rows": rows,
        "reliability": reliability(rows.confidences, rows.correct),
    }
    return Result(**{**facts, **values})


def cells(page, column: str) -> list[str]:
    return [row[list(page.table.header).index(column)] for row in page.table.rows]


def test_the_table_stands_beside_the_published_figures():
    page = results_page([result(), result("my own")], {})
    assert page.table
    assert list(page.table.header[-2:]) == ["CLIP, table 11", "open_clip, docs"]
    first, second = page.table.rows
    # |confidence - accuracy| by bin: two of 0.6 right, 0.7 wrong, 0.8 right, 0.9 wrong, 0.95 wrong.
    error = (2 * 0.4 + 0.7 + 0.2 + 0.9 + 0.95) / 6
    assert list(first) == [
        *("mnist", "classification", "accuracy", "6", "3", "50.0%", "10.0% to 90.0%"),
        *("mean per class 50.0%", f"{error:.1%}", "66.6%", "57.6%"),
    ]
    assert list(second[-2:]) == ["-", "-"]
    assert page.headline == [("mean zero-shot", "50.0%", "of 2 sets, each by its metric")]


def test_a_model_that_nobody_published_has_no_such_column():
    page = results_page([result(model="mine")], {})
    assert page.table
    assert page.table.header[-1] == "calibration error"
    assert page.table.note == ""


def test_classes_are_shown_best_first():
    [bars] = results_page([result()], {}).bars
    assert bars.bars == [("emu", 1), ("dog", 0.5), ("cat", 0)]


def test_of_many_classes_the_best_and_the_worst_are_shown():
    names, many = tuple(f"class {i}" for i in range(40)), torch.arange(40)
    prompts = Prompts(templates=("{}",), classnames=tuple((one,) for one in names), labels=names, source="ours")
    rows = Rows(keys=names, targets=many, predictions=many, correct=many % 2 == 0, confidences=torch.full((40,), 0.5))
    [bars] = results_page([result(rows=rows, prompts=prompts)], {}).bars
    assert [label for label, _ in bars.bars[:5]] == [f"class {i}" for i in (0, 2, 4, 6, 8)]
    assert {share for _, share in bars.bars[5:]} == {0}
    assert bars.note == "The 5 best and the 11 worst of 40."


def test_failures_are_the_surest_and_confusions_the_most_frequent(data: LabelledImages):
    page = results_page([result()], {"mnist": data}, failures=2)
    assert [(one.truth, one.guesses) for one in page.wrong] == [
        ("dog", (("cat", pytest.approx(0.95)),)),
        ("cat", (("dog", pytest.approx(0.9)),)),
    ]
    assert np.array_equal(np.asarray(page.wrong[1].picture), np.asarray(data.open(0)))
    assert [(truth, guess) for truth, _, guess, _ in page.confusions] == [("cat (2)", "dog"), ("dog (1)", "cat")]
    assert np.array_equal(np.asarray(page.confusions[0][3]), np.asarray(data.open(2)))  # the first dog


def test_pictures_are_found_by_their_key_not_by_their_place_in_the_set(data: LabelledImages):
    one = result()
    turned = result(rows=one.rows.chosen([5, 4, 3, 2, 1, 0]))
    straight, turned_round = (results_page([some], {"mnist": data}, failures=9).wrong for some in (one, turned))
    assert [(some.truth, np.asarray(some.picture).tobytes()) for some in straight] == [
        (some.truth, np.asarray(some.picture).tobytes()) for some in turned_round
    ]


def test_without_the_pictures_the_numbers_are_there():
    page = results_page([result()], {})
    assert not page.wrong
    assert not page.confusions
    assert page.reliability[0].points[0] == (pytest.approx(0.6), 1, 2)
    assert page.conditions["prompts"] == "mnist: a {}, b {}, ... (4), the set's own"
    assert page.conditions["pictures left out"].startswith("2,")


def test_temperature_and_rejection_stand_beside_the_reliability():
    heat = Temperature(value=2.5, error_before=0.2, error_after=0.01, fitted_on=3, measured_on=3)
    far = Rejection(unknown=1, threshold=RejectThreshold(0.5, 1.0, 1.0, 0.875), accuracy=0.9, measured_on=3)
    page = results_page([result(temperature=heat, rejection=far), result("other")], {})
    plot = page.reliability[0]
    assert "A temperature of 2.5, fitted on half of the pictures, takes the error from 20.0% to 1.0%" in plot.note
    assert page.rejection
    curve = ["50.0%", "40.0%", "25.0%", "33.3%", "0.0%"]  # of 6, 5, 4, 3 and 2 pictures
    assert page.rejection.rows == [
        ["mnist", *curve, "1", "0.875", "90.0%"],
        ["other", *curve, "-", "-", "-"],
    ]
    assert "When it may hold an answer back" in render_report(page)


def test_results_of_several_models_and_changed_sets_are_refused(data: LabelledImages):
    one, other = result(), result("other", model="b", fingerprint="f1")
    with pytest.raises(DataError, match=r"Got results of 2: RN50\.openai, b"):
        results_page([one, other], {})
    with pytest.raises(DataError, match="Got results of 0"):
        results_page([], {})
    changed = dataclasses.replace(one, prompts=dataclasses.replace(one.prompts, labels=("a", "b", "c")))
    with pytest.raises(DataError, match="has the set changed"):
        results_page([changed], {"mnist": data})


def test_pictures_are_taken_only_as_they_were_measured(data: LabelledImages, tmp_path: Path):
    one = result(data=DataId(name="mnist", split="test", sha256=digest(tmp_path / "mnist", "test")))
    for folder in (tmp_path, tmp_path / "mnist"):  # the folder that holds the set, and the set
        sets, absent = measured_pictures([one, one], folder)
        assert (sets["mnist"].keys, absent) == (data.keys, [])
    assert measured_pictures([result()], tmp_path) == ({}, ["mnist"])


def probe(**values) -> Result:
    fit = ProbeFit(
        train=DataId(name="mnist", split="train"), validation="val", train_examples=1, validation_examples=1, a_class=1,
        l2=1, loss=1, converged=True, tried={}, zero_shot=0.5, zero_shot_interval=Interval(0, 1, 0.95),
        skipped={"train": {"empty": 4}, "test": {"truncated": 1}},
    )  # fmt: skip
    return result(measurement="linear-probe", value=0.75, interval=Interval(0.5, 0.9, 0.95), probe=fit, **values)


def retrieved(*, fingerprint: str = "f0") -> Result:
    to_text = Ranking({1: 0.25, 5: 0.5}, {1: Interval(0.2, 0.3, 0.95)}, 3.5, 8, torch.arange(40))
    to_image = dataclasses.replace(to_text, recall={1: 0.125, 5: 1.0, 10: 1.0})
    return result(
        measurement="retrieval", kind="retrieval", metric="text-to-image recall@1", value=0.125,
        fingerprint=fingerprint,
        data=DataId(name="photos", split="val", sha256="12" * 32), retrieval=RetrievalResult(to_text, to_image),
        rows=Rows(keys=KEYS), reliability=None, prompts=Prompts(templates=("a photo of {}",), source="ours"),
    )  # fmt: skip


def test_a_probe_stands_beside_zero_shot_with_its_published_figure():
    page = results_page([probe(), result(), result("my own")], {})
    assert page.table
    assert list(page.table.header[9:11]) == ["linear probe", "95% interval"]
    assert list(page.table.header[-1:]) == ["CLIP, table 10"]
    mnist, own = page.table.rows
    assert (mnist[5], mnist[9], mnist[10], mnist[-1]) == ("50.0%", "75.0%", "50.0% to 90.0%", "98.3%")
    assert list(own[9:11]) == ["-", "-"]
    assert page.headline[1] == ("linear probe", "75.0%", "accuracy")
    assert [bars.title for bars in page.bars] == ["mnist", "my own"]  # a set once
    assert page.conditions["pictures left out"].startswith("9,")


def test_a_probe_alone_has_its_own_classes_and_failures(data: LabelledImages):
    page = results_page([probe()], {"mnist": data})
    assert page.table
    assert list(page.table.rows[0][5:11]) == ["-", "-", "-", "-", "75.0%", "50.0% to 90.0%"]
    assert len(page.wrong) == 3


def test_retrieval_has_a_table_of_its_own():
    page = results_page([result(), retrieved()], {})
    assert page.retrieval_table
    assert page.retrieval_table.rows == [
        ["photos, val: picture to texts", "40", "8", "25.00%", "20.00% to 30.00%", "50.00%", "-", "3.5"],
        ["photos, val: text to pictures", "40", "8", "12.50%", "20.00% to 30.00%", "100.00%", "100.00%", "3.5"],
    ]
    assert page.headline[-1] == ("recall@1, photos, val", "25.0% / 12.5%", "of texts / of pictures")
    alone = results_page([retrieved()], {})
    assert alone.table is None
    assert "photos, val" in render_report(alone)
    with pytest.raises(DataError, match="Got results of 2"):
        results_page([result(), retrieved(fingerprint="f1")], {})


def test_other_kinds_have_their_row_with_their_metric_and_numbers():
    words = result(
        "signs", kind="ocr", metric="accuracy", rows=Rows(keys=KEYS), reliability=None, numbers={},
        prompts=Prompts(templates=("{}",), source="ours"),
    )  # fmt: skip
    places = dataclasses.replace(words, data=DataId(name="far", split="test"), kind="geolocation",
                                 metric="within 25 km", numbers={"within 1 km": 0.25, "within 25 km": 0.5})  # fmt: skip
    page = results_page([result(), words, places], {})
    assert cells(page, "kind") == ["classification", "ocr", "geolocation"]
    assert cells(page, "metric")[2] == "within 25 km"
    assert cells(page, "others")[2] == "within 1 km 25.0%"
    assert len(page.bars) == len(page.reliability) == 1


def test_effective_robustness_stands_where_imagenet_and_its_shifts_are():
    [results] = models(1).values()
    page = results_page([dataclasses.replace(one, measurement="zero-shot") for one in results], {})
    assert cells(page, "effective robustness")[0] == "-"  # ImageNet itself
    assert all(cell[0] in "+-" and len(cell) > 1 for cell in cells(page, "effective robustness")[1:])
    assert page.headline[-1][0] == "effective robustness"


def test_two_results_of_one_kind_and_set_are_refused():
    with pytest.raises(DataError, match=r"mnist, zero-shot once\. There are two"):
        results_page([result(), result()], {})


@pytest.mark.skipif(not (os.path.exists(CHROMIUM) or shutil.which("chromium")), reason="needs chromium")  # noqa: PTH110
def test_the_page_opens_offline_in_a_browser_with_all_its_pictures(tmp_path: Path, data: LabelledImages):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    page = results_page([result(), probe(), retrieved()], {"mnist": data})
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
