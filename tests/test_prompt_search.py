from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from diptych.classify import class_weights
from diptych.errors import ConfigError, DataError, ShapeError
from diptych.eval.prompt_search import (
    choose_templates,
    find_collisions,
    score_templates,
    template_features,
    weights_of,
)
from diptych.measures.unit_length import unit_length


class HashEncoder:
    """Texts to unit vectors that depend on nothing but the text."""

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray:
        return unit_length(np.stack([np.random.default_rng(sum(text.encode())).normal(size=8) for text in texts]))

    def encode_images(self, images: Sequence[Any], /) -> np.ndarray: ...
    def logits_per_image(self, image_features: np.ndarray, text_features: np.ndarray, /) -> np.ndarray: ...
    def probabilities(self, logits_per_image: np.ndarray, /) -> np.ndarray: ...


def test_any_choice_of_templates_gives_the_classifier_that_zero_shot_makes():
    labels, templates = ["cat", ["dog", "hound"], "ship"], ["{}", "a {}", "my {}.", "no {}"]
    features = template_features(HashEncoder(), labels, templates, batch_size=3)
    assert features.shape == (4, 3, 8)
    for chosen in ([0], [2, 1], [0, 1, 2, 3]):
        twin = class_weights(HashEncoder(), labels, [templates[number] for number in chosen])
        torch.testing.assert_close(weights_of(features, chosen), torch.from_numpy(twin))


# Two classes, along x and y. Template 0 is right about both, 1 turns them round, 2 calls everything the first.
UPRIGHT, TURNED = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]
FIRST = [[1.0, 1.0], [-1.0, -1.0]]
FEATURES = torch.tensor([UPRIGHT, TURNED, FIRST])
PICTURES = normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [0.1, 1.0]]), dim=1)
TARGETS = torch.tensor([0, 0, 0, 1])


def test_templates_are_scored_one_by_one():
    scores = score_templates(FEATURES, PICTURES, TARGETS)
    assert scores.top1.tolist() == [1, 0, 0.75]
    assert scores.by_class.tolist() == [[1, 1], [0, 0], [1, 0]]
    # Together the first two cancel, and the third decides.
    assert scores.together == 0.75
    assert scores.effect(0).tolist() == [0, 1]
    assert scores.effect(1).tolist() == [-1, 0]
    assert scores.spread == (0, 0.75, 1)
    assert scores.disagreement == 1


def test_a_class_without_a_picture_has_no_accuracy():
    scores = score_templates(FEATURES, PICTURES[:3], TARGETS[:3])
    assert scores.by_class.isnan().tolist() == [[False, True]] * 3


def test_the_choice_stops_where_nothing_helps():
    [only] = choose_templates(FEATURES, PICTURES, TARGETS)
    assert (only.template, only.top1, only.mean_per_class) == (0, 1, 1)


def test_templates_are_added_while_they_help():
    # Two templates are right about two classes of three each, and their sum about all; the first of all ties always.
    first = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-0.8, 0, -0.6]])
    second = torch.tensor([[1.0, 0, 0], [-0.8, -0.6, 0], [0, 0, 1.0]])
    features = torch.stack([torch.ones(3, 3), first, second])
    pictures, targets = torch.eye(3), torch.arange(3)
    steps = choose_templates(features, pictures, targets)
    assert [step.template for step in steps] == [1, 2]
    assert [step.top1 for step in steps] == pytest.approx([2 / 3, 1])
    assert len(choose_templates(features, pictures, targets, most=1)) == 1


def test_scores_rise_with_every_step_and_equal_zero_shot():
    generator = torch.Generator().manual_seed(0)
    features = normalize(torch.randn(9, 4, 6, generator=generator), dim=2)
    pictures = normalize(torch.randn(80, 6, generator=generator), dim=1)
    targets = torch.randint(4, (80,), generator=generator)
    steps = choose_templates(features, pictures, targets, most=5)
    order = [(step.top1, step.mean_per_class) for step in steps]
    assert order == sorted(set(order))
    assert steps[0].top1 == score_templates(features, pictures, targets).top1.max()
    weights = weights_of(features, [step.template for step in steps])
    assert steps[-1].top1 == pytest.approx(((pictures @ weights.T).argmax(dim=1) == targets).double().mean().item())


def test_names_collide_by_letters_and_by_features():
    labels = ["crane", "kite", ["Missile", "rocket"], " missile ", "sunglass"]
    weights = normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.6, 0.8], [0, 1, 0.1]]), dim=1)
    found = find_collisions(labels, weights, cosine=0.9)
    assert [(pair.first, pair.second, pair.same_name) for pair in found] == [(2, 3, True), (1, 4, False)]
    assert [pair.cosine for pair in found] == pytest.approx([0.8, 1 / 1.01**0.5])


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: score_templates(FEATURES, PICTURES, TARGETS[:2]), ShapeError, r"\[3, 2, 2\].* targets \[2\]"),
        (lambda: score_templates(FEATURES, PICTURES[:0], TARGETS[:0]), DataError, "at least one picture"),
        (lambda: choose_templates(FEATURES, PICTURES, TARGETS, most=0), ConfigError, "Got 0"),
        (lambda: find_collisions(["a"], torch.eye(2)), ShapeError, "each of the 1 classes"),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
