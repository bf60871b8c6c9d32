import math

import hypothesis
import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, strategies
from hypothesis.extra import numpy as arrays
from torch import Tensor

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.metrics import (
    Interval,
    accuracy_by_fold,
    average_precision,
    average_precision_11_point,
    best_match_rank,
    bootstrap_interval,
    bootstrap_of,
    mean_of_top1_and_top5,
    mean_per_class,
    recall_at_k,
    roc_auc,
    top_k_accuracy,
    top_k_correct,
)

NAN = math.nan

quick = hypothesis.settings(max_examples=40, deadline=None)


@strategies.composite
def scored(draw: strategies.DrawFn) -> tuple[Tensor, Tensor]:
    """Scores [N, C] of few different values, so that many tie, and targets [N]."""
    rows, classes = draw(strategies.integers(1, 12)), draw(strategies.integers(5, 8))
    scores = draw(arrays.arrays(np.float64, (rows, classes), elements=strategies.integers(-3, 3)))
    targets = draw(arrays.arrays(np.int64, rows, elements=strategies.integers(0, classes - 1)))
    return torch.tensor(scores), torch.tensor(targets)


@strategies.composite
def ranked(draw: strategies.DrawFn) -> tuple[Tensor, Tensor]:
    """Different scores [N] and targets [N] bool, of both kinds."""
    rows = draw(strategies.integers(2, 20))
    scores = draw(strategies.permutations(range(rows)))
    positives = draw(strategies.sets(strategies.integers(0, rows - 1), min_size=1, max_size=rows - 1))
    return torch.tensor(scores, dtype=torch.float64), torch.tensor([row in positives for row in range(rows)])


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


def test_mean_of_top1_and_top5_is_worked_by_hand():
    scores = torch.tensor([[6, 5, 4, 3, 2, 1], [1, 6, 5, 4, 3, 2], [2, 6, 5, 4, 3, 1]])
    assert mean_of_top1_and_top5(scores, torch.zeros(3)) == pytest.approx((1 / 3 + 2 / 3) / 2)  # first, sixth, fifth


def test_folds_weigh_alike_whatever_their_size():
    correct = torch.tensor([1, 1, 1, 0, 0, 1]).bool()
    folds = accuracy_by_fold(correct, torch.tensor([0, 0, 0, 0, 1, 1]))
    assert folds.by_fold == (0.75, 0.5)
    assert folds.mean == 0.625  # not 4 / 6


RANKING = torch.tensor([[0.9], [0.8], [0.7], [0.6], [0.5]])
SHOWN = torch.tensor([[1], [0], [1], [0], [1]]).bool()  # precision at the three positives: 1, 2 / 3, 3 / 5


def test_average_precision_is_worked_by_hand():
    assert average_precision(RANKING, SHOWN) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # Recall 0, .1, .2, .3 are reached with the first positive, .4 to .6 with the second, .7 to 1 with the third.
    assert average_precision_11_point(RANKING, SHOWN) == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11)


def test_eleven_points_take_the_best_precision_from_there_on():
    shown = torch.tensor([[0], [1], [1], [1], [0]]).bool()  # precision 1/2, 2/3, 3/4: from everywhere on 3/4
    assert average_precision_11_point(RANKING, shown) == pytest.approx(3 / 4)
    assert average_precision(RANKING, shown) == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


def test_eleven_points_reach_a_tenth_exactly():
    # Ten positives, a negative behind the third: recall 0.3 is reached before it, although 0.3 * 10 > 3 in floats.
    shown = torch.tensor([True] * 3 + [False] + [True] * 7)[:, None]
    scores = torch.arange(11, 0, -1.0)[:, None]
    assert average_precision_11_point(scores, shown) == pytest.approx((4 * 1 + 7 * 10 / 11) / 11)


