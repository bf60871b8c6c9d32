import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.classify import ZeroShotClassifier, class_weights
from diptych.data.tokenizer import Unread
from diptych.errors import DataError, ImageError, TextError
from toys import ToyEncoder


def test_features_are_averaged_at_unit_length_and_made_unit_length_again():
    encoder = ToyEncoder({"a cat": [1.0, 0.0], "the cat": [0.6, 0.8]})
    weights = class_weights(encoder, ["cat"], ["a {}", "the {}"])
    # mean (0.8, 0.4), length 0.8944; without the last step it would stay at that
    torch.testing.assert_close(weights, np.array([[0.894427, 0.447214]], np.float32))


def test_names_of_a_class_are_pooled_before_the_mean():
    encoder = ToyEncoder({"a cat": [1.0, 0.0], "the cat": [0.0, 1.0], "a puss": [1.0, 0.0], "the puss": [1.0, 0.0]})
    weights = class_weights(encoder, [["cat", "puss"]], ["a {}", "the {}"])
    # the mean of four is (3, 1) / 4; unit means of each name first would give (0.924, 0.383)
    torch.testing.assert_close(weights, np.array([[3.0, 1.0]], np.float32) / math.sqrt(10))


def test_probabilities_are_what_the_model_makes_of_its_logits():
    class Sigmoid(ToyEncoder):
        def logits_per_image(self, image_features: np.ndarray, text_features: np.ndarray) -> np.ndarray:
            return super().logits_per_image(image_features, text_features) - 8

        def probabilities(self, logits_per_image: np.ndarray) -> np.ndarray:
            return 1 / (1 + np.exp(-logits_per_image))

    classifier = ZeroShotClassifier(Sigmoid({"cat": [1.0, 0.0], "dog": [0.6, 0.8]}), ["cat", "dog"])
    features = np.array([[1.0, 0.0], [0.0, -1.0]], np.float32)
    torch.testing.assert_close(classifier.logits(features), np.array([[2.0, -2.0], [-8.0, -16.0]], np.float32))
    rows = classifier.probabilities(features)  # a label more or less changes none of the others
    torch.testing.assert_close(rows, np.array([[0.880797, 0.119203], [3.3535e-4, 1.1254e-7]], np.float32))


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
    features = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    torch.testing.assert_close(classifier.logits(features), np.array([[0.0, 8.0], [10.0, 6.0]], np.float32))
    # e^0 : e^8 and e^10 : e^6
    expected = [[1 / (1 + math.exp(8)), 1 / (1 + math.exp(-8))], [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))]]
    torch.testing.assert_close(classifier.probabilities(features), np.array(expected, np.float32))


def test_a_classifier_takes_pictures_in_batches():
    encoder = ToyEncoder()
    classifier = ZeroShotClassifier(encoder, ["red", ["green ", "lime green"], "blue"], ["a {} thing"], batch_size=2)
    pictures = [Image.new("RGB", (2, 2), colour) for colour in ("blue", "red", "lime")]
    probabilities = classifier(pictures)
    assert [classifier.labels[row.argmax()] for row in probabilities] == ["blue", "red", "green"]
    torch.testing.assert_close(probabilities.sum(axis=1), np.ones(3, np.float32))
    assert encoder.image_batches == [2, 1]
    assert classifier([]).shape == (0, 3)


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


def test_a_classifier_does_not_swallow_a_broken_picture():
    class Opening(ToyEncoder):
        def encode_images(self, images: Sequence[object]) -> np.ndarray:
            raise ImageError("broken", "empty")

    with pytest.raises(ImageError):
        ZeroShotClassifier(Opening(), ["red", "blue"])([b""])


class _Reader:
    """Knows Latin letters alone."""

    def unread(self, texts):
        return [Unread(text=text, words=1, unknown=1) for text in texts if not text.isascii()]

    def encode_texts(self, texts):
        return np.eye(3)[[0] * len(texts)]


def test_labels_that_the_model_cannot_tell_apart_are_refused_and_one_is_told():
    reader = cast(Any, _Reader())
    with pytest.raises(TextError, match=r"'犬' is no text to this model.* Other labels that are the same to it: 1\."):
        ZeroShotClassifier(reader, ["a cat", "犬", "車"])
    with pytest.raises(TextError, match="'犬' is no text to this model"):
        ZeroShotClassifier(reader, ["犬"])
    classifier = ZeroShotClassifier(reader, ["a cat", "犬"])
    assert [text.text for text in classifier.unread] == ["犬"]
    assert ZeroShotClassifier(reader, [["a dog", "犬"], ["a car", "車"]]).labels == ("a dog", "a car")
