import hypothesis
import pytest
from hypothesis import given, strategies
from scipy import stats

from diptych.errors import ConfigError, DataError
from diptych.measures.binomial import binomial_at_least, clopper_pearson

quick = hypothesis.settings(max_examples=40, deadline=None)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (1, 1), (763, 1000), (38_100, 50_000)])
def test_clopper_pearson_is_that_of_the_beta_distribution(successes: int, trials: int):
    interval = clopper_pearson(successes, trials, level=0.995)
    low = stats.beta.ppf(0.0025, successes, trials - successes + 1) if successes else 0
    high = stats.beta.ppf(0.9975, successes + 1, trials - successes) if successes < trials else 1
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_a_binomial_tail_is_its_sum():
    for successes, trials, chance in (
        (0, 5, 0.3),
        (3, 5, 0.3),
        (5, 5, 0.3),
        (900, 1700, 0.5),
        (1, 5, 0.0),
        (5, 5, 1.0),
    ):
        twin = stats.binom.sf(successes - 1, trials, chance)
        assert binomial_at_least(successes, trials, chance) == pytest.approx(twin, rel=1e-9)


@quick
@given(strategies.integers(1, 300).flatmap(lambda n: strategies.tuples(strategies.integers(0, n), strategies.just(n))))
def test_an_exact_interval_holds_the_share_and_grows_with_its_level(case: tuple[int, int]):
    narrow, wide = (clopper_pearson(*case, level=level) for level in (0.9, 0.99))
    assert 0 <= wide.low <= narrow.low <= case[0] / case[1] <= narrow.high <= wide.high <= 1
    mirrored = clopper_pearson(case[1] - case[0], case[1], level=0.9)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((narrow.low, narrow.high))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: binomial_at_least(3, 2, 0.5), DataError, "Got 3 of 2"),
        (lambda: binomial_at_least(1, 2, 1.5), DataError, "between 0 and 1. Got 1.5"),
        (lambda: clopper_pearson(0, 0), DataError, "Got 0 of 0"),
        (lambda: clopper_pearson(1, 2, level=1), ConfigError, "between 0 and 1. Got 1"),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
