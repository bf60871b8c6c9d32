import pytest
from scipy import stats

from diptych.errors import DataError
from diptych.measures.binomial import binomial_at_least


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


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: binomial_at_least(3, 2, 0.5), DataError, "Got 3 of 2"),
        (lambda: binomial_at_least(0, 0, 0.5), DataError, "Got 0 of 0"),
        (lambda: binomial_at_least(1, 2, 1.5), DataError, "between 0 and 1. Got 1.5"),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
