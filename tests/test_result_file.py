import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diptych.errors import DataError
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import find_sets
from diptych.eval.result import Rows, metric_of
from diptych.eval.result_file import RESULT_FORMAT, read_result, read_results, result_at, write_result
from diptych.eval.suite import Asked, run_suite
from diptych.weights.bundle import Bundle
from test_result import KEYS, result
from toys import nine_kinds


def equal(one: object, other: object) -> bool:
    """Field by field; columns to four digits, scores by their order."""
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one)
        )
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor)
        if one.is_floating_point() and one.ndim == 2:
            return one.argsort(dim=0, stable=True).tolist() == other.argsort(dim=0, stable=True).tolist()
        return torch.allclose(one.double(), other.double(), rtol=1e-3)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    return one == other


def test_every_kind_of_result_comes_back_as_it_was(tiny_bundle: Bundle, tmp_path: Path):
    sets = find_sets(nine_kinds(tmp_path / "data"))
    for one in run_suite(ModelFeatures(tiny_bundle), sets, tmp_path / "out", Asked(model="tiny", seed=2)):
        assert one.result, one.error
        again = read_result(tmp_path / "out" / f"{one.data}.{one.measurement}.json")
        assert equal(again, one.result), one.title
        assert metric_of(again.rows, again.metric) == metric_of(one.result.rows, again.metric)


def test_scores_keep_their_order_their_ties_and_what_is_no_number(tmp_path: Path):
    scores = torch.tensor([[0.3, 5.0], [float("nan"), -1.0], [0.1, 5.0], [0.3, 2.0]])
    rows = Rows(keys=KEYS, scores=scores, shown=scores > 1, counted=torch.ones(4, 2).bool())
    write_result(result(rows=rows, metric="11-point mAP"), tmp_path / "a.json")
    again = read_result(tmp_path / "a.json").rows
    assert again.scores is not None
    assert again.shown is not None
    assert again.scores[:, 1].tolist() == [3, 1, 3, 2]
    assert again.scores[:, 0].isnan().tolist() == [False, True, False, False]
    assert again.shown.tolist() == (scores > 1).tolist()


def test_a_folder_gives_its_results_and_a_sentence_for_each_other_json(tmp_path: Path):
    write_result(result(), tmp_path / "b.json")
    write_result(result(), tmp_path / "a.json")
    (tmp_path / "other.json").write_text('{"loss": 1}')
    found, notes = read_results(tmp_path)
    assert [path.name for path in found] == ["a.json", "b.json"]
    assert len(notes) == 1
    assert "other.json must be a result file (diptych-result-1). It holds something else." in notes[0]
    assert list(read_results(tmp_path / "a.json")[0]) == [tmp_path / "a.json"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not json", "It is no JSON"),
        ("{}", "It holds something else. Measure again"),
        ('{"task": "zero-shot", "model": {}, "data": {}, "top1": 1}', "a result of an older version. Measure again"),
        (json.dumps({"format": RESULT_FORMAT}), "It is damaged"),
        (json.dumps({"format": RESULT_FORMAT, "rows": {"keys": ["a"], "correct": "b 1 0"}}), "It is damaged"),
    ],
)
def test_other_files_are_named_with_a_cure_that_holds(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_result(tmp_path / "a.json")
    with pytest.raises(DataError, match=sentence):
        read_results(tmp_path)
    assert result_at(tmp_path / "a.json") is None


def test_a_file_or_a_result_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "none.json")
    with pytest.raises(DataError, match="It holds none"):
        read_results(tmp_path)
