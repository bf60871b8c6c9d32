import math

import numpy as np
import pytest
import torch

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.eval.metrics import (
    Interval,
    bootstrap_interval,
    mean_per_class,
    recall_at_k,
    top_k_accuracy,
    top_k_correct,
)

NAN = math.nan


def test_a_tie_and_a_nan_count_against_us():
    scores = torch.tensor(
        [
            [0.9, 0.5, 0.1],  # target alone in front: correct at 1
            [0.5, 0.5, 0.1],  # ties with one class: correct at 2
            [0.5, 0.5, 0.5],  # ties with all: correct at 3
            [0.5, NAN, 0.1],  # a NaN goes before it: correct at 2
            [NAN, 0.5, 0.1],  # the target is NaN: last, correct at 3
            [0.1, 0.9, 0.5],  # simply last: correct at 3
        ]
    )
    targets = torch.zeros(6, dtype=torch.int64)
    assert [top_k_correct(scores, targets, k).tolist() for k in (1, 2, 3)] == [
        [True, False, False, False, False, False],
        [True, True, False, True, False, False],
        [True] * 6,
    ]
    assert [top_k_accuracy(scores, targets, k) for k in (1, 2, 3)] == pytest.approx([1 / 6, 3 / 6, 1])


def test_top_k_equals_a_sort_where_nothing_ties():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(200, 30)), rng.integers(30, size=200)
    for k in (1, 5, 30):
        twin = np.mean([target in np.argsort(-row)[:k] for row, target in zip(scores, targets, strict=True)])
        assert top_k_accuracy(scores, targets, k) == pytest.approx(twin)


def test_read_only_arrays_are_taken():
    scores, targets = np.eye(3), np.arange(3)
    scores.flags.writeable = targets.flags.writeable = False
    assert top_k_accuracy(scores, targets, 1) == 1


def test_mean_per_class_weighs_classes_and_not_rows():
    targets = torch.tensor([0, 0, 0, 0, 2, 2])  # class 1 has no row, and no say
    correct = torch.tensor([1, 1, 1, 1, 0, 1]).bool()
    assert mean_per_class(correct, targets) == pytest.approx((4 / 4 + 1 / 2) / 2)  # not 5 / 6, not 1.5 / 3


def test_recall_counts_a_query_once_and_a_tie_against_us():
    scores = torch.tensor(
        [
            [0.9, 0.8, 0.1],  # match first: found at k=1
            [0.5, 0.5, 0.1],  # match ties with a wrong item: found at k=2
            [0.9, 0.8, 0.1],  # match last: found at k=3
            [0.9, 0.8, 0.1],  # two matches in front: found at k=1, and counted once
            [NAN, 0.8, 0.1],  # a wrong item scores NaN: found at k=2
        ]
    )
    is_match = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 1, 0]]).bool()
    assert [recall_at_k(scores, is_match, k) for k in (1, 2, 3)] == pytest.approx([2 / 5, 4 / 5, 1])


def test_a_constant_scorer_finds_nothing():
    assert recall_at_k(torch.zeros(4, 9), torch.eye(4, 9).bool(), 8) == 0
    assert top_k_accuracy(torch.zeros(4, 9), torch.arange(4), 8) == 0


def test_interval_of_shares_is_that_of_the_binomial():
    # Binomial(100, 0.8), summed term by term: P(<= 71) = 0.0200, P(<= 72) = 0.0342, P(<= 86) = 0.9531, P(<= 87) =
    # 0.9747. So its 3% and 97% quantiles are 72 and 87.
    interval = bootstrap_interval(torch.tensor([True] * 80 + [False] * 20), seed=0, level=0.94, samples=100_000)
    assert (interval.low, interval.high, interval.level) == (0.72, 0.87, 0.94)


def test_shares_drawn_from_the_binomial_equal_resampled_rows():
    values = np.array([1.0] * 30 + [0.0] * 10)
    rng = np.random.default_rng(1)
    plain = [rng.choice(values, size=len(values)).mean() for _ in range(20_000)]
    interval = bootstrap_interval(values, seed=0, samples=20_000, level=0.8)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(plain, [0.1, 0.9]), abs=1e-9)


def test_interval_of_general_values_is_near_the_normal_one():
    values = np.random.default_rng(0).normal(5, 2, size=2_000)  # 10,000 x 2,000 draws: several chunks
    interval = bootstrap_interval(values, seed=0)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean() - half, abs=half / 20)
    assert interval.high == pytest.approx(values.mean() + half, abs=half / 20)


def test_interval_is_a_function_of_its_seed():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_interval_of_what_never_varies_is_a_point():
    assert bootstrap_interval(np.ones(5, dtype=bool), seed=0, level=0.9) == Interval(1, 1, 0.9)
    assert bootstrap_interval(np.full(5, 0.25), seed=0) == Interval(0.25, 0.25, 0.95)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: top_k_correct(torch.zeros(3, 4), torch.zeros(2), 1), ShapeError, r"scores \[3, 4\] and targets \[2\]"),
        (lambda: top_k_correct(torch.zeros(3), torch.zeros(3), 1), ShapeError, r"must be \[N, C\] and \[N\]"),
        (lambda: top_k_correct(torch.zeros(3, 4), torch.zeros(3), 5), ShapeError, "number of classes, 4. Got 5"),
        (lambda: top_k_correct(torch.zeros(3, 4), torch.zeros(3), 0), ShapeError, "number of classes, 4. Got 0"),
        (lambda: top_k_correct(torch.zeros(2, 4), torch.tensor([0, 4]), 1), DataError, "from 0 to 3.* Got 0 to 4"),
        (lambda: top_k_correct(torch.zeros(2, 4), torch.tensor([-1, 0]), 1), DataError, "Got -1 to 0"),
        (lambda: top_k_correct(torch.zeros(0, 4), torch.zeros(0), 1), DataError, "at least one row"),
        (lambda: mean_per_class(torch.ones(3), torch.zeros(2)), ShapeError, r"correct \[3\] and targets \[2\]"),
        (lambda: mean_per_class(torch.ones(0), torch.zeros(0)), DataError, "at least one row"),
        (lambda: recall_at_k(torch.zeros(2, 3), torch.ones(3, 2), 1), ShapeError, r"\[2, 3\] and is_match \[3, 2\]"),
        (lambda: recall_at_k(torch.zeros(2, 3), torch.ones(2, 3), 4), ShapeError, "number of items, 3. Got 4"),
        (
            lambda: recall_at_k(torch.zeros(2, 3), torch.tensor([[1, 0, 0], [0, 0, 0]]), 1),
            DataError,
            "1 of 2 have none",
        ),
        (lambda: bootstrap_interval(torch.ones(2, 2), seed=0), ShapeError, r"\[2, 2\] must be \[N\]"),
        (lambda: bootstrap_interval(torch.ones(0), seed=0), DataError, "at least one row"),
        (lambda: bootstrap_interval(torch.tensor([1, NAN]), seed=0), DataError, "1 are not"),
        (lambda: bootstrap_interval(torch.ones(2), seed=0, level=95), ConfigError, "between 0 and 1. Got 95"),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
