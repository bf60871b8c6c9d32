import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.cluster import import_daft
from diptych.errors import ConfigError, DataError, MissingExtraError
from diptych.pairs.shards import ShardWriter
from diptych.pairs.sources import Source, open_pairs
from diptych.search.bulk import embed_bulk
from diptych.search.bulk_daft import embed_with_daft
from diptych.weights import bundle as bundle_module
from processes import started, wait_until

pq = pytest.importorskip("pyarrow.parquet")

# daft leaves the pipe from a worker to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <_io:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def daft():
    try:
        return import_daft()
    except MissingExtraError:
        pytest.skip("daft is not installed")


@pytest.fixture(scope="module")
def source(pair_shards, tmp_path_factory) -> Source:
    """The 40 drawings, one of them damaged and one without a picture."""
    folder = tmp_path_factory.mktemp("shards")
    whole = open_pairs(Source(path=str(pair_shards)))
    with ShardWriter(folder, samples_per_shard=16) as writer:
        for i in range(len(whole)):
            parts = dict(whole[i].parts)
            if i == 7:
                parts["png"] = parts["png"][:60]
            if i == 21:
                del parts["png"]
            writer.add(whole[i].key, parts)
    return Source(path=str(folder))


@pytest.fixture(scope="module")
def model(tiny_bundle, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_bundle.save(folder)
    return str(folder)


def table(out: Path):
    if out.suffix == ".lance":
        lancedb = pytest.importorskip("lancedb")
        return lancedb.connect(str(out.parent)).open_table(out.stem).to_arrow().sort_by("key")
    return pq.read_table(out)


def features(found) -> np.ndarray:
    return np.array([row for row in found["features"].to_pylist() if row is not None])


@pytest.mark.parametrize("name", ["f.parquet", "f.lance"])
def test_daft_gives_the_rows_of_the_own_engine(daft, source, model, tiny_bundle, tmp_path, monkeypatch, name):
    if name == "f.lance":
        pytest.importorskip("lancedb")
    seen = []
    done = embed_with_daft(
        model, source, tmp_path / name, part_size=15, batch_size=8, on_progress=lambda *numbers: seen.append(numbers)
    )
    assert (done.parts, done.samples, done.skipped, done.complete) == (3, 40, 2, True)
    assert sorted(seen) == seen
    assert (len(seen), seen[-1]) == (3, (40, 40))
    found, apart = table(tmp_path / name), {}
    for dtype in (torch.float32, torch.bfloat16):  # which one is faster, a worker finds out by itself
        monkeypatch.setattr(bundle_module, "fast_dtype", lambda device, dtype=dtype: dtype)
        out = tmp_path / str(dtype) / "f.parquet"
        embed_bulk(tiny_bundle, open_pairs(source), out, part_size=15, batch_size=8)
        own = table(out)
        assert found.select(["key", "part", "fault"]).equals(own.select(["key", "part", "fault"]))
        assert found["features"].is_null().equals(own["features"].is_null())
        apart[dtype] = np.abs(features(found) - features(own)).max()
    assert apart[torch.float32] < 1e-6 or apart[torch.bfloat16] < 1e-3


def test_parts_that_are_there_are_not_made_again(daft, source, model, tiny_bundle, tmp_path):
    """Both engines write the same output, and each goes on where the other was stopped."""
    out = tmp_path / "f.parquet"
    embed_bulk(tiny_bundle, open_pairs(source), out, part_size=15, should_stop=lambda: True)
    first = (out / "part-000000.parquet").stat().st_mtime_ns
    done = embed_with_daft(model, source, out, part_size=15, rank=0, world_size=2)
    assert (done.parts, done.samples) == (2, 10)
    assert sorted(path.name for path in out.iterdir()) == ["part-000000.parquet", "part-000002.parquet"]
    assert (out / "part-000000.parquet").stat().st_mtime_ns == first
    assert embed_bulk(tiny_bundle, open_pairs(source), out, part_size=15).samples == 15
    assert embed_with_daft(model, source, out, part_size=15).samples == 0
    with pytest.raises(ConfigError, match="must have been begun with the same part size"):
        embed_with_daft(model, source, out, part_size=10)


def test_what_goes_wrong_in_a_worker_is_told_in_its_sentence(daft, source, model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/f\.parquet"):
        embed_with_daft(model, source, tmp_path / "file" / "f.parquet", part_size=15, workers=2)


def test_after_ctrl_c_whole_parts_are_there(daft, source, model, tmp_path):
    out = tmp_path / "f.parquet"
    words = ["embed", source.path, "--model", model, "--out", out, "--runner", "daft", "--part-size", "1"]
    command = [sys.executable, "-m", "diptych", *words]
    with started(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_until(lambda: process.poll() is not None or len(list(out.glob("part-*"))) >= 3, every=0.02)
        os.killpg(process.pid, signal.SIGINT)  # a terminal signals the workers, too
        message = process.communicate(timeout=60)[1]
    assert process.returncode == 130, message
    assert message == "diptych: what is done is kept; the same command goes on from here.\ndiptych: stopped.\n"
    there = pq.read_table(out).num_rows
    assert 3 <= there < 40
    assert embed_with_daft(model, source, out, part_size=1).samples == 40 - there


def test_nobody_is_reported_to(daft, tmp_path):
    """The import opens no socket; a run asks for no address and calls none but processes of this machine."""
    script = """
import socket, sys
events = []
def hook(event, details):
    if event.startswith("socket.") and not (event == "socket.connect" and details[0].family == socket.AF_UNIX):
        events.append(event)
sys.addaudithook(hook)
from diptych.cluster import import_daft
daft = import_daft()
assert events == [], events
assert daft.from_pydict({"x": [1]}).where(daft.col("x") > 0).to_pydict() == {"x": [1]}
assert not {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"} & set(events), events
from daft.scarf_telemetry import opted_out
assert opted_out()
import os
os._exit(0)  # threads of daft may still hold the interpreter when it ends, and abort it
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr


def test_without_daft_the_extra_is_named(source, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(MissingExtraError, match=r"diptych\[daft\]"):
        embed_with_daft(model, source, tmp_path / "f.parquet")
