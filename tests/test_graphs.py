import json

import pytest

from diptych.config import to_dict
from diptych.errors import WeightsError
from diptych.files import sha256
from diptych.weights.graphs import GRAPHS, Graphs, WeightsFile, check_graph, check_weights, read_graphs


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "image.onnx").write_bytes(b"graph")
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 1000)
    write(tmp_path)
    return tmp_path


def write(folder, **changes):
    graphs = Graphs(
        embed_dim=8,
        head="sigmoid",
        logit_scale=10.0,
        logit_bias=-10.0,
        image_size=32,
        row_width=0,
        context_length=16,
        reads_padding=True,
        golden_texts=("a", "b"),
        fingerprint="f",
        dtype="int8",
        opset=20,
        producer="a test",
        sha256={"image.onnx": sha256(folder / "image.onnx")},
        weights=WeightsFile(name="weights", size=256_000, sha256=sha256(folder / "weights")),
    )
    (folder / GRAPHS).write_text(json.dumps(to_dict(graphs) | changes))
    return graphs


def test_what_is_written_is_read(folder):
    assert read_graphs(folder / GRAPHS) == write(folder)
    assert check_graph(folder, read_graphs(folder / GRAPHS), "image.onnx") == folder / "image.onnx"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, r"has format 2; this diptych reads up to 1\. Update diptych"),
        ({"embed_dim": 0}, "must be at least 1"),
        ({"logit_scale": float("nan")}, "logits need finite numbers"),
        ({"logit_bias": float("inf")}, "logits need finite numbers"),
        ({"embed_dim": "eight"}, r"must tell of a model's graphs: .*embed_dim"),
        (
            {"weights": {"name": "../weights", "size": 1, "sha256": ""}},
            r"beside the graphs\. Got '\.\./w",
        ),
    ],
)
def test_facts_that_cannot_be_are_refused(folder, changes, message):
    write(folder, **changes)
    with pytest.raises(WeightsError, match=message):
        read_graphs(folder / GRAPHS)


def test_no_json_and_no_file_are_sentences(folder):
    (folder / GRAPHS).write_text("[1")
    with pytest.raises(WeightsError, match=r"graphs\.json must tell of a model's graphs"):
        read_graphs(folder / GRAPHS)
    (folder / GRAPHS).unlink()
    with pytest.raises(WeightsError, match=r"must hold graphs\.json, and has none\. diptych export writes"):
        read_graphs(folder / GRAPHS)


def test_another_graph_another_weights_and_missing_ones_are_told_apart(folder):
    graphs = read_graphs(folder / GRAPHS)
    (folder / "image.onnx").write_bytes(b"graph!")
    with pytest.raises(WeightsError, match=r"image\.onnx must be the graph that was exported"):
        check_graph(folder, graphs, "image.onnx")
    (folder / "image.onnx").write_bytes(b"graph")
    weights = folder / "weights"
    whole = weights.read_bytes()
    for other in (whole[:-1], bytes(reversed(whole)), whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]):
        weights.write_bytes(other)
        with pytest.raises(WeightsError, match=r"weights must be the file that the graphs of .* were exported for"):
            check_weights(folder, graphs)
    weights.unlink()
    with pytest.raises(WeightsError, match=r"must hold weights, and has none"):
        check_weights(folder, graphs)
