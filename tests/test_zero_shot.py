import json

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.errors import ShapeError
from diptych.eval import picture_features, zero_shot
from diptych.eval.zero_shot import (
    LabelledFeatures,
    encode_labelled,
    rejection_of,
    score_zero_shot,
    temperature_of,
)
from diptych.sets.open import read_labelled
from toys import ToyEncoder


@pytest.fixture
def colours(tmp_path):
    """Four good pictures, of which the class folder is wrong for one, and two broken ones."""
    for name, colour in [
        ("red/0.png", "red"),
        ("red/1.png", "blue"),
        ("green/0.png", "lime"),
        ("blue/0.png", "blue"),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    (tmp_path / "green" / "1.png").write_bytes(b"")
    (tmp_path / "blue" / "1.png").write_bytes((tmp_path / "red" / "0.png").read_bytes()[:50])
    return read_labelled(tmp_path)


def test_features_say_which_pictures_they_come_from(colours):
    encoded = encode_labelled(ToyEncoder(), colours)
    assert [colours.keys[i] for i in encoded.kept] == ["blue/0.png", "green/0.png", "red/0.png", "red/1.png"]
    assert encoded.targets.tolist() == [0, 1, 2, 2]
    torch.testing.assert_close(encoded.image_features, torch.eye(3)[[2, 1, 0, 2]])


def test_large_pictures_go_in_smaller_batches(colours, monkeypatch):
    monkeypatch.setattr(picture_features, "_PIXELS_AT_ONCE", 100)  # of 64-pixel pictures: two reach it
    encoder = ToyEncoder()
    encode_labelled(encoder, colours)
    assert encoder.image_batches == [2, 2]


def test_scores_of_given_features_are_those_worked_by_hand(monkeypatch):
    monkeypatch.setattr(zero_shot, "_ROWS_AT_ONCE", 2)
    weights = torch.eye(7)
    features = torch.tensor(
        [
            [7, 6, 5, 4, 3, 2, 1],  # target 0: first
            [7, 6, 5, 4, 3, 2, 1],  # target 4: fifth
            [7, 6, 5, 4, 3, 2, 1],  # target 5: sixth
        ]
    ).float()
    result = score_zero_shot(features, np.array([0, 4, 5]), weights, templates=["a {}"], skipped={"empty": 2})
    assert (result.top1, result.top5) == pytest.approx((1 / 3, 2 / 3))
    assert result.mean_per_class == pytest.approx(1 / 3)
    assert result.predictions.tolist() == [0, 0, 0]
    assert result.interval.low <= result.top1 <= result.interval.high
    again = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert again == {
        "top1": result.top1,
        "top5": result.top5,
        "mean_per_class": result.mean_per_class,
        "interval": {"low": result.interval.low, "high": result.interval.high, "level": 0.95},
        "classes": 7,
        "images": 3,
        "skipped": {"empty": 2},
        "templates": ["a {}"],
    }


def test_misfits_are_named():
    with pytest.raises(ShapeError, match=r"image_features \[2, 4\] and class weights \[3, 5\]"):
        score_zero_shot(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, 5))
    with pytest.raises(ShapeError, match=r"image_features \[2, 5\] and targets \[3\]"):
        score_zero_shot(torch.zeros(2, 5), torch.zeros(3), torch.zeros(3, 5))


def test_a_temperature_takes_the_error_from_a_model_that_is_too_sure():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(600) % 3
    honest = torch.randn(600, 3, generator=generator) + torch.nn.functional.one_hot(targets, 3)
    encoded = LabelledFeatures(honest, targets, tuple(range(600)), {})
    sure, guesses = (9 * honest).softmax(dim=1).max(dim=1)
    found = temperature_of(
        lambda rows, weights: 9 * rows @ weights.T, encoded, torch.eye(3), sure, guesses == targets, seed=0
    )
    assert found
    assert found.value == pytest.approx(9, rel=0.2)  # of logits of unit noise the softmax is right
    assert found.error_after < 0.08 < 0.2 < found.error_before
    assert (found.fitted_on, found.measured_on) == (300, 300)
    alone = LabelledFeatures(honest[:3], targets[:3], (0, 1, 2), {})
    assert (
        temperature_of(lambda rows, weights: rows @ weights.T, alone, torch.eye(3), sure[:3], guesses[:3] > 0, seed=0)
        is None
    )


def test_rejection_takes_classes_away_and_counts_their_pictures_right_when_they_are_refused():
    targets = torch.arange(100) % 5
    encoded = LabelledFeatures(torch.eye(5)[targets], targets, tuple(range(100)), {})
    found = rejection_of(lambda rows, weights: rows @ weights.T, encoded, torch.eye(5), seed=0)
    assert found
    assert (found.unknown, found.accuracy, found.threshold.auc) == (1, 1.0, 1.0)  # its pictures score 0 everywhere
    blind = rejection_of(lambda rows, weights: torch.ones(len(rows), len(weights)), encoded, torch.eye(5), seed=0)
    assert blind
    assert blind.accuracy == 0  # all ties are misses, and nothing is refused
    few = LabelledFeatures(torch.eye(2)[:, :2], torch.tensor([0, 1]), (0, 1), {})
    assert rejection_of(lambda rows, weights: rows @ weights.T, few, torch.eye(2), seed=0) is None
