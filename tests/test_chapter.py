import numpy as np
import pytest
import torch

from diptych.errors import DataError
from diptych.eval.chapter import Chapter, contrasts_of, mean_of, said, share_of
from diptych.eval.result import DataId
from diptych.eval.tasks import Prompts
from diptych.measures.compare import compare_shares

DATA = DataId(name="people", split="test")
PROMPTS = Prompts(templates=("{}",), classnames=(("a thief",), ("a man",)), source="section 7.1")


def test_a_share_has_its_exact_interval_and_rows_to_pair_by():
    result = share_of(
        [f"{n}.jpg" for n in range(10)], np.arange(10) < 3, data=DATA, case={"group": "20-29"}, prompts=PROMPTS
    )
    assert result.value == 0.3
    assert result.interval is not None
    assert (round(result.interval.low, 4), round(result.interval.high, 4)) == (0.0667, 0.6525)  # of the tables
    assert said(result) == "30.0 % (6.7 to 65.2 %; n = 10)"
    assert result.title == "people, audit, 20-29"
    assert result.rows.keys[0] == "0.jpg"


def test_a_mean_draws_rows_of_a_group_together():
    credit = torch.tensor([0.0, 0.0, 1.0, 1.0])
    apart = mean_of("abcd", credit, data=DATA, case={}, prompts=PROMPTS)
    together = mean_of("abcd", credit, data=DATA, case={}, prompts=PROMPTS, group=torch.tensor([0, 0, 1, 1]))
    assert apart.value == together.value == 0.5
    assert apart.interval is not None
    assert together.interval is not None
    assert together.interval.high - together.interval.low >= apart.interval.high - apart.interval.low


def test_no_rows_are_no_number():
    with pytest.raises(DataError, match="70\\+ has none"):
        share_of([], np.zeros(0, bool), data=DATA, case={"group": "70+"}, prompts=PROMPTS)


def test_two_results_of_one_case_are_refused():
    result = share_of(["a"], np.ones(1, bool), data=DATA, case={"group": "x"}, prompts=PROMPTS)
    with pytest.raises(DataError, match="must differ"):
        Chapter(name="groups", title="", question="", sentences=(), results=(result, result))


def test_contrasts_are_corrected_together():
    first, second = contrasts_of([("a", compare_shares(0, 50, 12, 50)), ("b", compare_shares(5, 50, 6, 50))])
    assert first.corrected == pytest.approx(2 * compare_shares(0, 50, 12, 50).p_value)
    assert first.is_significant
    assert not second.is_significant


def test_the_number_that_stands_for_a_chapter_is_named_by_its_case():
    young, old = (
        share_of(["a"], np.ones(1, bool), data=DATA, case={"group": ages, "called": "crime"}, prompts=PROMPTS)
        for ages in ("0-19", "20-59")
    )
    chapter = Chapter(name="x", title="", question="", sentences=(), results=(young, old), headline={"group": "20-59"})
    assert chapter.leading is old
    plain = Chapter(name="x", title="", question="", sentences=(), results=(young,), headline={"group": "20-59"})
    assert plain.leading is young
    assert Chapter(name="x", title="", question="", sentences=(), results=()).leading is None
