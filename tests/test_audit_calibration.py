from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.audit.calibration import FEW, calibration
from diptych.classify import ZeroShotClassifier
from diptych.eval.chapter import Chapter
from diptych.eval.features import ModelFeatures
from diptych.measures.calibration import reliability
from diptych.measures.metrics import roc_auc
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle

COLOURS = {"red": 7, "green": 7, "blue": 7, "grey": 7, "white": 7, "black": 2}  # pictures of each


def a_set(folder: Path, classes: dict[str, int]) -> LabelledImages:
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return read_labelled(folder)


@pytest.fixture
def chapter(tmp_path: Path, tiny_bundle: Bundle) -> Chapter:
    return calibration(ModelFeatures(tiny_bundle), a_set(tmp_path / "colours", COLOURS))


def test_the_error_and_the_surest_are_of_all_pictures(chapter: Chapter):
    error, quarter = chapter.results[:2]
    assert (error.metric, error.n) == ("expected calibration error", 37)
    assert error.rows.confidences is not None
    assert error.rows.correct is not None
    assert error.value == reliability(error.rows.confidences, error.rows.correct).expected_error
    assert (quarter.case, quarter.n) == ({"asked": "right of the surest 25%"}, 9)


def test_unknown_classes_are_told_by_the_highest_probability_of_the_known_ones(tmp_path: Path, tiny_bundle: Bundle):
    pictures = a_set(tmp_path / "colours", COLOURS)
    chapter = calibration(ModelFeatures(tiny_bundle), pictures)
    told = next(result for result in chapter.results if result.metric == "ROC AUC")
    inside = told.rows.targets
    assert inside is not None
    unknown = {pictures.classnames[pictures.targets[row]] for row in range(37) if not inside[row]}
    assert len(unknown) == 2  # at least two, so that a threshold is tried on another class than it is chosen on
    known = [name for name in pictures.classnames if name not in unknown]
    twin = ZeroShotClassifier(tiny_bundle, known)([pictures.open(row) for row in range(37)]).max(axis=1)
    assert told.value == pytest.approx(roc_auc(torch.from_numpy(twin), inside), abs=0.02)


def test_thresholds_are_tried_on_other_classes_than_they_are_chosen_on(chapter: Chapter):
    through = [one for one in chapter.results if one.case["asked"].startswith("unknown let through")]
    rightly = [one for one in chapter.results if one.case["asked"].startswith("known answered")]
    assert len({one.n for one in through}) == 1
    assert through[0].n + rightly[0].n < 37  # pictures of the classes that it was chosen on are in neither
    thresholds = [one.numbers["threshold"] for one in through]
    assert thresholds == sorted(thresholds, reverse=True)  # the more may pass, the lower


def test_classes_with_few_pictures_are_said_not_judged(chapter: Chapter):
    assert len(chapter.contrasts) == 5
    assert chapter.not_measured == (
        f"1 classes have fewer than {FEW} pictures that can be read: too few to say how sure it may be.",
    )


def test_three_classes_are_too_few_for_none_of_these(tmp_path: Path, tiny_bundle: Bundle):
    chapter = calibration(ModelFeatures(tiny_bundle), a_set(tmp_path / "few", {"a": 6, "b": 6, "c": 6}))
    assert not [one for one in chapter.results if one.metric == "ROC AUC"]
    assert "at least four classes" in chapter.not_measured[0]
