import json

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.errors import DataError, ShapeError
from diptych.eval import picture_features, zero_shot
from diptych.eval.zero_shot import encode_labelled, evaluate_zero_shot, score_zero_shot
from diptych.sets.labelled import LabelledImages
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


def test_evaluation_counts_a_broken_picture_and_leaves_it_out(colours):
    result = evaluate_zero_shot(ToyEncoder(), colours, batch_size=3)
    assert result.skipped == {"truncated": 1, "empty": 1}
    assert (result.images, result.classes) == (4, 3)
    assert (result.targets.tolist(), result.predictions.tolist()) == ([0, 1, 2, 2], [0, 1, 2, 0])
    assert result.top1 == 3 / 4
    assert result.mean_per_class == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert result.top5 is None
    assert result.templates == ("{}",)


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


def test_templates_come_from_the_call_then_the_set_then_are_the_bare_name(colours):
    own = LabelledImages(**{**vars(colours), "templates": ("own {}",)})
    for data, templates, used in [
        (own, ["a {c}"], ("a {}",)),
        (own, None, ("own {}",)),
        (colours, None, ("{}",)),
    ]:
        encoder = ToyEncoder()
        assert evaluate_zero_shot(encoder, data, templates=templates).templates == used
        assert encoder.text_batches[0] == [used[0].replace("{}", name) for name in ("blue", "green", "red")]


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


def test_two_classes_of_one_name_tie_and_count_as_missed(colours):
    twins = LabelledImages(**{**vars(colours), "classnames": ("blue", "green", "green")})
    result = evaluate_zero_shot(ToyEncoder(), twins)
    assert result.top1 == 1 / 4  # of blue, green, red, red only the first


def test_misfits_are_named():
    with pytest.raises(ShapeError, match=r"image_features \[2, 4\] and class weights \[3, 5\]"):
        score_zero_shot(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, 5))
    with pytest.raises(ShapeError, match=r"image_features \[2, 5\] and targets \[3\]"):
        score_zero_shot(torch.zeros(2, 5), torch.zeros(3), torch.zeros(3, 5))


def test_a_set_without_a_readable_picture_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 \(empty 1\)"):
        evaluate_zero_shot(ToyEncoder(), read_labelled(tmp_path))
