"""Graphs that lie beside a bundle's weights and point into them: a second engine, and nothing is stored twice.

`image.onnx` and `text.onnx` hold operations alone. Each parameter is external data, a place in `model.safetensors`, in
the layout and the type that the file has it in; what is left to do with it (a transpose, a factor for each row of 8-bit
numbers) are operations on constants, which an engine carries out once, when it opens the graph.
"""

import dataclasses
import functools
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diptych.config import to_dict
from diptych.errors import WeightsError
from diptych.export.onnx_graphs import NATIVE, OPSET, Ports, image_graph, text_graph, to_bytes
from diptych.files import atomic_file, sha256, write_json
from diptych.version import __version__
from diptych.weights.adapters import Naming
from diptych.weights.bundle import Bundle
from diptych.weights.folder import OPEN_CLIP_CONFIG, SCALE, TABLE_GROUP, WEIGHTS
from diptych.weights.golden import golden_picture
from diptych.weights.graphs import GRAPHS, IMAGE_GRAPH, TEXT_GRAPH, Graphs, WeightsFile
from diptych.weights.onnx_towers import OnnxTowers
from diptych.weights.open_clip import plain_names

if TYPE_CHECKING:
    import onnx_ir

TOLERANCE = 1e-4  # distance between unit vectors; rounding makes 1e-6, a wrong graph 1e-2 and more
_TYPES = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16", "I8": "INT8", "U8": "UINT8"}  # of safetensors, in ONNX


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor lies in a file of safetensors."""

    dtype: str
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the file
    length: int  # bytes


def write_graphs(folder: Path, *, ports: Ports = NATIVE) -> None:
    """Put the graphs of a bundle into its folder: image.onnx, text.onnx and, when these stand, graphs.json.

    Args:
        folder: of a bundle, as `Bundle.save` writes it.
        ports: of the graphs. Of others than the native ones there is no graphs.json: diptych does not open them.

    Raises:
        ConfigError: a tower comes from outside the package.
        DataError: the folder cannot be written.
        MissingExtraError: the extra for export is not installed.
        WeightsError: the folder is no bundle's, or the graphs give other features than torch does.
    """
    bundle = Bundle.load(folder)
    places = read_places(folder / WEIGHTS)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        places = plain_names(places)
    (folder / GRAPHS).unlink(missing_ok=True)
    image = image_graph(bundle.model, bundle.preprocess, ports)
    for name, graph in ((IMAGE_GRAPH, image), (TEXT_GRAPH, text_graph(bundle.model, ports))):
        point_into(graph, places, bundle.naming)
        with atomic_file(folder / name) as aside:
            aside.write_bytes(to_bytes(graph))
    if ports != NATIVE:
        return
    try:
        write_json(folder / GRAPHS, to_dict(_whole_facts(folder, bundle, places)))
        check_towers(OnnxTowers(folder), bundle)
    except BaseException:
        (folder / GRAPHS).unlink(missing_ok=True)
        raise


def check_towers(towers: OnnxTowers, bundle: Bundle) -> None:
    """Refuse graphs that give other features of the golden inputs than torch does.

    Args:
        towers: of the graphs.
        bundle: in torch.

    Raises:
        WeightsError: they are further apart than rounding explains.
    """
    pixels = bundle.preprocess.pixels(golden_picture())
    batch = np.stack([pixels, pixels[::-1], pixels]) if pixels.ndim == 3 else np.stack([pixels] * 3)
    texts = bundle.model.config.text.golden_texts
    tokens = bundle.tokenizer.encode(texts, truncate=True)
    with torch.inference_mode():
        of_texts = bundle.model.encode_text(torch.from_numpy(tokens)).numpy()
    pairs = [
        ("image", towers.encode_pixels(batch), bundle.encode_pixels(batch)),
        ("text", towers.encode_tokens(tokens), of_texts),
    ]
    for tower, given, expected in pairs:
        apart = float(np.linalg.norm(given - expected, axis=1).max())
        if not apart <= TOLERANCE:
            raise WeightsError(
                f"the graph of the {tower} tower must give torch's features, and is {apart:.2g} off. "
                "This is a fault of diptych or of torch: please report it with the model's config.json."
            )


def read_places(path: Path) -> dict[str, Place]:
    """Where each tensor of a file of safetensors lies.

    Raises:
        WeightsError: it is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        places = {}
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                places[name] = Place(
                    dtype=entry["dtype"], shape=tuple(entry["shape"]), offset=8 + size + start, length=end - start
                )
    except (OSError, ValueError, struct.error, LookupError, TypeError) as error:
        raise WeightsError(f"{path} must be a file of safetensors: {error}. Copy or download it again.") from error
    return places


