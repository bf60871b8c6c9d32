import numpy as np
import pytest
import torch
from torch import nn

from diptych.export.quantise import has_convolutions, layers_of, quantised_convolutions, quantised_products, spare

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


def clipped_products(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[B, K] uint8 and [C, K] int8 to [B, C] as AVX2 without VNNI adds them: two products at a time, in 16 bits."""
    pairs = (activations.astype(np.int64)[:, None] * weights.astype(np.int64)).reshape(
        len(activations), len(weights), -1, 2
    )
    return pairs.sum(axis=3).clip(-(2**15), 2**15 - 1).sum(axis=2)


def test_no_processor_clips_the_products_of_spared_weights():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((8, 64)).astype(np.float32)
    rows[0, :2] = 3.0  # two large ones side by side
    activations = rng.integers(0, 256, (16, 64), dtype=np.uint8)
    activations[0] = 255
    integers, scales = spare(rows)
    exact = activations.astype(np.int64) @ integers.astype(np.int64).T
    assert np.array_equal(clipped_products(activations, integers), exact)
    plain = np.round(rows / (np.abs(rows).max(axis=1, keepdims=True) / 127)).astype(np.int8)
    assert not np.array_equal(
        clipped_products(activations, plain), activations.astype(np.int64) @ plain.astype(np.int64).T
    )
    lost = np.abs(integers * scales[:, None] - rows)
    assert np.sqrt((lost**2).mean()) < 0.02 * np.abs(rows).max()


def test_spared_weights_of_an_odd_length_of_zeros_and_without_large_neighbours():
    integers, scales = spare(np.array([[1.0, 0, -1.0], [0, 0, 0], [0.5, 0.25, 0.5]], np.float32))
    assert integers[0].tolist() == [127, 0, -127]  # nothing to spare: full scale
    assert integers[1].tolist() == [0, 0, 0]
    assert np.isfinite(scales).all()
    np.testing.assert_allclose(integers[2] * scales[2], [0.5, 0.25, 0.5], atol=0.01)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        x = nn.functional.relu6(self.first(x))
        return self.last(nn.functional.relu6(self.deep(x))).mean(dim=(2, 3))


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.nn.functional.gelu(layer(x))
        return x


def graph_of(module: nn.Module, example: torch.Tensor, path) -> "onnx.ModelProto":
    pytest.importorskip("onnxscript")
    with torch.no_grad():
        batch = {0: torch.export.Dim.DYNAMIC}
        torch.onnx.export(
            module.eval(),
            (example,),
            str(path),
            dynamo=True,
            dynamic_shapes=(batch,),
            external_data=False,
            verbose=False,
        )
    return onnx.load(str(path))


def run(graph, values: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_convolutions_in_8_bits_stay_near_and_first_layers_can_be_left_out(tmp_path):
    torch.manual_seed(0)
    pictures = torch.rand(12, 3, 16, 16)
    graph = graph_of(Convolutions(), pictures[:2], tmp_path / "a.onnx")
    assert has_convolutions(graph)
    assert sorted(layers_of(graph).values()) == [0, 1, 2]
    plain = run(graph, pictures.numpy())
    before = graph.SerializeToString()
    for left_out, quantised in ((0, 3), (2, 1)):
        made = quantised_convolutions(graph, pictures[:8].numpy(), left_out=left_out)
        integer_weights = [one for one in made.graph.initializer if one.data_type == onnx.TensorProto.INT8]
        assert len([one for one in integer_weights if len(one.dims) == 4]) == quantised
        assert cosines(plain, run(made, pictures.numpy())).min() > 0.98
    assert graph.SerializeToString() == before


@pytest.mark.filterwarnings("ignore")
def test_products_in_8_bits_stay_near_and_last_ones_can_be_left_out(tmp_path):
    torch.manual_seed(0)
    rows = torch.randn(6, 5, 32)
    graph = graph_of(Products(), rows[:2], tmp_path / "a.onnx")
    assert not has_convolutions(graph)
    plain = run(graph, rows.numpy())
    for left_out, quantised in ((0, 3), (2, 1)):
        made = quantised_products(graph, left_out=left_out)
        assert [node.op_type for node in made.graph.node].count("MatMulInteger") == quantised
        assert cosines(plain, run(made, rows.numpy())).min() > 0.99
