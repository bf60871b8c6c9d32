import math

import hypothesis
import pytest
import torch
from hypothesis import given, strategies
from scipy import stats

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.calibration import (
    RejectThreshold,
    accuracy_with_rejection,
    choose_threshold,
    fit_temperature,
    reliability,
    sureness_against_accuracy,
)


def test_the_expected_error_is_worked_by_hand():
    # Two bins. Lower: sure 0.5, right. Upper: sure 0.8, 0.9, 0.7, of which one is right.
    found = reliability(torch.tensor([0.5, 0.8, 0.9, 0.7]), torch.tensor([1, 1, 0, 0]).bool(), bins=2)
    low, high = found.bins
    assert (low.rows, low.confidence, low.accuracy) == (1, 0.5, 1)  # 0.5 is an edge: the lower bin
    assert (high.rows, high.confidence, high.accuracy) == (3, pytest.approx(0.8), pytest.approx(1 / 3))
    assert found.expected_error == pytest.approx((1 * 0.5 + 3 * (0.8 - 1 / 3)) / 4)
    assert found.largest_error == pytest.approx(0.5)
    assert (found.confidence, found.accuracy) == pytest.approx((2.9 / 4, 0.5))


def test_a_model_that_is_as_sure_as_right_has_no_error_and_an_empty_bin_no_say():
    found = reliability(torch.full((4,), 0.75), torch.tensor([1, 1, 1, 0]).bool())
    assert found.expected_error == found.largest_error == pytest.approx(0)
    assert sum(some.rows for some in found.bins) == 4
    assert len(found.bins) == 15


@hypothesis.settings(max_examples=40, deadline=None)
@given(strategies.lists(strategies.tuples(strategies.floats(0, 1), strategies.booleans()), min_size=1, max_size=30))
def test_the_error_lies_between_that_of_the_whole_and_that_of_the_worst_bin(rows: list[tuple[float, bool]]):
    sure, right = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
    found = reliability(sure, right)
    assert abs(found.confidence - found.accuracy) - 1e-9 <= found.expected_error <= found.largest_error + 1e-9
    whole = reliability(sure, right, bins=1)
    assert whole.expected_error == pytest.approx(abs(found.confidence - found.accuracy))


def plain_loss(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> float:
    return torch.nn.functional.cross_entropy(logits.double() / temperature, targets).item()


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_the_temperature_is_where_the_loss_is_least(scale: float):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 6, generator=generator)
    targets = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator)[:, 0]
    found = fit_temperature(scale * logits, targets)
    assert found == pytest.approx(scale, rel=0.15)  # the targets were drawn at temperature 1
    at_best = plain_loss(scale * logits, targets, found)
    assert all(plain_loss(scale * logits, targets, found * factor) > at_best for factor in (0.98, 1.02))


def test_a_temperature_of_two_rows_is_worked_by_hand():
    # Right with logit 1 above the other three times of four: softmax must give 3 / 4, so 1 / T = log 3.
    logits = torch.tensor([[1.0, 0.0]] * 4)
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(1 / math.log(3))


@hypothesis.settings(max_examples=25, deadline=None)
@given(strategies.integers(0, 1000), strategies.floats(0.1, 10))
def test_the_temperature_scales_with_the_logits(seed: int, factor: float):
    generator = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(30, 4, generator=generator), torch.randint(4, (30,), generator=generator)
    plain = fit_temperature(logits, targets)
    hypothesis.assume(1e-2 < plain < 1e2)  # else it lies at the end of the range
    assert fit_temperature(factor * logits, targets) == pytest.approx(factor * plain, rel=1e-4)


def test_what_is_always_right_has_a_temperature_that_leaves_nothing_to_gain():
    logits, targets = 100 * torch.eye(3), torch.arange(3)
    assert plain_loss(logits, targets, fit_temperature(logits, targets)) == 0


