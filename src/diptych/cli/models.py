"""`diptych models`: which models there are, what one is, one as another library's files, and two averaged."""

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Literal

from cyclopts import App
from cyclopts.types import PositiveInt

from diptych.cli.console import complain, print_table
from diptych.errors import ConfigError

# Written out here: --help must not wait for torch. A test holds them to those of the modules that use them.
_Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
_Format = Literal["bundle", "huggingface", "open_clip", "openai"]
_StoredType = Literal["float32", "float16", "bfloat16", "int8"]

models = App(name="models", help="List the models that --model takes by name, show one, or convert it.")


@models.default
def list_(*, json_: bool = False) -> None:
    """List the models that --model takes by name: those in this package, and those that others published.

    Parameters
    ----------
    json_
        Print JSON.
    """
    from diptych.weights.published import published_models
    from diptych.weights.registry import DEFAULT_MODEL, list_models

    packaged, published = list_models(), published_models()
    if json_:
        plain = {"packaged": [asdict(info) for info in packaged], "published": [asdict(model) for model in published]}
        print(json.dumps(plain, indent=2))
        return
    if packaged:
        print("In this package")
        print_table(
            [
                (
                    info.name + (" (default)" if info.name == DEFAULT_MODEL else ""),
                    f"{info.parameters / 1e6:,.1f} M",
                    f"{info.embed_dim:,}",
                    f"{info.image_size:,} px",
                    f"{info.size / 1e6:,.1f} MB",
                    info.licence,
                )
                for info in packaged
            ],
            header=("--model", "parameters", "embed_dim", "pictures", "on disk", "licence"),
            numbers=range(1, 5),
        )
    else:
        complain("no model ships with this installation. --model also takes a hub name or the folder of a bundle.")
    for (data, licence, source), family in groupby(
        published, key=lambda model: (model.data, model.licence, model.source)
    ):
        print(f"\n{data} | licence: {licence} | ImageNet: {source}")
        print_table(
            [
                (
                    model.name,
                    f"{model.size / 1e9:,.2f} GB",
                    f"{model.imagenet:.1f} %",
                    model.hub,
                )
                for model in family
            ],
            header=("model", "size", "ImageNet", "--model"),
            numbers=(1, 2),
        )


@models.command
def show(
    model: str,
    *,
    activation: _Activation | None = None,
    heads: PositiveInt | None = None,
    json_: bool = False,
) -> None:
    """Tell what the files of a model hold, without building it.

    Parameters
    ----------
    model
        A name from `diptych models`, hf:org/name, a folder, or a file of weights.
    activation
        Of a bare state dict, which does not tell it.
    heads
        Of the image tower of a bare state dict, where they are not 64 channels wide.
    json_
        Print JSON.
    """
    from diptych.weights.registry import model_info

    info = model_info(model, activation=activation, heads=heads)
    if json_:
        print(json.dumps(asdict(info), indent=2))
        return
    facts = {
        "model": info.name,
        "files": info.kind,
        "architecture": info.architecture,
        "parameters": f"{info.parameters:,}",
        "stored as": f"{info.types}, {info.tensors:,} tensors",
        "embed_dim": f"{info.embed_dim:,}",
        "image_size": f"{info.image_size:,} px",
        "tokenizer": info.tokenizer or "none found: pass one on loading",
        "on disk": f"{info.size:,} bytes",
        "source": info.source or "not told",
        "licence": info.licence or "not told",
        "trained on": info.data or "not told",
    }
    print_table(list(facts.items()))


@models.command
def convert(
    model: str,
    out: Path,
    *,
    format_: _Format,
    dtype: _StoredType = "float32",
    activation: _Activation | None = None,
    heads: PositiveInt | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Write a model as another library opens it, or as a bundle of fewer bits.

    Parameters
    ----------
    model
        A name from `diptych models`, hf:org/name, a folder, or a file of weights.
    out
        A new folder; for openai a file that ends in .pt.
    format_
        huggingface (a folder for transformers), open_clip (a folder for local-dir:), openai (a state dict), or bundle
        (a folder for diptych).
    dtype
        What parameters are stored as; int8 for the format bundle alone.
    activation
        Of a bare state dict, which does not tell it.
    heads
        Of the image tower of a bare state dict, where they are not 64 channels wide.
    tokenizer
        A folder with a tokenizer, or a file of CLIP's merges, where none lies beside the weights.
    """
    import torch

    from diptych.weights.convert import save_as
    from diptych.weights.registry import load

    if out.exists():
        raise ConfigError(f"{out} must not be there yet. Remove it, or choose another name.")
    bundle = load(model, activation=activation, heads=heads, tokenizer=tokenizer)
    save_as(bundle, out, format=format_, dtype=getattr(torch, dtype))
    print(f"{model} -> {out} ({format_}, {dtype})")


@models.command
def average(a: str, b: str, *, out: Path, alpha: float = 0.5) -> None:
    """Average the weights of two models of the same sizes, such as one before and after fine-tuning (WiSE-FT).

    Parameters
    ----------
    a
        A name from `diptych models`, hf:org/name, a folder, or a file of weights.
    b
        The other model.
    out
        Folder of the bundle that comes out.
    alpha
        Share of B: 0 gives A, 1 gives B.
    """
    from diptych.weights.average import interpolate
    from diptych.weights.registry import load

    bundle = interpolate(load(a), load(b), alpha)
    bundle.save(out)
    print(f"{1 - alpha:g} x {a} + {alpha:g} x {b} -> {out}")
