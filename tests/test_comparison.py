import dataclasses
from pathlib import Path

import pytest
import torch

from conftest import untrained_bundle
from diptych.errors import DataError
from diptych.eval.comparison import compare_results, compared
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import find_sets
from diptych.eval.result import DataId, ModelId, Result, Rows
from diptych.eval.result_file import read_results
from diptych.eval.suite import Asked, run_suite
from diptych.measures.compare import compare_correct, compare_metric
from diptych.measures.metrics import mean_per_class
from test_result import KEYS, RIGHT, result
from toys import nine_kinds

OTHER = Rows(keys=KEYS[::-1], correct=torch.tensor([True, True, True, False]), targets=torch.tensor([1, 1, 0, 0]))


def test_nine_kinds_of_two_models_are_paired_from_their_files(tmp_path: Path):
    data = nine_kinds(tmp_path / "data")
    sides: list[list[Result]] = []
    for seed in (0, 5):
        out = tmp_path / str(seed)
        asked = Asked(model=f"model {seed}")
        assert not [
            one.error
            for one in run_suite(ModelFeatures(untrained_bundle(seed)), find_sets(data), out, asked)
            if one.error
        ]
        results, notes = read_results(out)
        assert not notes
        sides.append(list(results.values()))
    found = compare_results(*sides, seed=1)
    assert {one.kind for one in found.compared} == {one.kind for one in sides[0]}
    assert len({one.kind for one in found.compared}) == 9
    titles = [one.title for one in found.compared]
    assert len(titles) == len(set(titles)) == len(sides[0])
    assert {"cifar10, zero-shot", "cifar10, linear-probe", "captions, retrieval"} < set(titles)
    by_title = [{one.title: one for one in side} for side in sides]
    for one in found.compared:
        assert (one.test.a, one.test.b) == pytest.approx([side[one.title].value for side in by_title])
        assert 0 < one.test.p_value <= one.p_value_holm <= 1
    assert {one.metric for one in found.compared if one.test.test == "McNemar"} == {"accuracy", "within 25 km"}
    assert (found.only_a, found.only_b) == ((), ())


def test_right_and_wrong_rows_take_mcnemar_and_other_metrics_the_bootstrap():
    a, b = result(), result(rows=OTHER)
    in_order = torch.tensor([False, True, True, True])
    assert compared(a, b, seed=2) == compare_correct(RIGHT, in_order, seed=2)
    of_classes = [dataclasses.replace(one, metric="mean per class") for one in (a, b)]
    targets = torch.tensor([0, 0, 1, 1])
    twin = compare_metric(
        lambda drawn: mean_per_class(RIGHT[drawn], targets[drawn]),
        lambda drawn: mean_per_class(in_order[drawn], targets[drawn]),
        4,
        seed=2,
    )
    assert compared(*of_classes, seed=2) == twin


def test_what_only_one_model_has_is_named():
    val = result(data=DataId(name="other", split="val", sha256="cd"))
    found = compare_results([result(), val], [result(rows=OTHER)])
    assert [one.title for one in found.compared] == ["set, zero-shot"]
    assert (found.only_a, found.only_b) == (("other, val, zero-shot",), ())


def test_two_files_are_paired_whatever_they_are_called():
    probe = dataclasses.replace(result(rows=OTHER), measurement="linear-probe")
    [one] = compare_results([result()], [probe]).compared
    assert one.title == "set, zero-shot / set, linear-probe"


def test_results_that_cannot_be_paired_are_refused():
    one = result(model=ModelId(name="m", fingerprint="1"))
    with pytest.raises(DataError, match=r"must be results on the same data\. They are not: ab and cd"):
        compared(one, result(data=DataId(name="set", split="test", sha256="cd")))
    with pytest.raises(DataError, match=r"scored by one metric\. They are by accuracy and mean per class"):
        compared(one, result(metric="mean per class"))
    with pytest.raises(DataError, match="must share pictures"):
        compared(one, result(rows=Rows(keys=("x",), correct=RIGHT[:1])))
    with pytest.raises(DataError, match="must agree on what each picture shows"):
        compared(one, result(rows=dataclasses.replace(OTHER, targets=torch.tensor([0, 1, 0, 0]))))
    other = result(data=DataId(name="b", split="test"))
    with pytest.raises(DataError, match=r"A has: set, zero-shot\. B has: b, zero-shot; c, zero-shot\."):
        compare_results([one], [other, result(data=DataId(name="c", split="test"))])
    with pytest.raises(DataError, match="There are two: remove one"):
        compare_results([one, one], [one])
    with pytest.raises(DataError, match="A must be results of one model"):
        compare_results([one, dataclasses.replace(other, model=ModelId(name="n", fingerprint="2"))], [one])
