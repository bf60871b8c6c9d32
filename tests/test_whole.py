from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.audit.whole import CHAPTERS, Sets, audit_model
from diptych.errors import ConfigError
from diptych.eval.features import ModelFeatures
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle


def a_set(folder: Path, classes: int = 5) -> LabelledImages:
    rng = np.random.default_rng(classes)
    for name in range(classes):
        (folder / f"class {name}").mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class {name}" / f"{number}.png")
    return read_labelled(folder)


def test_every_set_has_its_chapter_and_every_number_its_model(tmp_path: Path, tiny_bundle: Bundle):
    features = ModelFeatures(tiny_bundle)
    sets = Sets(labelled=[a_set(tmp_path / "one"), a_set(tmp_path / "two", 6)])
    begun: list[str] = []
    audit = audit_model(features, sets, model="mine", chapters=["calibration", "wording"], on_chapter=begun.append)
    assert begun == ["wording", "calibration"]  # in the order of the page
    assert [(one.name, one.title.partition(": ")[2]) for one in audit.chapters] == [
        ("wording", "one"),
        ("wording", "two"),
        ("calibration", "one"),
        ("calibration", "two"),
    ]
    assert {result.model.fingerprint for result in audit.results} == {features.fingerprint}
    assert audit.not_measured["scenes"] == "It was not asked for."
    assert len(audit.not_measured) == len(CHAPTERS) - 2


def test_what_needs_data_of_ones_own_says_which(tmp_path: Path, tiny_bundle: Bundle):
    sets = Sets(labelled=[a_set(tmp_path / "one")])
    asked = ["class-design", "gendered-labels", "by-group", "surveillance"]
    audit = audit_model(ModelFeatures(tiny_bundle), sets, model="mine", chapters=asked)
    assert audit.chapters == ()
    assert ["--people" in audit.not_measured[name] for name in asked] == [True, True, False, False]


def test_a_chapter_that_fails_is_said_and_the_others_go_on(tmp_path: Path, tiny_bundle: Bundle):
    one_class, good = a_set(tmp_path / "single", 1), a_set(tmp_path / "good")
    sets = Sets(labelled=[one_class, good])
    audit = audit_model(ModelFeatures(tiny_bundle), sets, model="mine", chapters=["wording"])
    assert [chapter.results[0].data.name for chapter in audit.chapters] == ["good"]
    assert "two classes" in audit.not_measured["wording 1"]


def test_a_chapter_that_is_none_is_refused_before_anything_is_measured(tmp_path: Path, tiny_bundle: Bundle):
    begun: list[str] = []
    with pytest.raises(ConfigError, match="colour"):
        audit_model(
            ModelFeatures(tiny_bundle),
            Sets(labelled=[a_set(tmp_path / "one")]),
            model="mine",
            chapters=["wording", "colour"],
            on_chapter=begun.append,
        )
    assert begun == []


def test_every_chapter_has_a_command():
    from diptych.cli.audit import audit

    commands = set(audit) - {"--help", "-h", "--version"}
    assert commands == {*CHAPTERS, "overlap"}
