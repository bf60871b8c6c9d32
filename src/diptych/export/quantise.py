"""Graphs whose products are of 8-bit integers: faster by half on any processor, and features that are near, not equal.

Convolutions are quantised with scales of their inputs that pictures were run for (static); matrix products of
transformers with scales that are found for each batch (dynamic). Weights have a scale for each output channel.

Processors with AVX2 and without VNNI add two products of bytes in 16 bits and clip what does not fit, so the same graph
would give other features there. Here no two neighbouring weights add up to more than 128, so that nothing is ever
clipped: the scale of each channel is the one that loses least under that rule. The first layers, which see few channels
of many pixels, lose the most by 8 bits: as many of them stay float32 as the features need.
"""

import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import missing_extra

if TYPE_CHECKING:
    import onnx

LEFT_OUT = (0, 2, 3, 4, 6, 8, 12)  # layers that stay float32, tried in this order
_PRODUCTS = ("MatMul", "Gemm")
_MOST = 128  # two neighbouring weights' sum: 255 * 128 fits 16 bits
_FACTORS = np.linspace(1, 2, 11)  # of the scale with which the largest weight of a channel is 127
_CALIBRATED = 4  # pictures a run
_LARGE = 2**17  # values of a weight that is worth storing smaller
_TABLE, _SCALE = "_rows", "_row_scales"
_LARGEST_INTEGER = 2**31 - 128  # that float32 holds, of 32 bits


def quantised_convolutions(graph: "onnx.ModelProto", pixels: np.ndarray, *, left_out: int) -> "onnx.ModelProto":
    """A graph of convolutions with their products in 8 bits.

    Args:
        graph: in float32, its weights inside, whose input is called as it is in `pixels`.
        pixels: [N, ...], what the graph takes; 32 are enough.
        left_out: how many layers of convolutions from the input on stay float32.

    Returns:
        The quantised graph; the one that was given is left as it is.

    Raises:
        MissingExtraError: the extra for export is not installed.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            name = graph.graph.input[0].name
            self._batches = iter(
                [{name: pixels[start : start + _CALIBRATED]} for start in range(0, len(pixels), _CALIBRATED)]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self._batches, None)

    with _quiet(), tempfile.TemporaryDirectory() as name:
        plain, out = Path(name) / "plain.onnx", Path(name) / "int8.onnx"
        simple = _simplified(graph, Path(name))
        onnx.save(simple, str(plain))
        layers = layers_of(simple)
        quantize_static(
            str(plain),
            str(out),
            Pictures(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Clip", "Relu", "Add"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node for node, layer in layers.items() if layer < left_out],
        )
        made = onnx.load(str(out))
    _spare_convolutions(made, simple)
    return made


def quantised_products(graph: "onnx.ModelProto", *, left_out: int) -> "onnx.ModelProto":
    """A graph of a transformer with the products by its weights in 8 bits; see `quantised_convolutions`.

    Args:
        graph: in float32, its weights inside.
        left_out: how many of the last products stay float32: a projection, or a head that looks something up.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), tempfile.TemporaryDirectory() as name:
        plain, out = Path(name) / "plain.onnx", Path(name) / "int8.onnx"
        simple = _simplified(graph, Path(name))
        onnx.save(simple, str(plain))
        weights = {one.name for one in simple.graph.initializer}
        products = [
            node.name
            for node in simple.graph.node
            if node.op_type in _PRODUCTS and weights.intersection(node.input[:2])
        ]
        quantize_dynamic(
            str(plain),
            str(out),
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=products[len(products) - left_out :],
            extra_options={"MatMulConstBOnly": True},
        )
        made = onnx.load(str(out))
    _spare_products(made, simple)
    _shrink(made)
    return made


def outputs(graph: "onnx.ModelProto", batches: Sequence[np.ndarray]) -> np.ndarray:
    """What a graph makes of some batches, [B, D] of all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([np.asarray(session.run(None, {name: batch})[0]) for batch in batches])


def layers_of(graph: "onnx.ModelProto") -> dict[str, int]:
    """Of each convolution by its node's name: how many others lie before it, on the longest way from the input."""
    depth: dict[str, int] = {}
    found: dict[str, int] = {}
    for node in graph.graph.node:
        before = max((depth.get(name, 0) for name in node.input), default=0)
        if node.op_type == "Conv":
            found[node.name] = before
        for name in node.output:
            depth[name] = before + (node.op_type == "Conv")
    return found


def has_convolutions(graph: "onnx.ModelProto") -> bool:
    """Whether most of a graph's products are convolutions: more than the one that makes patches."""
    kinds = Counter(node.op_type for node in graph.graph.node)
    return kinds["Conv"] > kinds["MatMul"] + kinds["Gemm"]


