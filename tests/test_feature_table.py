"""One schema for all tables of features, as other programs read it."""

import datetime
import sys
from pathlib import Path

import numpy as np
import pytest

from diptych.data.facts import Facts
from diptych.errors import MissingExtraError
from diptych.search.feature_table import FeatureRow, feature_schema, feature_table

pytest.importorskip("pyarrow")

FEATURES = np.array([[0.6, 0.8, 0], [0, 0, 1]], np.float32)


@pytest.fixture
def parquet(tmp_path) -> Path:
    import pyarrow.parquet as pq

    facts = Facts(width=4, height=3, taken=datetime.datetime(2023, 1, 2), camera="X", place=(1.0, 2.0))
    rows = [
        FeatureRow(key="a.jpg", features=FEATURES[0], facts=facts),
        FeatureRow(key="caf\udce9.mp4", features=FEATURES[1], time=5.5, part=1),
        FeatureRow(key="bad.jpg", features=None, fault="bad.jpg is bad"),
    ]
    table = feature_table(rows, feature_schema(3, {"model": "m"}))
    pq.write_table(table, tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


def test_features_are_lists_of_fixed_size_and_a_fault_has_zeros(parquet):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(parquet)
    assert table.schema.field("features").type == pa.list_(pa.float32(), 3)
    assert table["features"].null_count == 0
    np.testing.assert_array_equal(table["features"].to_pylist(), [*FEATURES, [0, 0, 0]])
    assert table["key"].to_pylist() == ["a.jpg", r"caf\xe9.mp4", "bad.jpg"]
    assert table["fault"].to_pylist() == [None, None, "bad.jpg is bad"]


def test_what_embed_and_an_index_write_is_one_schema(tmp_path):
    from diptych.search import bulk, export

    assert bulk.feature_schema is export.feature_schema is feature_schema


def test_lancedb_takes_it_and_finds_the_nearest(parquet, tmp_path):
    lancedb = pytest.importorskip("lancedb")
    import pyarrow.parquet as pq

    table = lancedb.connect(str(tmp_path / "db")).create_table("x", pq.read_table(parquet))
    found = table.search(FEATURES[1], vector_column_name="features").where("fault IS NULL").limit(1).to_list()
    assert found[0]["key"] == r"caf\xe9.mp4"


def test_duckdb_computes_with_it(parquet):
    duckdb = pytest.importorskip("duckdb")
    query = (
        f"SELECT key, array_inner_product(features::FLOAT[3], [0.6, 0.8, 0]::FLOAT[3]) AS score FROM '{parquet}' "
        "WHERE fault IS NULL ORDER BY score DESC"
    )
    best, other = duckdb.sql(query).fetchall()
    assert (best[0], round(best[1], 5), other[1]) == ("a.jpg", 1, 0)


def test_polars_reads_it_as_an_array(parquet):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(parquet)
    assert frame.schema["features"] in (polars.Array(polars.Float32, 3), polars.List(polars.Float32))
    np.testing.assert_array_equal(np.stack(frame["features"].to_list())[:2], FEATURES)


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"diptych\[parquet\]"):
        feature_schema(3, {})