def test_average_precision_counts_ties_and_nan_against_us():
    shown = torch.tensor([[1], [0], [0]]).bool()
    for scores in ([0.5, 0.5, 0.1], [0.5, NAN, 0.1]):
        assert average_precision(torch.tensor(scores)[:, None], shown) == 1 / 2
    assert average_precision(torch.tensor([NAN, 0.5, 0.1])[:, None], shown) == 1 / 3
    assert average_precision(torch.zeros(3, 1), shown) == pytest.approx(1 / 3)
    assert average_precision_11_point(torch.zeros(3, 1), shown) == pytest.approx(1 / 3)


def test_a_class_without_a_positive_has_no_say_and_what_is_not_counted_no_place():
    scores, shown = torch.cat([RANKING, RANKING], dim=1), torch.cat([SHOWN, torch.zeros_like(SHOWN)], dim=1)
    assert average_precision(scores, shown) == average_precision(RANKING, SHOWN)
    counted = torch.tensor([[1], [0], [1], [1], [1]]).bool()  # the first negative is too difficult
    assert average_precision(RANKING, SHOWN, counted=counted) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_average_precision_equals_scikit_learn_where_nothing_ties():
    rng = np.random.default_rng(0)
    scores, shown = rng.normal(size=(300, 4)), rng.random((300, 4)) < 0.2
    twin = sklearn.metrics.average_precision_score(shown, scores, average="macro")
    assert average_precision(scores, shown) == pytest.approx(twin)


def test_auc_is_worked_by_hand_with_ties_and_nan_against_us():
    shown = torch.tensor([1, 1, 0, 0])
    assert roc_auc(torch.tensor([0.9, 0.4, 0.6, 0.1]), shown) == 3 / 4
    assert roc_auc(torch.tensor([0.9, 0.6, 0.6, 0.1]), shown) == 3 / 4  # the usual AUC has 7 / 8
    assert roc_auc(torch.tensor([0.9, 0.4, NAN, 0.1]), shown) == 2 / 4
    assert roc_auc(torch.tensor([NAN, 0.4, 0.6, 0.1]), shown) == 1 / 4
    assert roc_auc(torch.zeros(4), shown) == 0


def test_auc_equals_scikit_learn_where_nothing_ties():
    rng = np.random.default_rng(0)
    scores, shown = rng.normal(size=500), rng.random(500) < 0.3
    assert roc_auc(scores, shown) == pytest.approx(sklearn.metrics.roc_auc_score(shown, scores))


def test_a_match_that_scores_nan_does_not_hide_a_better_one():
    is_match = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    assert best_match_rank(torch.tensor([[NAN, 0.9, 0.1], [NAN, 0.9, 0.1]]), is_match).tolist() == [1, 3]


def test_rows_of_a_group_are_drawn_together():
    values = np.random.default_rng(0).random(200) < 0.5
    alone = bootstrap_interval(values, seed=0)
    doubled = np.repeat(values, 4)  # the same information, four times
    together = bootstrap_interval(doubled, seed=0, group=np.repeat(np.arange(200), 4))
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.05)
    as_if_independent = bootstrap_interval(doubled, seed=0)
    assert as_if_independent.high - as_if_independent.low < 0.6 * (together.high - together.low)
    assert bootstrap_interval([1.0, 0.0], seed=0, group=[5, 5]) == Interval(0.5, 0.5, 0.95)


@quick
@given(scored())
def test_more_candidates_never_find_less(case: tuple[Tensor, Tensor]):
    shares = [top_k_accuracy(*case, k) for k in range(1, case[0].shape[1] + 1)]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@quick
@given(scored())
def test_a_rising_map_of_the_scores_changes_nothing(case: tuple[Tensor, Tensor]):
    scores, targets = case
    shown = torch.nn.functional.one_hot(targets, scores.shape[1]).bool()
    for metric, truth in ((mean_of_top1_and_top5, targets), (average_precision, shown)):
        assert metric(scores.exp(), truth) == metric(scores, truth)


