"""`diptych export`: a model for other engines."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts.types import NonNegativeInt

from diptych.cli.console import complain, print_table
from diptych.cli.models import BY_THE_FILES, ToldOptions
from diptych.data.embedded import HELD_OUT, data_path
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.export.int8_folder import InEightBits

# Written out here: --help must not wait for torch. A test holds them to those of the module that uses them.
_Format = Literal["onnx", "openvino", "transformers.js"]
_StoredType = Literal["float32", "float16", "int8"]
_Normalise = Literal["inside", "outside"]


def export(
    model: str,
    out: Path,
    *,
    format_: _Format = "onnx",
    dtype: _StoredType = "float32",
    normalise: _Normalise = "inside",
    data: str = HELD_OUT,
    accept: list[str] | None = None,
    seed: NonNegativeInt = 0,
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
        What weights are stored as. transformers.js computes in it, too; the others compute in float32. In int8, of the
        format onnx alone, products are of integers: about twice as fast, with features that are near, and judged.
    normalise
        Where pixels are normalised: inside the graphs, which then take bytes, or outside, before them.
    data
        For int8: a labelled set, like what the model is for, in any layout that `diptych evaluate zero-shot` reads. On
        some of its pictures scales are found, by others the model is judged. By default drawings.
    accept
        For int8: a measure that may be missed: cosine, worst, found or top1. May be given several times.
    seed
        For int8: of which pictures serve for what.
    """
    from diptych.export.model_folder import export_model
    from diptych.weights.registry import load_in_torch

    if out.exists():
        raise ConfigError(f"{out} must not be there yet. Remove it, or choose another name.")
    bundle = load_in_torch(model, **told.told())
    if dtype != "int8":
        export_model(bundle, out, format=format_, dtype=dtype, normalise=normalise)
        print(f"{model} -> {out} ({format_}, {dtype})")
        return
    if format_ != "onnx" or normalise != "inside":
        raise ConfigError("int8 is of the format onnx, normalised inside. Leave out --format and --normalise.")
    from diptych.export.int8_folder import export_int8
    from diptych.sets.open import read_labelled

    done = export_int8(bundle, out, read_labelled(data_path(data)), accepted=accept or (), seed=seed)
    for measure, sentence in done.faults.items():
        complain(f"accepted, {measure}: {sentence}.")
    _print_report(done, Path(data).name)
    print(f"{model} -> {out} (onnx, int8, {done.megabytes:,.1f} MB)")


def _print_report(done: "InEightBits", data: str) -> None:
    report = done.report
    rows = [
        (f"{one} features", f"{found.mean:.4f}", f"{found.percentile1:.4f}", f"{found.worst:.4f}", f"{found.n:,}")
        for one, found in (("image", report.images), ("text", report.texts))
    ]
    print_table(rows, header=("cosine with float32", "mean", "1 % below", "worst", "n"), numbers=range(1, 5))
    print(f"{report.found:.1%} of the ten best pictures of a text stay among them")
    if (top1 := report.top1) is not None:
        low, high = (100 * bound for bound in (top1.interval.low, top1.interval.high))
        print(f"top-1 on {data}: {top1.a:.1%} before, {top1.b:.1%} in 8 bits ({low:+.1f} to {high:+.1f} points)")
    kept = ", ".join(f"{count} of the {tower} tower" for tower, count in done.left_out.items())
    print(f"layers that stay float32: {kept}")