def spare(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights as integers of which no two neighbours of one sign add up to more than 128.

    Args:
        rows: [C, K] float32, a row for each output channel, in the order in which products are added.

    Returns:
        [C, K] int8 and [C] float32: the integers, and the scale of each row, that lose least in squares.
    """
    channels, length = rows.shape
    wide = np.pad(rows, ((0, 0), (0, length % 2)))
    largest = np.abs(wide).max(axis=1) / 127
    unit = np.where(largest > 0, largest, 1.0)
    best = np.zeros(wide.shape, np.int32)
    scales, losses = unit.copy(), np.full(channels, np.inf)
    for factor in _FACTORS:
        scale = unit * factor
        integers = np.clip(np.round(wide / scale[:, None]), -127, 127).astype(np.int32)
        pairs = integers.reshape(channels, -1, 2)
        for sign in (1, -1):
            ahead = np.maximum(sign * pairs, 0)
            excess = np.maximum(ahead.sum(axis=2) - _MOST, 0)
            pairs[..., 0] -= sign * ((excess + 1) // 2)
            pairs[..., 1] -= sign * (excess // 2)
        loss = ((integers * scale[:, None] - wide) ** 2).sum(axis=1)
        is_better = loss < losses
        best[is_better], scales[is_better], losses[is_better] = integers[is_better], scale[is_better], loss[is_better]
    return best[:, :length].astype(np.int8), scales.astype(np.float32)


def _spare_convolutions(made: "onnx.ModelProto", simple: "onnx.ModelProto") -> None:
    """Give the quantised convolutions weights that no processor clips, and biases on their scales."""
    from onnx import numpy_helper

    values = {one.name: one for one in made.graph.initializer}
    floats = {one.name: numpy_helper.to_array(one) for one in simple.graph.initializer}
    plain = {node.name: node for node in simple.graph.node if node.op_type == "Conv"}
    sources = {node.output[0]: node for node in made.graph.node if node.op_type == "DequantizeLinear"}
    known: dict[str, np.ndarray] = {}  # scales of weights that two convolutions share
    for node in made.graph.node:
        if node.op_type != "Conv" or node.input[1] not in sources or _attribute(node, "group", 1) > 1:
            continue  # of depthwise convolutions each channel is summed in 32 bits
        integers, scale, *_ = sources[node.input[1]].input
        before = plain[node.name]
        if integers not in known:
            kernel = floats[before.input[1]]  # [C_out, C_in, h, w]; channels are added first
            by_row, known[integers] = spare(kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1))
            outwards, inwards, height, width = kernel.shape
            by_place = by_row.reshape(outwards, height, width, inwards).transpose(0, 3, 1, 2)
            _set(values[integers], by_place)
            _set(values[scale], known[integers])
        if len(node.input) > 2 and node.input[2] in sources:
            bias, bias_scale, *_ = sources[node.input[2]].input
            of_input = numpy_helper.to_array(values[sources[node.input[0]].input[1]])
            together = (of_input * known[integers]).astype(np.float32)
            steps = np.divide(floats[before.input[2]], together, out=np.zeros_like(together), where=together > 0)
            _set(values[bias], np.round(np.clip(steps, -_LARGEST_INTEGER, _LARGEST_INTEGER)).astype(np.int32))
            _set(values[bias_scale], together)


def _spare_products(made: "onnx.ModelProto", simple: "onnx.ModelProto") -> None:
    """The same for the matrices of products."""
    from onnx import numpy_helper

    values = {one.name: one for one in made.graph.initializer}
    floats = {one.name: numpy_helper.to_array(one) for one in simple.graph.initializer}
    for node in made.graph.node:
        if node.op_type != "MatMulInteger":
            continue
        name = node.input[1].removesuffix("_quantized")
        turned = name.removesuffix("_Transposed")  # as the quantiser calls what a Gemm would have transposed
        by_row, scales = spare(floats[name].T if turned == name else floats[turned])
        _set(values[node.input[1]], by_row.T)
        _set(values[f"{name}_scale"], scales)


def _shrink(made: "onnx.ModelProto") -> None:
    """What stays float32 and is large is stored smaller: tables of rows in 8 bits, other weights in float16."""
    import onnx
    from onnx import helper, numpy_helper

    graph = made.graph
    floats = [one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    large = {one.name: one for one in floats if _count(one) > _LARGE}
    nodes: list[onnx.NodeProto] = []
    halved: set[str] = set()
    tables: set[str] = set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in large and _attribute(node, "axis", 0) == 0:
            name, rows, out = node.input[0], node.input[1], node.output[0]
            if name not in tables:
                tables.add(name)
                table = numpy_helper.to_array(large[name])
                scale = np.abs(table).max(axis=1, keepdims=True) / 127
                integers = np.round(table / np.where(scale > 0, scale, 1)).astype(np.int8)
                graph.initializer.extend(
                    [numpy_helper.from_array(integers, name + _TABLE), numpy_helper.from_array(scale, name + _SCALE)]
                )
            nodes += [
                helper.make_node("Gather", [name + _TABLE, rows], [f"{out}_bytes"], axis=0),
                helper.make_node("Gather", [name + _SCALE, rows], [f"{out}_scale"], axis=0),
                helper.make_node("Cast", [f"{out}_bytes"], [f"{out}_steps"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [f"{out}_steps", f"{out}_scale"], [out]),
            ]
            continue
        halved |= large.keys() & set(node.input)
        nodes.append(node)
    casts = []
    for name in sorted(halved):
        half = numpy_helper.to_array(large[name]).astype(np.float16)
        graph.initializer.append(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    for one in [one for one in graph.initializer if one.name in large]:
        graph.initializer.remove(one)
    del graph.node[:]
    graph.node.extend(casts + nodes)


def _count(value: "onnx.TensorProto") -> int:
    return int(np.prod(value.dims))


def _attribute(node: "onnx.NodeProto", name: str, default: int) -> int:
    return next((one.i for one in node.attribute if one.name == name), default)


def _set(value: "onnx.TensorProto", array: np.ndarray) -> None:
    from onnx import numpy_helper

    value.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), value.name))


def _simplified(graph: "onnx.ModelProto", folder: Path) -> "onnx.ModelProto":
    """The same graph with what is constant computed, and a name for each node."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "simple.onnx")
    options.log_severity_level = 3
    onnx.save(graph, str(folder / "whole.onnx"))
    onnxruntime.InferenceSession(str(folder / "whole.onnx"), options, providers=["CPUExecutionProvider"])
    simple = onnx.load(str(folder / "simple.onnx"))
    for number, node in enumerate(simple.graph.node):
        node.name = f"{node.op_type}_{number}"
    return simple


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Onnxruntime's quantiser advises, and prints; what it says is known here."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise missing_extra("int8", "export") from error
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        logging.disable(level)
