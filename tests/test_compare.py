import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, strategies
from scipy import stats

from diptych.errors import DataError, ShapeError
from diptych.measures.compare import compare_correct, compare_metric, compare_shares, holm, mcnemar
from diptych.measures.metrics import bootstrap_interval

A = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1, 1, 1]).bool()
B = torch.tensor([1, 1, 0, 1, 1, 1, 1, 1, 1, 1]).bool()


def test_a_comparison_is_worked_by_hand():
    found = compare_correct(A, B)
    assert (found.n, found.a, found.b, found.only_a, found.only_b) == (10, 0.6, 0.9, 1, 4)
    assert found.difference == pytest.approx(0.3)
    assert found.p_value == pytest.approx(2 * (1 + 5) / 2**5)  # a coin falls 4 or 5 times of 5 on one side
    assert found.interval.low < 0.3 < found.interval.high
    assert found.to_dict()["interval"]["level"] == 0.95


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 3), (0, 1), (0, 6), (4, 11), (420, 500), (9000, 9300)])
def test_mcnemar_is_a_fair_coin(only_a: int, only_b: int):
    twin = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1
    assert mcnemar(only_a, only_b) == pytest.approx(twin, rel=1e-9)


def test_mcnemar_counts_every_way_of_few_coins():
    ways = [math.comb(9, heads) for heads in range(10)]
    assert mcnemar(2, 7) == pytest.approx(2 * sum(ways[7:]) / 2**9)


def test_the_paired_interval_is_narrower_than_that_of_two_separate_ones():
    rng = np.random.default_rng(0)
    a = torch.tensor(rng.random(1000) < 0.7)
    b = a ^ torch.tensor(rng.random(1000) < 0.04)  # nearly the same model
    paired = compare_correct(a, b).interval
    alone = [bootstrap_interval(rows, seed=0) for rows in (a, b)]
    assert paired.high - paired.low < 0.4 * math.hypot(*(one.high - one.low for one in alone))


@hypothesis.settings(max_examples=30, deadline=None)
@given(strategies.lists(strategies.tuples(strategies.booleans(), strategies.booleans()), min_size=1, max_size=30))
def test_models_may_change_places(rows: list[tuple[bool, bool]]):
    a, b = torch.tensor(rows).unbind(dim=1)
    found, turned = compare_correct(a, b), compare_correct(b, a)
    assert found.difference == pytest.approx(-turned.difference)
    assert found.difference == pytest.approx(found.b - found.a)
    assert found.p_value == turned.p_value
    assert 0 < found.p_value <= 1
    assert compare_correct(a, a).p_value == 1


def test_holm_is_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@hypothesis.settings(max_examples=30, deadline=None)
@given(strategies.lists(strategies.floats(0, 1), min_size=1, max_size=8))
def test_a_corrected_p_value_lies_between_the_plain_one_and_bonferroni(p_values: list[float]):
    for plain, corrected in zip(p_values, holm(p_values), strict=True):
        assert plain <= corrected <= min(1, len(p_values) * max(plain, max(q for q in p_values if q <= plain)))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: compare_correct(torch.ones(2), torch.ones(3)), ShapeError, r"a \[2\] and of b \[3\]"),
        (lambda: compare_correct(torch.ones(0), torch.ones(0)), DataError, "at least one row"),
        (lambda: mcnemar(-1, 2), DataError, "Got -1 and 2"),
        (lambda: holm([0.5, 1.5]), DataError, "between 0 and 1"),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_a_metric_is_compared_on_draws_that_both_models_share():
    a, b = A.double(), B.double()
    found = compare_metric(lambda rows: a[rows].mean().item(), lambda rows: b[rows].mean().item(), 10, samples=4000)
    twin = bootstrap_interval(b - a, seed=0)
    assert (found.a, found.b, found.difference) == pytest.approx((0.6, 0.9, 0.3))
    assert (found.interval.low, found.interval.high) == pytest.approx((twin.low, twin.high), abs=0.101)
    # The difference of a draw is 0 or below with the chance that as many rows of +1 as of -1 are drawn, or fewer.
    rng = np.random.default_rng(1)
    chance = ((b - a).numpy()[rng.integers(10, size=(20_000, 10))].sum(axis=1) <= 0).mean()
    assert found.p_value == pytest.approx(2 * chance, abs=0.03)
    assert (found.test, found.only_a) == ("paired bootstrap", None)


def test_rows_of_one_group_are_drawn_together():
    seen: list[list[int]] = []
    group = torch.tensor([5, 7, 5, 7, 9])

    def metric(rows: np.ndarray) -> float:
        seen.append(sorted(rows.tolist()))
        return float(len(rows))

    compare_metric(metric, metric, 5, group=group, samples=20)
    for rows in seen:
        assert rows.count(0) == rows.count(2)
        assert rows.count(1) == rows.count(3)
    assert {len(rows) for rows in seen} > {5}  # three groups of two, two and one


def test_models_that_never_differ_are_not_told_apart_and_undefined_draws_passed_over():
    found = compare_metric(lambda rows: 1.0, lambda rows: 1.0, 3)
    assert (found.p_value, found.interval.low, found.interval.high) == (1, 0, 0)

    def undefined(rows: np.ndarray) -> float:
        raise DataError("no positive")

    with pytest.raises(DataError, match="There are too few"):
        compare_metric(undefined, undefined, 3)
    with pytest.raises(ShapeError, match=r"group \[2\] must hold a number for each of the 3 rows"):
        compare_metric(lambda rows: 1.0, lambda rows: 1.0, 3, group=torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "table", [(3, 4, 1, 4), (0, 1, 1, 1), (12, 300, 40, 280), (0, 50, 0, 70), (999, 1000, 970, 1000)]
)
def test_shares_of_two_groups_have_fishers_p_value(table):
    successes_a, n_a, successes_b, n_b = table
    expected = stats.fisher_exact([[successes_a, n_a - successes_a], [successes_b, n_b - successes_b]])[1]
    assert compare_shares(*table).p_value == pytest.approx(expected, rel=1e-9)


def test_shares_of_two_groups_have_newcombes_interval():
    compared = compare_shares(48, 80, 56, 70)  # Newcombe 1998, table II, row (a), as B less A
    assert compared.difference == pytest.approx(0.2)
    assert (round(compared.interval.low, 4), round(compared.interval.high, 4)) == (0.0524, 0.3339)


def test_an_empty_group_is_refused():
    with pytest.raises(DataError, match="0 of 0"):
        compare_shares(0, 0, 1, 2)
