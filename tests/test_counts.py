import pytest

from diptych.errors import DataError
from diptych.train.counts import RunCounts
from diptych.train.laps import Laps


def test_counts_of_all_processes_add_up_and_go_on_after_a_restart():
    counts = RunCounts({}, Laps())
    counts.add([(5, 1, {"truncated": 1}), (3, 0, {})], max_bad=0.5)
    again = RunCounts(counts.plain(), Laps())
    again.add([(4, 2, {"truncated": 1, "not an image": 2})], max_bad=0.5)
    assert again.plain() == {
        "pairs": 12, "truncated": 3, "train_seconds": 0.0, "bad": {"truncated": 2, "not an image": 2}, "time": {}
    }  # fmt: skip


def test_the_share_of_bad_samples_is_that_of_a_thousand_at_least():
    counts = RunCounts({}, Laps())
    counts.add([(20, 0, {"truncated": 10})], max_bad=0.01)
    with pytest.raises(DataError, match=r"at most 1\.00% .* 11 of 31 are: truncated 10, not an image 1\. Mend"):
        counts.add([(0, 0, {"not an image": 1})], max_bad=0.01)


def test_one_good_sample_is_no_batch():
    with pytest.raises(DataError, match="must have at least two good samples, and one has 1"):
        RunCounts({}, Laps()).add([(1, 0, {}), (0, 0, {})], max_bad=0.5)
