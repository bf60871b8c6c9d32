import datetime
import sys

import numpy as np
import pytest

from diptych.data.facts import Facts
from diptych.errors import ConfigError, DataError, MissingExtraError
from diptych.search.about import IndexAbout
from diptych.search.export import copy_index, export_index
from diptych.search.index_folder import open_store
from diptych.search.writing import Entry, Writer


@pytest.fixture
def index(tmp_path):
    facts = Facts(width=4, height=3, taken=datetime.datetime(2023, 1, 2), camera="X", place=(1.0, 2.0))
    eye = np.eye(3, dtype=np.float32)
    about = IndexAbout(folder=tmp_path, fingerprint="0", part="part", model="m", dimensions=3)
    with Writer(tmp_path / "index" / "part", 3) as writer:
        writer.write([Entry(path="gone.jpg", size=1, modified=1, digest=b"g", features=eye[:1])])
        writer.write([Entry(path="a.jpg", size=1, modified=1, digest=b"a", facts=facts, features=eye[1:2])])
        writer.write([Entry(path="f.mp4", size=1, modified=1, digest=b"f", features=eye[[2]], times=(5.5,))])
        writer.write([Entry(path="bad.jpg", size=1, modified=1, fault="bad.jpg is bad")])
        writer.forget(["gone.jpg"])
        writer.answer(about)
    return tmp_path / "index"


def test_a_table_holds_paths_facts_and_features(index, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    assert export_index(tmp_path, tmp_path / "x.parquet", index) == 2
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.metadata[b"model"] == b"m"
    nothing = dict.fromkeys(("time", "width", "height", "taken", "camera", "latitude", "longitude", "fault"))
    taken = {"taken": datetime.datetime(2023, 1, 2), "camera": "X", "latitude": 1.0, "longitude": 2.0}
    assert table.to_pylist() == [
        {**nothing, "key": "a.jpg", "width": 4, "height": 3, **taken, "part": 0, "features": [0, 1, 0]},
        {**nothing, "key": "f.mp4", "time": 5.5, "part": 0, "features": [0, 0, 1]},
        {**nothing, "key": "bad.jpg", "part": 0, "features": [0, 0, 0], "fault": "bad.jpg is bad"},
    ]


def test_arrays_hold_what_embed_writes(index, tmp_path):
    export_index(tmp_path, tmp_path / "x.npz", index)
    with np.load(tmp_path / "x.npz") as file:
        assert file["keys"].tolist() == ["a.jpg", "f.mp4#5.5"]
        assert file["features"].tolist() == [[0, 1, 0], [0, 0, 1]]
        assert file["skipped"].tolist() == [["bad.jpg", "bad.jpg is bad"]]


def test_a_copy_is_an_index_of_its_own(index, tmp_path):
    assert copy_index(tmp_path, tmp_path / "copy", index) == 2
    _, copy = open_store(tmp_path, tmp_path / "copy")
    with Writer(index / "part", 3) as writer:
        writer.forget(["a.jpg"])
    assert copy.check() == []
    assert copy.frames_of(copy.file_of("a.jpg"))[0].tolist() == [[0, 1, 0]]
    with Writer(tmp_path / "copy" / "part", 3) as writer:
        writer.forget(["a.jpg"])
        assert writer.compact() == 2


def test_what_cannot_be_written_is_named(index, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="must not exist yet"):
        copy_index(tmp_path, index, index)
    with pytest.raises(ConfigError, match=r"exported as \.parquet, \.npz or \.safetensors\. Got .*x\.csv"):
        export_index(tmp_path, tmp_path / "x.csv", index)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"diptych\[parquet\]"):
        export_index(tmp_path, tmp_path / "x.parquet", index)
