"""`diptych export`: a model for other engines."""

from pathlib import Path
from typing import Literal

from diptych.cli.models import BY_THE_FILES, ToldOptions
from diptych.errors import ConfigError

# Written out here: --help must not wait for torch. A test holds them to those of the module that uses them.
_Format = Literal["onnx", "openvino", "transformers.js"]
_StoredType = Literal["float32", "float16"]
_Normalise = Literal["inside", "outside"]


def export(
    model: str,
    out: Path,
    *,
    format_: _Format = "onnx",
    dtype: _StoredType = "float32",
    normalise: _Normalise = "inside",
    told: ToldOptions = BY_THE_FILES,
) -> None:
    """Write a model for another engine: a folder that onnxruntime, OpenVINO or transformers.js opens, and diptych too.

    Parameters
    ----------
    model
        A name from `diptych models`, hf:org/name, a folder, or a file of weights.
    out
        A new folder.
    format_
        onnx (graphs that point into the bundle's weights; diptych opens them without torch), openvino (.xml and .bin),
        or transformers.js (graphs in the subfolder onnx, as that library looks for them).
    dtype
        What weights are stored as. transformers.js computes in it, too; the others compute in float32.
    normalise
        Where pixels are normalised: inside the graphs, which then take bytes, or outside, before them.
    """
    from diptych.export.model_folder import export_model
    from diptych.weights.registry import load_in_torch

    if out.exists():
        raise ConfigError(f"{out} must not be there yet. Remove it, or choose another name.")
    export_model(load_in_torch(model, **told.told()), out, format=format_, dtype=dtype, normalise=normalise)
    print(f"{model} -> {out} ({format_}, {dtype})")
