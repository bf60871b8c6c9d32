"""rows/stage.py: what a stage says of rows."""

import pyarrow as pa

from diptych.rows.columns import pair_key, pairs_table
from diptych.rows.stage import DROPPED, Judged, dropped


def rows_of(*texts):
    return pairs_table(
        [{"key": pair_key(f"https://a.example/{text}", text), "text": text, "source": 0} for text in texts]
    )


def test_each_row_is_kept_or_dropped_with_what_was_measured_of_it():
    rows = rows_of("a", "b", "c")
    judged = Judged.by(
        rows, pa.array([True, None, False]), "short", value=pa.array(["1", "2", "3"]), limit="at least 4"
    )
    assert judged.kept["text"].to_pylist() == ["a"]
    assert judged.dropped.to_pylist() == [
        {"key": key, "cause": "short", "value": value, "limit": "at least 4"}
        for key, value in zip(rows["key"].to_pylist()[1:], "23", strict=True)
    ]


def test_the_ledger_has_its_schema_also_when_it_is_empty():
    assert dropped(pa.array([], pa.string()), "short").schema == DROPPED
    assert Judged.by(rows_of("a"), [True], "short").dropped.schema == DROPPED
