"""A model as a folder for another engine, which is a bundle too: tokenizer, picture recipe, golden features, seal."""

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

import torch

from diptych.config import unknown_name
from diptych.errors import ConfigError, missing_extra
from diptych.export.one_file import write_graphs
from diptych.export.onnx_graphs import NATIVE, Ports, image_graph, text_graph, to_bytes
from diptych.files import atomic_folder
from diptych.weights.bundle import Bundle
from diptych.weights.graphs import GRAPHS, IMAGE_GRAPH, TEXT_GRAPH
from diptych.weights.saving import check_replaceable, transformers_naming

Format = Literal["onnx", "openvino", "transformers.js"]
StoredType = Literal["float32", "float16"]
Normalise = Literal["inside", "outside"]
_LARGEST = 2**31 - 2**20  # bytes of one ONNX file, which is a protobuf; a little is left for what is no weight
_BY_CLIP = Ports(
    image_input="pixel_values",
    image_output="image_embeds",
    text_input="input_ids",
    text_output="text_embeds",
    takes_bytes=False,
    unit_length=False,
)
_BY_SIGLIP = replace(_BY_CLIP, image_output="pooler_output", text_output="pooler_output")


def export_model(
    bundle: Bundle,
    out: Path,
    *,
    format: Format,
    dtype: StoredType = "float32",
    normalise: Normalise = "inside",
) -> None:
    """Write a model's folder for another engine, whole or not at all; a model's folder that stood there is replaced.

    Args:
        bundle: the model.
        out: where to.
        format: "onnx", `image.onnx` and `text.onnx` that point into `model.safetensors`, which diptych itself opens
            without torch; "openvino", `image.xml` and `text.xml` with a `.bin` each; "transformers.js", its files in
            the subfolder `onnx`.
        dtype: what weights are stored as. In "transformers.js" it is what is computed in, too; elsewhere float32 is.
        normalise: "inside", graphs take bytes of pixels; "outside", they take what `Preprocess.normalise` gives, and
            diptych opens the folder with torch alone. transformers.js normalises by itself, outside.

    Raises:
        ConfigError: the format has no such model, type or form.
        DataError: the folder cannot be written.
        MissingExtraError: an extra for export is not installed.
        WeightsError: the features are not finite, or graphs do not give torch's.
    """
    for value, kind, what in ((format, Format, "a format"), (dtype, StoredType, "a dtype"), (normalise, Normalise, "")):
        if value not in get_args(kind):
            raise ConfigError(unknown_name(value, "", get_args(kind), what or "a place to normalise"))
    check_replaceable(out)
    if format == "transformers.js":
        _check_transformers_js(bundle)
    openvino = _openvino() if format == "openvino" else None
    with atomic_folder(out) as aside:
        bundle.save(aside, dtype=getattr(torch, dtype))
        if format == "transformers.js":
            _write_transformers_js(aside, Bundle.load(aside), dtype)
            return
        write_graphs(aside, ports=NATIVE if normalise == "inside" else replace(NATIVE, takes_bytes=False))
        if openvino is not None:
            # Not by `convert_model`, which reports its use to the makers of OpenVINO.
            for name in (IMAGE_GRAPH, TEXT_GRAPH):
                graph = openvino.Core().read_model(aside / name)
                openvino.save_model(graph, (aside / name).with_suffix(".xml"), compress_to_fp16=dtype == "float16")
                (aside / name).unlink()
            (aside / GRAPHS).unlink(missing_ok=True)


def _check_transformers_js(bundle: Bundle) -> None:
    config = bundle.model.config
    if transformers_naming(config, bundle.tokenizer) is None or config.image.row_width:
        raise ConfigError(
            "transformers.js has no class for CLIP's ResNets, for EfficientNet, NaFlex and sentence towers, nor for "
            "parts of CLIP and SigLIP mixed, tokenizers included. Use the format onnx, which onnxruntime-web opens."
        )


def _write_transformers_js(folder: Path, bundle: Bundle, dtype: StoredType) -> None:
    """The files of its layout; features are not of unit length there."""
    ports = _BY_SIGLIP if bundle.model.config.image.kind == "siglip" else _BY_CLIP
    model = bundle.model if dtype == "float32" else bundle.model.half()
    ending = "_fp16" if dtype == "float16" else ""
    (folder / "onnx").mkdir()
    graphs = {
        "vision_model": image_graph(model, bundle.preprocess, ports),
        "text_model": text_graph(model, ports),
    }
    for name, graph in graphs.items():
        size = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value)
        if size > _LARGEST:
            raise ConfigError(
                f"a graph with its weights must be smaller than 2 GB, and {name} has {size / 1e9:.1f} GB. "
                "Use the format onnx, whose weights lie in a file of their own."
            )
        (folder / "onnx" / f"{name}{ending}.onnx").write_bytes(to_bytes(graph))


def _openvino() -> ModuleType:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise missing_extra("the format openvino", "openvino") from error