@quick
@given(scored(), strategies.randoms(use_true_random=False))
def test_rows_may_come_in_any_order(case: tuple[Tensor, Tensor], random):
    scores, targets = case
    order = random.sample(range(len(scores)), len(scores))
    correct = top_k_correct(scores, targets, 1)
    assert top_k_correct(scores[order], targets[order], 1).tolist() == correct[order].tolist()
    assert mean_per_class(correct[order], targets[order]) == pytest.approx(mean_per_class(correct, targets))
    shown = torch.nn.functional.one_hot(targets, scores.shape[1])
    assert average_precision_11_point(scores[order], shown[order]) == average_precision_11_point(scores, shown)


@quick
@given(scored(), strategies.randoms(use_true_random=False))
def test_classes_may_come_in_any_order(case: tuple[Tensor, Tensor], random):
    scores, targets = case
    order = torch.tensor(random.sample(range(scores.shape[1]), scores.shape[1]))
    assert mean_of_top1_and_top5(scores[:, order], order.argsort()[targets]) == mean_of_top1_and_top5(scores, targets)


@quick
@given(scored(), strategies.data())
def test_a_nan_never_helps(case: tuple[Tensor, Tensor], data: strategies.DataObject):
    scores, targets = case
    broken = scores.masked_fill(torch.tensor(data.draw(arrays.arrays(bool, scores.shape))), NAN)
    assert mean_of_top1_and_top5(broken, targets) <= mean_of_top1_and_top5(scores, targets)


@quick
@given(scored())
def test_a_tie_is_worth_no_more_than_a_miss(case: tuple[Tensor, Tensor]):
    scores, targets = case
    hit = scores.gather(1, targets[:, None])
    pushed = torch.where(scores == hit, scores + 0.5, scores).scatter(1, targets[:, None], hit)  # ties become misses
    assert top_k_correct(pushed, targets, 1).tolist() == top_k_correct(scores, targets, 1).tolist()


@quick
@given(scored())
def test_top_1_is_at_most_top_5_and_kinetics_lies_between(case: tuple[Tensor, Tensor]):
    first, fifth = (top_k_accuracy(*case, k) for k in (1, 5))
    assert 0 <= first <= mean_of_top1_and_top5(*case) <= fifth <= 1


@quick
@given(scored(), strategies.integers(1, 4))
def test_rows_that_come_several_times_change_no_share(case: tuple[Tensor, Tensor], times: int):
    scores, targets = (column.repeat_interleave(times, dim=0) for column in case)
    plain, repeated = (top_k_correct(*rows, 1) for rows in (case, (scores, targets)))
    assert repeated.double().mean() == pytest.approx(plain.double().mean())
    assert mean_per_class(repeated, targets) == pytest.approx(mean_per_class(plain, case[1]))


@quick
@given(scored())
def test_mean_per_class_lies_between_the_worst_class_and_the_best(case: tuple[Tensor, Tensor]):
    correct, targets = top_k_correct(*case, 1), case[1]
    shares = [correct[targets == number].double().mean().item() for number in targets.unique()]
    assert min(shares) - 1e-12 <= mean_per_class(correct, targets) <= max(shares) + 1e-12


