"""rows/columns.py: rows of pairs."""

import pyarrow as pa

from diptych.rows.columns import PAIRS, pair_key, pairs_table, with_column


def test_a_key_is_of_the_address_and_the_text_and_of_nothing_else():
    assert pair_key("https://a.example/1.jpg", "a dog") == "a81b71f9c5adcaa26c54bdf07bb36b3e"
    assert len({pair_key("a", "bc"), pair_key("ab", "c"), pair_key("a", "bd"), pair_key("a", "bc\n")}) == 4


def test_what_a_row_leaves_out_is_null():
    table = pairs_table([{"key": pair_key("u", "t"), "text": "t", "url": "u", "source": 3}])
    assert table.schema == PAIRS
    assert table.to_pylist()[0]["place"] is None
    assert table.to_pylist()[0]["source"] == 3


def test_a_column_takes_the_place_of_its_namesake_or_the_last():
    rows = pairs_table([{"key": "a", "text": "b", "source": 0}])
    both = with_column(with_column(rows, "text", pa.array(["c"])), "more", pa.array([1]))
    assert both.column_names == [*rows.column_names, "more"]
    assert both["text"].to_pylist() == ["c"]
    assert both.schema.field("text") == rows.schema.field("text")
