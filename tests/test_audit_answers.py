from pathlib import Path

import pytest
import torch
from PIL import Image

from diptych.audit.answers import example, few, subject_of
from diptych.errors import DataError
from probes import ColourReader, colour_set


def test_answers_are_the_classes_that_fit_best_and_a_tie_is_a_miss(tmp_path: Path):
    subject = subject_of(colour_set(tmp_path / "set"), 100)
    model = ColourReader()
    found = model.pictures(subject.pictures)
    answers = subject.answers(found, model.class_weights(subject.names, ("a {}",)))
    assert answers.correct.all()
    assert answers.predictions.tolist() == answers.targets.tolist()
    nothing = subject.answers(found, torch.zeros(3, 3))
    assert not nothing.correct.any()
    assert subject.prompts(("a {}",)).sentences == ["a blue", "a green", "a red"]


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path):
    data = colour_set(tmp_path / "set")
    (tmp_path / "set" / "red" / "0.png").write_bytes(b"broken")
    subject = subject_of(data, 100)
    model = ColourReader()
    found = model.pictures(subject.pictures)
    answers = subject.answers(found, model.class_weights(subject.names, ("{}",)))
    assert len(answers.keys) == 11
    assert "red/0.png" not in answers.keys
    assert answers.correct.all()


def test_one_class_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"two classes or more. There is one"):
        subject_of(colour_set(tmp_path / "set"), 1)


def test_few_rows_are_spread_and_examples_small():
    assert few(torch.tensor([True, False, True])) == [0, 2]
    assert few(torch.zeros(3, dtype=torch.bool)) == []
    assert few(torch.ones(24, dtype=torch.bool)) == list(range(0, 24, 2))
    shown = example("a", "b", Image.new("RGB", (400, 200))).picture
    assert shown is not None
    assert shown.size == (160, 80)
