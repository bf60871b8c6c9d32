"""measures/deny_scores.py: scores against a deny list, and a threshold for them."""

import numpy as np
import pytest

from diptych.errors import ConfigError, DataError
from diptych.measures.deny_scores import deny_scores, deny_threshold

DENIED = np.array([0.9, 0.6, 0.5, 0.2])
KEPT = np.array([0.7, 0.5, 0.4, 0.3, 0.1])


def test_a_score_is_that_of_the_nearest_concept():
    scores, which = deny_scores(np.array([[1.0, 0], [0.6, 0.8]]), np.eye(2))
    np.testing.assert_allclose(scores, [1.0, 0.8])
    assert which.tolist() == [0, 1]


@pytest.mark.parametrize(("max_false", "caught", "false"), [(0.0, 0.25, 0.0), (0.2, 0.5, 0.2), (0.4, 0.75, 0.4)])
def test_the_threshold_is_the_lowest_that_denies_few_enough(max_false, caught, false):
    chosen = deny_threshold(DENIED, KEPT, max_false=max_false)
    assert (chosen.caught, chosen.false) == (pytest.approx(caught), pytest.approx(false))
    lower = chosen.value - 1e-4
    assert (lower <= KEPT).mean() > max_false + 1e-6
    assert (chosen.denied, chosen.kept) == (4, 5)


def test_a_tie_is_kept():
    chosen = deny_threshold(np.array([0.5]), np.array([0.5, 0.5]), max_false=0.5)
    assert (chosen.caught, chosen.false) == (0, 0)


def test_too_few_examples_are_named():
    with pytest.raises(DataError, match=r"needs at least 100 examples to keep\. Got 5"):
        deny_threshold(DENIED, KEPT)
    with pytest.raises(DataError, match="Got 0 to deny and 5 to keep"):
        deny_threshold(np.empty(0), KEPT)
    with pytest.raises(ConfigError, match="max_false must be at least 0"):
        deny_threshold(DENIED, KEPT, max_false=1)
