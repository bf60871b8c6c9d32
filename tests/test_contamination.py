import numpy as np
import pytest
import scipy.stats
import torch

from diptych.errors import DataError, ShapeError
from diptych.measures.contamination import bonferroni, overlap_score
from diptych.torch_runtime import generator


def test_a_score_is_split_by_hand():
    correct = np.array([1, 1, 1, 0, 1, 0, 0, 0, 1, 0], bool)
    is_overlap = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    score = overlap_score(correct, is_overlap)
    assert (score.n, score.overlap, score.contamination) == (10, 4, 0.4)
    assert (score.all_, score.clean, score.overlapping) == (0.5, pytest.approx(1 / 3), 0.75)
    assert score.gain == pytest.approx(1 / 6)
    # 3 or 4 of 4 at a chance of 1/3: 4 * 1/27 * 2/3 + 1/81
    assert score.p_value == pytest.approx(9 / 81)


@pytest.mark.parametrize("seed", range(8))
def test_statistics_equal_those_of_scipy(seed: int):
    random = generator(seed)
    correct = (torch.rand(200, generator=random) < 0.7).numpy()
    is_overlap = (torch.rand(200, generator=random) < 0.1 * (1 + seed)).numpy()
    score = overlap_score(correct, is_overlap)
    assert score.clean is not None
    test = scipy.stats.binomtest(
        int(correct[is_overlap].sum()), int(is_overlap.sum()), correct[~is_overlap].mean(), alternative="greater"
    )
    assert score.p_value == pytest.approx(test.pvalue, rel=1e-9)
    exact = scipy.stats.binomtest(int(correct[is_overlap].sum()), int(is_overlap.sum()))
    interval = exact.proportion_ci(0.995, method="exact")
    assert score.interval
    assert (score.interval.low, score.interval.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert score.difference_interval
    assert score.difference_interval.low == pytest.approx(interval.low - score.clean, abs=1e-9)
    # The identity behind figure 17: the gain is the difference, thinned by the contamination.
    assert score.difference is not None
    assert score.gain == pytest.approx(score.contamination * score.difference, abs=1e-12)


def test_sets_without_overlap_and_without_clean_pictures_have_no_test():
    none = overlap_score(np.array([True, False]), np.array([False, False]))
    assert (none.overlapping, none.p_value, none.interval, none.gain, none.difference) == (None, None, None, 0.0, None)
    whole = overlap_score(np.array([True, False]), np.array([True, True]))
    assert (whole.clean, whole.p_value, whole.gain, whole.overlapping) == (None, None, 0.0, 0.5)
    assert whole.interval


def test_each_p_value_pays_for_all_that_were_tested():
    assert bonferroni([0.01, None, 0.5]) == [0.02, None, 1.0]


def test_what_is_no_score_is_refused():
    with pytest.raises(ShapeError, match=r"\(3,\) and \(2,\)"):
        overlap_score(np.zeros(3, bool), np.zeros(2, bool))
    with pytest.raises(DataError, match="must have a picture"):
        overlap_score(np.zeros(0, bool), np.zeros(0, bool))