def test_the_threshold_is_worked_by_hand():
    scores = torch.tensor([0.9, 0.8, 0.6, 0.4, 0.7, 0.5, 0.2, 0.1])
    inside = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).bool()
    found = choose_threshold(scores, inside)
    # Above 0.7: 2/4 kept, 4/4 rejected. Between 0.5 and 0.6: 3/4 and 3/4. Between 0.2 and 0.4: 4/4 and 2/4. All 0.75.
    assert (found.value, found.kept_inside, found.rejected_outside) == (pytest.approx(0.75), 0.5, 1)
    assert found.balanced_accuracy == 0.75
    assert found.auc == 13 / 16
    assert found.accepts(torch.tensor([0.74, 0.76, math.nan])).tolist() == [False, True, False]


@hypothesis.settings(max_examples=40, deadline=None)
@given(strategies.lists(strategies.tuples(strategies.integers(0, 6), strategies.booleans()), min_size=2, max_size=15))
def test_no_threshold_is_better_than_the_chosen_one(rows: list[tuple[int, bool]]):
    scores, inside = torch.tensor([row[0] for row in rows]).float(), torch.tensor([row[1] for row in rows])
    hypothesis.assume(inside.any() and not inside.all())

    def balanced(value: float) -> float:
        kept = (scores >= value) == inside
        return (kept[inside].double().mean() + kept[~inside].double().mean()).item() / 2

    found = choose_threshold(scores, inside)
    assert found.balanced_accuracy == pytest.approx(balanced(found.value))
    assert found.balanced_accuracy == pytest.approx(max(balanced(value / 2) for value in range(-1, 14)))


def test_nan_is_rejected_and_spoils_no_threshold():
    scores = torch.tensor([0.9, math.nan, 0.1, math.nan])
    found = choose_threshold(scores, torch.tensor([1, 1, 0, 0]).bool())
    assert (found.value, found.kept_inside, found.rejected_outside) == (pytest.approx(0.5), 0.5, 1)


def test_none_of_these_is_an_answer_of_its_own():
    threshold = RejectThreshold(0.5, 1, 1, 1)
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.4, 0.1], [0.6, 0.1], [0.2, 0.3]])
    targets = torch.tensor([0, 0, 0, -1, -1])  # right, wrong class, rejected in error, answered in error, rejected
    assert accuracy_with_rejection(scores, targets, threshold) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: reliability(torch.ones(2), torch.ones(3)), ShapeError, r"\[2\] and correct \[3\]"),
        (lambda: reliability(torch.ones(0), torch.ones(0)), DataError, "at least one row"),
        (lambda: reliability(torch.ones(2) * 5, torch.ones(2)), DataError, "Are these logits"),
        (lambda: reliability(torch.tensor([0.5, math.nan]), torch.ones(2)), DataError, "between 0 and 1"),
        (lambda: reliability(torch.ones(2), torch.ones(2), bins=0), ConfigError, "Got 0"),
        (lambda: fit_temperature(torch.ones(2, 3), torch.ones(3)), ShapeError, r"\[2, 3\] and targets \[3\]"),
        (lambda: fit_temperature(torch.full((2, 3), math.inf), torch.ones(2)), DataError, "finite logits"),
        (lambda: choose_threshold(torch.ones(2), torch.ones(2)), DataError, "2 positive and 0 negative"),
        (
            lambda: choose_threshold(torch.tensor([1, math.nan]), torch.tensor([1, 0])),
            DataError,
            "of one kind are all NaN",
        ),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_sureness_is_held_against_accuracy_coin_by_coin():
    found = sureness_against_accuracy(torch.tensor([0.5, 0.5]), torch.tensor([True, True]))
    assert found.p_value == pytest.approx(0.5)  # two heads, or two tails
    assert (found.a, found.b) == (0.5, 1.0)
    uneven = sureness_against_accuracy(torch.tensor([0.9, 0.8]), torch.tensor([False, False]))
    assert uneven.p_value == pytest.approx(0.1 * 0.2)


def test_equal_sureness_is_the_binomial_test():
    correct = torch.arange(40) < 22
    found = sureness_against_accuracy(torch.full((40,), 0.75, dtype=torch.float64), correct)
    assert found.p_value == pytest.approx(stats.binomtest(22, 40, 0.75).pvalue, rel=1e-9)
