import itertools

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from diptych.errors import DataError, ShapeError
from diptych.measures.groups import chi_squared, gap_of_groups


@pytest.mark.parametrize("counts", [(10, 20, 5, 20), (3, 40, 30, 300), (0, 7, 4, 9), (99, 100, 1, 3)])
def test_chi_squared_equals_scipys(counts):
    a, n_a, b, n_b = counts
    twin = chi2_contingency([[a, n_a - a], [b, n_b - b]], correction=False)
    assert chi_squared(*counts) == pytest.approx((twin.statistic, twin.pvalue))


def test_chi_squared_by_hand():
    statistic, p = chi_squared(4, 10, 0, 10)  # 20 * 40^2 / (10 * 10 * 4 * 16)
    assert statistic == pytest.approx(5)
    assert p == pytest.approx(0.0253473)
    assert chi_squared(0, 5, 0, 5) == chi_squared(5, 5, 5, 5) == (0.0, 1.0)
    with pytest.raises(DataError, match=r"Got 6 of 5, 0 of 5"):
        chi_squared(6, 5, 0, 5)


def test_the_gap_is_of_the_best_and_the_worst_and_leaves_rows_of_no_group_out():
    happened = np.array([1, 1, 1, 0, 0, 0, 1, 0], dtype=bool)
    group = np.array([0, 0, 3, 3, 5, 5, -1, -1])  # 1, 1/2, 0; two of none
    assert gap_of_groups(happened, group).value == 1.0


def test_chance_is_that_of_all_orders():
    happened, group = np.array([1, 1, 0, 0, 0], dtype=bool), np.array([0, 0, 1, 1, 1])

    def gap(order) -> float:
        return abs(np.mean(order[:2]) - np.mean(order[2:]))

    gaps = [gap(order) for order in itertools.permutations(happened)]  # plain twin: all 120
    found = gap_of_groups(happened, group, draws=20_000)
    assert found.value == 1.0
    assert found.by_chance == pytest.approx(np.mean(gaps), abs=0.01)
    assert found.p_value == pytest.approx(np.mean(np.array(gaps) >= 1.0), abs=0.01)


def test_groups_that_differ_are_told_from_those_that_do_not():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 300)
    alike = gap_of_groups(rng.random(900) < 0.5, group)
    apart = gap_of_groups(rng.random(900) < np.array([0.5, 0.5, 0.3])[group], group)
    assert alike.p_value > 0.05 > apart.p_value
    assert apart.interval.low > alike.by_chance
    assert apart.interval.low <= apart.value <= apart.interval.high


def test_a_gap_needs_two_groups_and_a_group_for_each_row():
    with pytest.raises(DataError, match=r"two groups at least. Got 1"):
        gap_of_groups(np.array([True, False]), np.array([0, 0]))
    with pytest.raises(ShapeError, match=r"Rows \[2\] and groups \[3\]"):
        gap_of_groups(np.array([True, False]), np.array([0, 0, 1]))