def point_into(model: "onnx_ir.Model", places: Mapping[str, Place], naming: Naming) -> None:
    """Let the parameters of a graph be places in a file of weights, which lies beside it.

    Args:
        model: a graph whose parameters have our names; it is changed.
        places: of the file's tensors.
        naming: of the file's tensors.
    """
    import onnx_ir

    graph, writer = model.graph, _Writer(model, places)
    for value in list(graph.initializers.values()):
        if value.name is None or not value.name.startswith(f"{graph.name}."):
            continue  # a constant of the graph's own
        row, names = naming.look_up(value.name)
        del graph.initializers[value.name]
        if (
            len(names) == 1
            and not row.transposed
            and not (row.boxed or row.trailing)
            and (writer.gathers(value, names[0]) or writer.multiplies(value, names[0]))
        ):
            continue
        parts = [writer.part(name, boxed=row.boxed, trailing=row.trailing) for name in names]
        whole = parts[0] if len(parts) == 1 else writer.node("Concat", parts, axis=0)
        onnx_ir.convenience.replace_all_uses_with(value, writer.node("Transpose", [whole]) if row.transposed else whole)


class _Writer:
    """Puts parameters, and what is done with them, at the beginning of a graph."""

    def __init__(self, model: "onnx_ir.Model", places: Mapping[str, Place]) -> None:
        self._graph, self._places = model.graph, places
        self._first = model.graph[0]

    def part(self, name: str, *, boxed: int, trailing: int) -> "onnx_ir.Value":
        """A tensor of the file as float32."""
        import onnx_ir

        shape = self._places[name].shape
        shape = shape[boxed : len(shape) - trailing]
        value = self._external(name, shape)
        match self._places[name].dtype:
            case "F32":
                return value
            case "I8":
                return self.node("DequantizeLinear", [value, self._external(name + SCALE, shape[:1])], axis=0)
            case _:
                return self.node("Cast", [value], to=onnx_ir.DataType.FLOAT)

    def gathers(self, value: "onnx_ir.Value", name: str) -> bool:
        """Where rows are looked up in a table that is no float32, make floats of these rows alone, not of the table.

        Returns:
            Whether it is such a table.
        """
        import onnx_ir

        users = [user for user, _ in value.uses()]
        dtype, shape = self._places[name].dtype, self._places[name].shape
        if dtype == "F32" or any(user.op_type != "Gather" or user.inputs[0] is not value for user in users):
            return False
        for user in users:
            rows = user.inputs[1]
            assert rows is not None
            self._first = user
            found = self.node("Gather", [self._external(name, shape), rows], axis=0)
            found = self.node("Cast", [found], to=onnx_ir.DataType.FLOAT)
            if dtype == "I8":
                factors = self.node("Gather", [self._external(name + SCALE, (shape[0], 1)), rows], axis=0)
                found = self.node("Mul", [found, factors])
            elif dtype == "U8":
                groups = self._external(name + SCALE, self._places[name + SCALE].shape)
                found = self._of_four_bits(found, self.node("Gather", [groups, rows], axis=0))
            onnx_ir.convenience.replace_all_uses_with(user.outputs[0], found)
            self._graph.remove(user)
        self._first = self._graph[0]
        return True

    def _of_four_bits(self, pairs: "onnx_ir.Value", factors: "onnx_ir.Value") -> "onnx_ir.Value":
        """Rows [B, L, W / 2] of two numbers a byte, as floats, to [B, L, W]; see `diptych.weights.eight_bit`.

        By arithmetic: not every engine shifts bytes.
        """
        import onnx_ir

        number = functools.partial(self.node, "Constant", [])
        high = self.node("Floor", [self.node("Mul", [pairs, number(value_float=1 / 16)])])
        low = self.node("Sub", [pairs, self.node("Mul", [high, number(value_float=16.0)])])
        steps = self.node("Sub", [self.node("Concat", [low, high], axis=-1), number(value_float=8.0)])
        steps = self.node("Reshape", [steps, number(value_ints=[0, 0, -1, TABLE_GROUP])])
        factors = self.node("Cast", [factors], to=onnx_ir.DataType.FLOAT)
        factors = self.node("Unsqueeze", [factors, number(value_ints=[3])])
        return self.node("Reshape", [self.node("Mul", [steps, factors]), number(value_ints=[0, 0, -1])])

    def multiplies(self, value: "onnx_ir.Value", name: str) -> bool:
        """Where products run over the rows of a matrix of bytes, multiply by the rows' factors before.

        OpenVINO 2026.4 takes the factors of such a matrix as those of its columns.

        Returns:
            Whether it is such a matrix.
        """
        users = [user for user, _ in value.uses()]
        dtype, shape = self._places[name].dtype, self._places[name].shape
        if dtype != "I8" or any(user.op_type != "MatMul" or user.inputs[1] is not value for user in users):
            return False
        one = self.node("Constant", [], value_float=1.0)
        whole = self.node("DequantizeLinear", [self._external(name, shape), one])
        factors = self._external(name + SCALE, shape[:1])
        for user in users:
            other = user.inputs[0]
            assert other is not None
            self._first = user
            user.replace_input_with(0, self.node("Mul", [other, factors]))
            user.replace_input_with(1, whole)
        self._first = self._graph[0]
        return True

    def node(self, operation: str, inputs: Sequence["onnx_ir.Value"], **attributes: Any) -> "onnx_ir.Value":
        """One more operation."""
        import onnx_ir

        node = onnx_ir.node(operation, inputs, attributes)
        self._graph.insert_before(self._first, node)
        node.name = ""
        return node.outputs[0]

    def _external(self, name: str, shape: tuple[int, ...]) -> "onnx_ir.Value":
        """A tensor as it lies in the file."""
        import onnx_ir

        if name in self._graph.initializers:
            return self._graph.initializers[name]
        place = self._places[name]
        dtype = onnx_ir.DataType[_TYPES[place.dtype]]
        tensor = onnx_ir.ExternalTensor(
            WEIGHTS, place.offset, place.length, dtype, shape=onnx_ir.Shape(shape), name=name
        )
        value = onnx_ir.Value(name=name, shape=onnx_ir.Shape(shape), type=onnx_ir.TensorType(dtype), const_value=tensor)
        self._graph.initializers[name] = value
        return value


