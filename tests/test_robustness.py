import math

import hypothesis
import pytest
import torch
from hypothesis import given, strategies

from diptych.errors import DataError, ShapeError
from diptych.measures.metrics import top_k_accuracy
from diptych.measures.robustness import (
    TRENDS,
    Trend,
    class_subset,
    effective_robustness,
    fit_trend,
    mean_of_pm0_and_pm10,
    natural_shift,
    pm_k_accuracy,
)


@pytest.mark.parametrize(
    ("subset", "shifted", "effective"),
    [
        (87.51, 39.21, -0.80),  # Caffe ResNet-101
        (87.46, 38.53, -1.39),  # torchvision ResNet-50
        (78.94, 47.56, 19.56),  # CLIP RN50, zero-shot
        (81.31, 53.94, 23.28),  # CLIP ViT-B/32, zero-shot
        (95.05, 72.45, 11.05),  # Noisy Student EfficientNet-L2
    ],
)
def test_effective_robustness_is_that_of_the_refitted_trend(subset: float, shifted: float, effective: float):
    # Slope and intercept are kept with three decimals: within 0.03 points.
    assert 100 * effective_robustness(subset / 100, shifted / 100) == pytest.approx(effective, abs=0.03)


def test_a_trend_is_a_line_between_logits():
    # logit(0.8) = log 4 and logit(0.5) = 0: the line through (0, 0) and (log 4, log 2) is half.
    trend = fit_trend([0.5, 0.8], [0.5, 2 / 3])
    assert (trend.slope, trend.intercept) == pytest.approx((0.5, 0))
    assert trend.predict(16 / 17) == pytest.approx(0.8)  # logit log 16, half of it log 4


@hypothesis.settings(max_examples=30, deadline=None)
@given(strategies.floats(0.2, 3), strategies.floats(-3, 3))
def test_models_on_a_line_give_the_line_back_and_no_effective_robustness(slope: float, intercept: float):
    line = Trend(slope, intercept)
    accuracies = [0.3, 0.5, 0.7, 0.9]
    fitted = fit_trend(accuracies, [line.predict(accuracy) for accuracy in accuracies])
    assert (fitted.slope, fitted.intercept) == pytest.approx((slope, intercept), abs=1e-6)
    assert effective_robustness(0.6, line.predict(0.6), fitted) == pytest.approx(0, abs=1e-6)


def test_the_seven_sets_are_averaged_before_the_trend():
    subset = dict.fromkeys(TRENDS, 0.8131)
    shifted = dict.fromkeys(TRENDS, 0.5394)
    shifted["imagenet-a"], shifted["imagenet-r"] = 0.3394, 0.7394  # the mean stays
    summary = natural_shift(subset, shifted)
    assert (summary.subset, summary.shifted) == pytest.approx((0.8131, 0.5394))
    assert summary.effective == pytest.approx(0.2328, abs=3e-4)
    of_a = 1 / (1 + math.exp(-(2.065 * math.log(0.8131 / 0.1869) - 7.836)))
    assert summary.effective_by_set["imagenet-a"] == pytest.approx(0.3394 - of_a)


def test_one_wrong_frame_nearby_spoils_an_anchor():
    #         anchor 0          anchor 1            anchor 2
    anchor = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    offset = torch.tensor([-3, 0, 10, -11, 0, 2, 0])
    correct = torch.tensor([1, 1, 0, 0, 1, 1, 0]).bool()
    assert pm_k_accuracy(correct, anchor, offset, 0) == pytest.approx(2 / 3)
    assert pm_k_accuracy(correct, anchor, offset, 9) == pytest.approx(2 / 3)
    assert pm_k_accuracy(correct, anchor, offset, 10) == pytest.approx(1 / 3)
    assert pm_k_accuracy(correct, anchor, offset, 11) == 0
    assert mean_of_pm0_and_pm10(correct, anchor, offset) == pytest.approx(1 / 2)


def test_a_subset_drops_rows_and_rivals():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.9, 0.0, 0.2, 0.1], [0.0, 0.0, 0.4, 0.6]])
    targets = torch.tensor([2, 0, 3])
    few, renumbered = class_subset(scores, targets, [3, 2])
    assert renumbered.tolist() == [1, 0]
    torch.testing.assert_close(few, torch.tensor([[0.3, 0.5], [0.6, 0.4]]))
    assert top_k_accuracy(scores, targets, 1) == pytest.approx(2 / 3)
    assert top_k_accuracy(few, renumbered, 1) == 1  # the rival of the first row is no candidate any more


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: effective_robustness(87.5, 40), DataError, "Got 87.5: is it in percent"),
        (lambda: fit_trend([0.5], [0.5, 0.6]), ShapeError, "Got 1 in distribution and 2"),
        (lambda: fit_trend([0.5, 0.5], [0.5, 0.6]), DataError, "two different"),
        (lambda: natural_shift({"imagenet-a": 0.5}, {"imagenet-a": 0.5}), DataError, "Got imagenet-a"),
        (lambda: pm_k_accuracy(torch.ones(2), torch.zeros(2), torch.zeros(3), 0), ShapeError, r"offset \[3\]"),
        (
            lambda: pm_k_accuracy(torch.ones(2), torch.tensor([0, 1]), torch.tensor([0, 1]), 0),
            DataError,
            "one frame with offset 0",
        ),
        (
            lambda: pm_k_accuracy(torch.ones(0), torch.zeros(0).long(), torch.zeros(0), 0),
            DataError,
            "one frame with offset 0",
        ),
        (lambda: class_subset(torch.ones(2, 3), torch.ones(3), [0]), ShapeError, r"\[2, 3\] and targets \[3\]"),
        (lambda: class_subset(torch.ones(2, 3), torch.ones(2), [0, 0]), DataError, r"Got \[0, 0\]"),
        (lambda: class_subset(torch.ones(2, 3), torch.ones(2), [0, 2]), DataError, "None of 2 does"),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