@quick
@given(scored())
def test_recall_rises_with_k_to_one_and_is_top_k_for_one_match(case: tuple[Tensor, Tensor]):
    scores, targets = case
    is_match = torch.nn.functional.one_hot(targets, scores.shape[1]).bool()
    shares = [recall_at_k(scores, is_match, k) for k in range(1, scores.shape[1] + 1)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert shares == [top_k_accuracy(scores, targets, k) for k in range(1, scores.shape[1] + 1)]


@quick
@given(scored(), strategies.data())
def test_a_further_match_never_puts_a_query_back(case: tuple[Tensor, Tensor], data: strategies.DataObject):
    scores, targets = case
    one = torch.nn.functional.one_hot(targets, scores.shape[1]).bool()
    more = one | torch.tensor(data.draw(arrays.arrays(bool, scores.shape)))
    assert (best_match_rank(scores, more) <= best_match_rank(scores, one)).all()


@quick
@given(strategies.lists(strategies.booleans(), min_size=1, max_size=40), strategies.integers(0, 5))
def test_an_interval_holds_what_was_measured_and_wider_ones_hold_narrower(correct: list[bool], seed: int):
    values = torch.tensor(correct)
    wide, narrow = (bootstrap_interval(values, seed=seed, level=level) for level in (0.99, 0.5))
    assert 0 <= wide.low <= narrow.low <= values.double().mean().item() <= narrow.high <= wide.high <= 1


@quick
@given(ranked())
def test_auc_of_the_opposite_is_the_rest(case: tuple[Tensor, Tensor]):
    scores, shown = case
    assert roc_auc(scores, shown) + roc_auc(-scores, shown) == pytest.approx(1)
    assert roc_auc(scores, shown) == pytest.approx(roc_auc(-scores, ~shown))


@quick
@given(ranked())
def test_eleven_points_lie_between_the_last_precision_and_one(case: tuple[Tensor, Tensor]):
    scores, shown = (column[:, None] for column in case)
    share = shown.double().mean().item()
    assert share - 1e-12 <= average_precision_11_point(scores, shown) <= 1
    perfect = shown.double()
    assert average_precision(perfect, shown) == average_precision_11_point(perfect, shown) == 1


@quick
@given(strategies.lists(strategies.booleans(), min_size=1, max_size=20), strategies.integers(1, 4))
def test_folds_of_one_size_have_the_mean_of_all(correct: list[bool], folds: int):
    rows = torch.tensor(correct).repeat(folds)
    fold = torch.arange(folds).repeat_interleave(len(correct))
    assert accuracy_by_fold(rows, fold).mean == pytest.approx(rows.double().mean().item())
    assert mean_per_class(rows, fold) == pytest.approx(accuracy_by_fold(rows, fold).mean)


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
        (lambda: mean_of_top1_and_top5(torch.zeros(2, 4), torch.zeros(2)), ShapeError, "number of classes, 4. Got 5"),
        (lambda: accuracy_by_fold(torch.ones(2), torch.tensor([0, 2])), DataError, "Fold 1 of 3 has none"),
        (lambda: average_precision(torch.zeros(2, 3), torch.ones(3, 2)), ShapeError, r"targets \[3, 2\] and counted"),
        (lambda: average_precision(torch.zeros(2, 3), torch.zeros(2, 3)), DataError, "at least one positive"),
        (lambda: roc_auc(torch.zeros(2), torch.ones(2)), DataError, "2 positive and 0 negative"),
        (lambda: roc_auc(torch.zeros(2), torch.tensor([0, 2])), DataError, "Got 0 to 2"),
        (lambda: bootstrap_interval(torch.ones(2), seed=0, group=torch.ones(3)), ShapeError, r"group \[3\]"),
        (lambda: bootstrap_interval(torch.ones(2, 2), seed=0), ShapeError, r"\[2, 2\] must be \[N\]"),
        (lambda: bootstrap_interval(torch.ones(0), seed=0), DataError, "at least one row"),
        (lambda: bootstrap_interval(torch.tensor([1, NAN]), seed=0), DataError, "1 are not"),
        (lambda: bootstrap_interval(torch.ones(2), seed=0, level=95), ConfigError, "between 0 and 1. Got 95"),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_the_bootstrap_of_any_number_covers_what_that_of_a_mean_does():
    correct = torch.arange(200) % 4 != 0
    mean = bootstrap_interval(correct, seed=0)
    any_ = bootstrap_of(lambda rows: correct[rows].double().mean().item(), 200, seed=0)
    assert (any_.low, any_.high) == pytest.approx((mean.low, mean.high), abs=0.012)


def test_draws_without_a_number_are_passed_over():
    targets = torch.tensor([1, 0, 0, 0])  # a third of the draws has no positive
    scores = torch.tensor([4.0, 1, 2, 3])
    assert bootstrap_of(lambda rows: roc_auc(scores[rows], targets[rows]), 4, seed=0).low == 1
    with pytest.raises(DataError, match="too few"):
        bootstrap_of(lambda rows: roc_auc(scores[rows], 0 * targets[rows]), 4, seed=0)
