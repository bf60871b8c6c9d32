import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import untrained_bundle
from diptych.errors import ConfigError, MissingExtraError
from diptych.pairs.shards import ShardWriter
from diptych.pairs.sources import Source, open_pairs
from diptych.search.bulk import embed_bulk

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def pairs(pair_shards, tmp_path):
    """The 40 drawings, one of them damaged and one without a picture."""
    whole = open_pairs(Source(path=str(pair_shards)))
    with ShardWriter(tmp_path / "shards", samples_per_shard=16) as writer:
        for i in range(len(whole)):
            parts = dict(whole[i].parts)
            if i == 7:
                parts["png"] = parts["png"][:60]
            if i == 21:
                del parts["png"]
            writer.add(whole[i].key, parts)
    return open_pairs(Source(path=str(tmp_path / "shards")))


def rows(out: Path) -> list[dict]:
    if out.suffix == ".lance":
        lancedb = pytest.importorskip("lancedb")
        table = lancedb.connect(str(out.parent)).open_table(out.stem).to_arrow()
        return sorted(table.to_pylist(), key=lambda row: row["key"])
    return pq.read_table(out).to_pylist()


def assert_right(out: Path, pairs, bundle) -> None:
    """Every sample has its row, in order; those that can be read have the features of the plain way."""
    found = rows(out)
    assert [row["key"] for row in found] == [pairs[i].key for i in range(40)]
    assert [i for i, row in enumerate(found) if row["fault"]] == [7, 21]
    assert [i for i, row in enumerate(found) if not any(row["features"])] == [7, 21]
    assert found[21]["fault"] == "no picture"
    good = [i for i in range(40) if i not in (7, 21)]
    expected = bundle.encode_images([pairs[i].picture for i in good])
    features = np.array([found[i]["features"] for i in good])
    assert (features * expected).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("name", ["f.parquet", "f.lance"])
def test_ranks_share_the_parts_and_every_sample_has_its_row(pairs, tiny_bundle, tmp_path, name):
    if name == "f.lance":
        pytest.importorskip("lancedb")
    seen = []
    for rank in range(3):
        done = embed_bulk(
            tiny_bundle,
            pairs,
            tmp_path / name,
            part_size=6,
            batch_size=4,
            rank=rank,
            world_size=3,
            on_progress=lambda *numbers: seen.append(numbers),
        )
        assert (done.complete, done.parts) == (True, 3 if rank == 0 else 2)
    assert seen[-1] == (12, 12)
    assert_right(tmp_path / name, pairs, tiny_bundle)


def test_what_is_there_is_not_done_again(pairs, tiny_bundle, tmp_path, monkeypatch):
    out = tmp_path / "f.parquet"
    first = embed_bulk(tiny_bundle, pairs, out, part_size=15, should_stop=lambda: True)
    assert (first.complete, first.parts, first.samples, first.skipped) == (False, 1, 15, 1)
    second = embed_bulk(tiny_bundle, pairs, out, part_size=15)
    assert (second.complete, second.parts, second.samples, second.skipped) == (True, 3, 25, 1)
    assert_right(out, pairs, tiny_bundle)
    assert embed_bulk(tiny_bundle, pairs, out, part_size=15).samples == 0


def test_a_killed_process_leaves_whole_parts(pairs, tiny_bundle, tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import untrained_bundle
from diptych.pairs.sources import Source, open_pairs
from diptych.search.bulk import embed_bulk
def on_progress(done, total):
    if done >= 22:
        os.kill(os.getpid(), signal.SIGKILL)
pairs = open_pairs(Source(path=sys.argv[2]))
embed_bulk(untrained_bundle(0), pairs, Path(sys.argv[3]), part_size=10, batch_size=2, on_progress=on_progress)
"""
    out = tmp_path / "f.parquet"
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "shards"), str(out)]
    assert subprocess.run(command, check=False, timeout=300).returncode == -signal.SIGKILL
    assert sorted(path.name for path in out.iterdir()) == ["part-000000.parquet", "part-000001.parquet"]
    assert embed_bulk(tiny_bundle, pairs, out, part_size=10).samples == 20
    assert_right(out, pairs, tiny_bundle)


def test_parquet_tables_of_pictures_are_read(pairs, tiny_bundle, tmp_path):
    import pyarrow as pa

    table = pa.table({"image": [pairs[i].picture for i in range(5)], "name": [f"n{i}" for i in range(5)]})
    pq.write_table(table, tmp_path / "in.parquet")
    source = Source(path=str(tmp_path / "in.parquet"), caption_columns=(), key_column="name")
    assert embed_bulk(tiny_bundle, open_pairs(source), tmp_path / "f.parquet").samples == 5
    assert [row["key"] for row in rows(tmp_path / "f.parquet")] == [f"n{i}" for i in range(5)]


def test_what_was_begun_otherwise_is_refused(pairs, tiny_bundle, tmp_path, monkeypatch):
    out = tmp_path / "f.parquet"
    embed_bulk(tiny_bundle, pairs, out, part_size=20)
    with pytest.raises(ConfigError, match="must have been begun with the same part size"):
        embed_bulk(tiny_bundle, pairs, out, part_size=10)
    with pytest.raises(ConfigError, match="must have been begun with the same model"):
        embed_bulk(untrained_bundle(1), pairs, out, part_size=20)
    with pytest.raises(ConfigError, match=r"NAME\.parquet or NAME\.lance\. Got .*f\.csv"):
        embed_bulk(tiny_bundle, pairs, tmp_path / "f.csv")
    with pytest.raises(ConfigError, match="rank must be from 0"):
        embed_bulk(tiny_bundle, pairs, out, rank=2, world_size=2)
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"diptych\[lance\]"):
        embed_bulk(tiny_bundle, pairs, tmp_path / "f.lance")
    assert np.isfinite(rows(out)[0]["features"]).all()
