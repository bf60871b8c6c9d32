import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diptych.data import labelled
from diptych.errors import DataError, ImageError, ShapeError
from diptych.eval import picture_features, zero_shot
from diptych.eval.zero_shot import (
    ZeroShotClassifier,
    class_weights,
    encode_labelled,
    evaluate_zero_shot,
    score_zero_shot,
)


class ToyEncoder:
    """A picture's feature is its mean colour; a text's is the colour it names, or what the table says."""

    def __init__(self, texts: dict[str, list[float]] | None = None) -> None:
        self.texts = texts
        self.text_batches: list[list[str]] = []
        self.image_batches: list[int] = []

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        self.image_batches.append(len(images))
        means = torch.tensor(np.array([np.asarray(image).mean(axis=(0, 1)) for image in images])).float()
        return torch.nn.functional.normalize(means, dim=1)

    def logits_per_image(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        return 10.0 * image_features @ text_features.T

    def probabilities(self, logits_per_image: Tensor) -> Tensor:
        return logits_per_image.softmax(dim=1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.text_batches.append(list(texts))
        if self.texts:
            return torch.tensor([self.texts[text] for text in texts])
        named = torch.tensor([[float(word in text) for word in ("red", "green", "blue")] for text in texts])
        return torch.nn.functional.normalize(named + 0.01, dim=1)


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
    return labelled.read_labelled(tmp_path)


def test_features_are_averaged_at_unit_length_and_made_unit_length_again():
    encoder = ToyEncoder({"a cat": [1.0, 0.0], "the cat": [0.6, 0.8]})
    weights = class_weights(encoder, ["cat"], ["a {}", "the {}"])
    # mean (0.8, 0.4), length 0.8944; without the last step it would stay at that
    torch.testing.assert_close(weights, torch.tensor([[0.894427, 0.447214]]))


def test_names_of_a_class_are_pooled_before_the_mean():
    encoder = ToyEncoder({"a cat": [1.0, 0.0], "the cat": [0.0, 1.0], "a puss": [1.0, 0.0], "the puss": [1.0, 0.0]})
    weights = class_weights(encoder, [["cat", "puss"]], ["a {}", "the {}"])
    # the mean of four is (3, 1) / 4; unit means of each name first would give (0.924, 0.383)
    torch.testing.assert_close(weights, torch.tensor([[3.0, 1.0]]) / math.sqrt(10))


def test_probabilities_are_what_the_model_makes_of_its_logits():
    class Sigmoid(ToyEncoder):
        def logits_per_image(self, image_features: Tensor, text_features: Tensor) -> Tensor:
            return super().logits_per_image(image_features, text_features) - 8

        def probabilities(self, logits_per_image: Tensor) -> Tensor:
            return logits_per_image.sigmoid()

    classifier = ZeroShotClassifier(Sigmoid({"cat": [1.0, 0.0], "dog": [0.6, 0.8]}), ["cat", "dog"])
    features = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(classifier.logits(features), torch.tensor([[2.0, -2.0], [-8.0, -16.0]]))
    rows = classifier.probabilities(features)  # a label more or less changes none of the others
    torch.testing.assert_close(rows, torch.tensor([[0.880797, 0.119203], [3.3535e-4, 1.1254e-7]]))


def test_texts_are_encoded_in_batches_that_change_nothing():
    labels, templates = ["red", ["green", "verdant green"], "blue"], ["a {}", "the {} one", "{c}!"]
    whole, parts = ToyEncoder(), ToyEncoder()
    torch.testing.assert_close(
        class_weights(whole, labels, templates), class_weights(parts, labels, templates, batch_size=5)
    )
    assert [len(batch) for batch in parts.text_batches] == [5, 5, 2]
    assert [text for batch in parts.text_batches for text in batch] == whole.text_batches[0]
    assert whole.text_batches[0][2:5] == ["red!", "a green", "the green one"]


def test_logits_are_the_factor_times_the_cosine_and_probabilities_their_softmax():
    encoder = ToyEncoder({"cat": [1.0, 0.0], "dog": [0.6, 0.8]})
    classifier = ZeroShotClassifier(encoder, ["cat", "dog"])
    features = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(classifier.logits(features), torch.tensor([[0.0, 8.0], [10.0, 6.0]]))
    # e^0 : e^8 and e^10 : e^6
    expected = torch.tensor([[1 / (1 + math.exp(8)), 1 / (1 + math.exp(-8))], [1 / (1 + math.exp(-4)), 0.0]])
    expected[1, 1] = 1 - expected[1, 0]
    torch.testing.assert_close(classifier.probabilities(features), expected)


def test_a_classifier_takes_pictures_in_batches():
    encoder = ToyEncoder()
    classifier = ZeroShotClassifier(encoder, ["red", ["green ", "lime green"], "blue"], ["a {} thing"], batch_size=2)
    pictures = [Image.new("RGB", (2, 2), colour) for colour in ("blue", "red", "lime")]
    probabilities = classifier(pictures)
    assert [classifier.labels[row.argmax()] for row in probabilities] == ["blue", "red", "green"]
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))
    assert encoder.image_batches == [2, 1]
    assert classifier([]).shape == (0, 3)


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
    own = labelled.LabelledImages(**{**vars(colours), "templates": ("own {}",)})
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
    twins = labelled.LabelledImages(**{**vars(colours), "classnames": ("blue", "green", "green")})
    result = evaluate_zero_shot(ToyEncoder(), twins)
    assert result.top1 == 1 / 4  # of blue, green, red, red only the first


@pytest.mark.parametrize(
    ("labels", "templates", "sentence"),
    [
        ([], ["{}"], "at least one string"),
        ("cat", ["{}"], "at least one name for each class. Got 'cat'"),
        (["cat", []], ["{}"], "at least one name for each class"),
        (["cat", " "], ["{}"], "Number 2 of 2 is"),
        (["cat", ["dog", "cat"]], ["{}"], "More than once: cat"),
        (["cat"], ["a photo"], "Got 0 in 'a photo'"),
        (["cat"], [], "at least one string"),
    ],
)
def test_labels_and_templates_are_checked(labels, templates, sentence):
    with pytest.raises(DataError, match=sentence):
        ZeroShotClassifier(ToyEncoder(), labels, templates)


def test_misfits_are_named():
    with pytest.raises(ShapeError, match=r"image_features \[2, 4\] and class weights \[3, 5\]"):
        score_zero_shot(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, 5))
    with pytest.raises(ShapeError, match=r"image_features \[2, 5\] and targets \[3\]"):
        score_zero_shot(torch.zeros(2, 5), torch.zeros(3), torch.zeros(3, 5))


def test_a_set_without_a_readable_picture_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 \(empty 1\)"):
        evaluate_zero_shot(ToyEncoder(), labelled.read_labelled(tmp_path))


def test_a_classifier_does_not_swallow_a_broken_picture():
    class Opening(ToyEncoder):
        def encode_images(self, images: Sequence[object]) -> Tensor:
            raise ImageError("broken", "empty")

    with pytest.raises(ImageError):
        ZeroShotClassifier(Opening(), ["red", "blue"])([b""])
