import numpy as np
import pytest
import torch

from diptych.errors import DataError, ShapeError
from diptych.eval.result import DataId, ProbeFit, Result, Rows, in_common, interval_of, is_right_or_wrong, metric_of
from diptych.eval.tasks import Prompts
from diptych.measures.metrics import Interval, bootstrap_interval, bootstrap_of

KEYS = ("a", "b", "c", "d")
RIGHT = torch.tensor([True, False, True, True])


def result(**values) -> Result:
    facts = {
        "measurement": "zero-shot",
        "kind": "classification",
        "data": DataId(name="set", split="test", sha256="ab"),
        "metric": "accuracy",
        "value": 0.75,
        "n": 4,
        "prompts": Prompts(templates=("{}",), source="ours"),
        "rows": Rows(keys=KEYS, correct=RIGHT, targets=torch.tensor([0, 0, 1, 1])),
    }
    return Result(**{**facts, **values})


def test_the_metric_is_made_from_any_draw_of_rows():
    rows = result().rows
    assert metric_of(rows, "accuracy") == 3 / 4
    assert metric_of(rows, "accuracy", np.array([0, 0, 1])) == pytest.approx(2 / 3)
    assert metric_of(rows, "mean per class") == pytest.approx((1 / 2 + 1) / 2)
    folds = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1]]).bool()
    assert metric_of(Rows(keys=KEYS, correct=RIGHT, folds=folds), "mean of 3 splits") == pytest.approx((2 / 3 + 1) / 2)
    margins = Rows(keys=KEYS, scores=torch.tensor([[0.1], [0.2], [0.3], [0.2]]), targets=torch.tensor([0, 0, 1, 1]))
    assert metric_of(margins, "ROC AUC") == 3 / 4  # a tie counts nothing
    halves = Rows(keys=KEYS, credit=torch.tensor([0.0, 0.5, 1.0, 0.5]).double())
    assert metric_of(halves, "mean of pm-0 and pm-10") == 0.5


def test_only_rows_that_stand_for_themselves_are_right_or_wrong():
    rows = result().rows
    assert is_right_or_wrong(rows, "accuracy")
    assert not is_right_or_wrong(rows, "mean per class")
    assert not is_right_or_wrong(
        Rows(keys=KEYS, correct=RIGHT, group=torch.tensor([0, 0, 1, 1])), "text-to-image recall@1"
    )
    assert not is_right_or_wrong(Rows(keys=KEYS, credit=RIGHT.double()), "mean of top-1 and top-5")


def test_intervals_are_of_the_metric():
    rows, group = result().rows, torch.tensor([0, 0, 1, 1])
    assert interval_of(rows, "accuracy", seed=1) == bootstrap_interval(RIGHT, seed=1)
    grouped = Rows(keys=KEYS, correct=RIGHT, group=group)
    assert interval_of(grouped, "text-to-image recall@1", seed=1) == bootstrap_interval(RIGHT, seed=1, group=group)
    by_class = bootstrap_of(lambda drawn: metric_of(rows, "mean per class", drawn), 4, seed=1, samples=300)
    assert interval_of(rows, "mean per class", seed=1) == by_class


def test_rows_are_matched_by_key():
    other = Rows(keys=("d", "x", "a"), correct=torch.tensor([False, True, True]))
    a, b = in_common(result().rows, other)
    assert a.keys == b.keys == ("a", "d")
    assert a.correct is not None
    assert b.correct is not None
    assert (a.correct.tolist(), b.correct.tolist()) == ([True, True], [True, False])


def test_columns_of_other_lengths_and_lacking_ones_are_named():
    with pytest.raises(ShapeError, match=r"the keys, 4\. Got correct 1"):
        Rows(keys=KEYS, correct=torch.tensor([True]))
    with pytest.raises(DataError, match=r"what mWAP is made from\. They do not: measure again"):
        metric_of(result().rows, "mWAP")


def test_the_other_numbers_are_those_that_are_not_the_metric_once_more():
    numbers = {"top-1": 0.75, "mean per class": 0.5}
    assert result(numbers=numbers).other_numbers == {"mean per class": 0.5}
    assert result(numbers=numbers, metric="mean per class").other_numbers == {"top-1": 0.75}


def test_titles_name_what_was_measured_and_pictures_left_out_are_counted_over_splits():
    assert result().title == "set, zero-shot"
    assert result(data=DataId(name="set", split="val")).title == "set, val, zero-shot"
    assert result(skipped={"truncated": 2, "empty": 1}).left_out == 3
    fit = ProbeFit(
        train=DataId(name="set", split="train"), validation="val", train_examples=1, validation_examples=1, a_class=1,
        l2=1, loss=1, converged=True, tried={}, zero_shot=0, zero_shot_interval=Interval(0, 0, 0.95),
        skipped={"train": {"truncated": 2}, "test": {}},
    )  # fmt: skip
    assert result(probe=fit).left_out == 2