def facts_of(bundle: Bundle) -> Graphs:
    """What a reader of a model's graphs must know, but for the files."""
    config, bias = bundle.model.config, bundle.model.logit_bias
    return Graphs(
        embed_dim=config.embed_dim,
        head=config.head,
        logit_scale=bundle.logit_scale,
        logit_bias=None if bias is None else bias.item(),
        image_size=config.image.image_size,
        row_width=config.image.row_width,
        context_length=config.text.context_length,
        reads_padding=config.text.reads_padding,
        golden_texts=config.text.golden_texts,
        fingerprint=bundle.fingerprint(),
        dtype="float32",
        opset=OPSET,
        producer=f"diptych {__version__}, torch {torch.__version__}",
        sha256={},
    )


def _whole_facts(folder: Path, bundle: Bundle, places: Mapping[str, Place]) -> Graphs:
    weights = folder / WEIGHTS
    kinds = {place.dtype for place in places.values()}
    return dataclasses.replace(
        facts_of(bundle),
        dtype=next((ours for theirs, ours in _DTYPES.items() if theirs in kinds), "float32"),
        sha256={name: sha256(folder / name) for name in (IMAGE_GRAPH, TEXT_GRAPH)},
        weights=WeightsFile(name=WEIGHTS, size=weights.stat().st_size, sha256=sha256(weights)),
    )


_DTYPES = {"I8": "int8", "F16": "float16", "BF16": "bfloat16"}
