import csv
import dataclasses
import io

import pytest
import torch

from diptych.errors import DataError
from diptych.eval.result import DataId, ModelId, Result
from diptych.eval.result_tables import (
    by_model,
    results_table,
    retrieval_table,
    robustness_table,
    sets_table,
    sureness_table,
)
from diptych.eval.zero_shot import Rejection, Temperature
from diptych.measures.calibration import RejectThreshold
from diptych.measures.metrics import Interval
from diptych.measures.retrieval import Ranking, RetrievalResult
from test_result import result
from test_shift import models


def of(model: str, fingerprint: str = "f", **values) -> Result:
    return result(model=ModelId(name=model, fingerprint=fingerprint), interval=Interval(0.25, 1.0, 0.95), **values)


def test_a_csv_has_a_row_for_each_measurement_with_its_conditions():
    text = results_table([of("m, 1", numbers={"top-5": 0.9}), of("m, 1", measurement="linear-probe")], "csv")
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["model"], first["value"], first["low"], first["numbers"]) == ("m, 1", "0.75", "0.25", "top-5=0.9")
    assert (second["measurement"], second["sha256"], second["n"]) == ("linear-probe", "ab", "4")


def test_latex_and_markdown_have_a_column_for_each_model():
    results = [of("a_b"), of("c", "g", data=DataId(name="x|y", split="val"), metric="100 % & more")]
    latex = results_table(results, "latex")
    assert r"data & measurement & metric & n & a\_b & c \\" in latex
    assert r"set & zero-shot & accuracy & 4 & 75.0 [25.0, 100.0] & - \\" in latex
    assert r"x|y, val & zero-shot & 100 \% \& more & 4 & - & 75.0 [25.0, 100.0] \\" in latex
    header, line, *rows = results_table(results, "markdown").splitlines()
    assert header == "| data | measurement | metric | n | a_b | c |"
    assert line == "| --- | --- | --- | --- | --- | --- |"
    assert rows[1] == r"| x\|y, val | zero-shot | 100 % & more | 4 | - | 75.0 [25.0, 100.0] |"


def test_models_of_one_name_are_told_apart_and_results_that_come_twice_refused():
    assert list(by_model([of("m", "12345678ab"), of("m", "abcdefghij")])) == ["m (12345678)", "m (abcdefgh)"]
    with pytest.raises(DataError, match="m has two: remove one"):
        results_table([of("m"), of("m")], "latex")
    with pytest.raises(DataError, match="at least one result"):
        results_table([], "csv")


def test_a_set_has_one_row_with_the_name_of_its_metric():
    probe = of("m", measurement="linear-probe", metric="accuracy", value=0.5)
    header, rows = sets_table([of("m", metric="mean per class"), probe, of("m", data=DataId(name="b", split="test"))])
    assert header[:4] == ["data", "metric", "n", "zero-shot"]
    assert rows[0] == ["set", "mean per class / accuracy", "4", "75.00%", *("25.00% to 100.00%", "50.00%"), rows[0][4]]
    assert rows[1][5:] == ["-", "-"]
    assert rows[2] == ["mean of 2 sets", "", "", "75.00%", "", "50.00%", ""]


def test_retrieval_has_a_row_for_each_way():
    way = Ranking({1: 0.25, 5: 0.5}, {1: Interval(0.2, 0.3, 0.95)}, 3.5, 8, torch.arange(40))
    header, rows = retrieval_table([of("m", retrieval=RetrievalResult(way, way)), of("m")])
    assert header[0] == "retrieval"
    first = ["set: picture to texts", "40", "8", "25.00%", "20.00% to 30.00%", "50.00%", "-", "3.5"]
    assert rows == [first, ["set: text to pictures", *first[1:]]]


def test_sureness_and_robustness_are_shown_where_they_were_measured():
    assert sureness_table({"m": [of("m")]}) is None
    heat = Temperature(value=2.0, error_before=0.2, error_after=0.01, fitted_on=5, measured_on=5)
    far = Rejection(unknown=1, threshold=RejectThreshold(0.5, 1.0, 1.0, 0.875), accuracy=0.9, measured_on=5)
    some = sureness_table({"m": [of("m", temperature=heat, rejection=far), of("m", temperature=heat)]})
    assert some
    assert some[1] == [
        ["m", "set", "2", "20.00%", "1.00%", "0.875", "90.00%"],
        ["m", "set", "2", "20.00%", "1.00%", "-", "-"],
    ]
    assert robustness_table({"m": [of("m")]}) is None
    table = robustness_table(models(3))
    assert table
    assert table[0][-1] == "beyond these models' trend"
    assert len(table[1]) == 3 * 7 + 3
    assert "mean of seven" in results_table(
        [
            dataclasses.replace(one, model=ModelId(name=name, fingerprint=name))
            for name, some in models(1).items()
            for one in some
        ],
        "markdown",
    )
