import dataclasses

import numpy as np
import pytest
import torch

from diptych.errors import ConfigError
from diptych.export.gate import GateReport, Likeness, Thresholds, check_accepted, found_again, likeness
from diptych.measures.compare import compare_correct

FINE = Likeness(n=100, mean=0.995, percentile1=0.98, worst=0.97)
REPORT = GateReport(images=FINE, texts=FINE, found=0.95, top1=None)


def test_cosines_are_worked_by_hand_whatever_the_lengths():
    before = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], np.float32)
    after = np.array([[2.0, 0.0], [0.0, -1.0], [4.0, 3.0]], np.float32)
    found = likeness(before, after)
    assert (found.n, found.worst) == (3, -1.0)
    assert found.mean == pytest.approx((1 - 1 + 24 / 25) / 3)


def test_what_is_no_number_counts_as_the_worst():
    assert likeness(np.ones((2, 3), np.float32), np.array([[1, 1, np.nan], [1, 1, 1]], np.float32)).worst == -1.0


def test_a_text_finds_again_the_share_of_its_best_that_stays():
    texts = np.eye(2, dtype=np.float32)
    before = np.array([[0.9, 0], [0.8, 0], [0.1, 0], [0, 0.9], [0, 0.8]], np.float32)
    after = np.array([[0.9, 0], [0.0, 0], [0.1, 0], [0, 0.8], [0, 0.9]], np.float32)  # one fell, two swapped
    assert found_again((before, texts), (after, texts), best=2) == pytest.approx((1 / 2 + 2 / 2) / 2)
    assert found_again((before, texts), (after, texts), best=99) == 1.0  # there are no more than five


def test_each_measure_is_judged_by_its_own_threshold():
    assert REPORT.faults() == {}
    low = dataclasses.replace(FINE, mean=0.98)
    assert list(dataclasses.replace(REPORT, texts=low).faults()) == ["cosine"]
    assert "0.9800" in dataclasses.replace(REPORT, images=low).faults()["cosine"]
    one_lost = dataclasses.replace(FINE, worst=0.26)
    assert list(dataclasses.replace(REPORT, images=one_lost).faults()) == ["worst"]  # which a mean of 0.995 hides
    assert dataclasses.replace(REPORT, texts=one_lost).faults() == {}  # of texts 1 % count, not the oddest one
    assert list(dataclasses.replace(REPORT, found=0.7).faults()) == ["found"]
    assert dataclasses.replace(REPORT, found=0.7).faults(Thresholds(found=0.6)) == {}


def test_accuracy_is_judged_by_what_may_have_been_lost():
    right = torch.ones(1000, dtype=torch.bool)
    fewer = right.clone()
    fewer[:40] = False
    assert list(dataclasses.replace(REPORT, top1=compare_correct(right, fewer)).faults()) == ["top1"]
    assert dataclasses.replace(REPORT, top1=compare_correct(right, right)).faults() == {}


def test_only_measures_can_be_accepted():
    check_accepted(("cosine", "top1"))
    with pytest.raises(ConfigError, match=r"cosine, worst, found, top1\. Got 'speed'"):
        check_accepted(("speed",))
