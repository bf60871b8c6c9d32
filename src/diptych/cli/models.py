"""`diptych models`: which models there are, what one is, one as another library's files, and two averaged."""

import json
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt, PositiveFloat, PositiveInt

from diptych.cli.console import complain, print_table
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.weights.listing import PackagedModel
    from diptych.weights.published import PublishedModel
    from diptych.weights.untold import Told

# Written out here: --help must not wait for torch. A test holds them to those of the modules that use them.
_Activation = Literal["quick_gelu", "gelu", "gelu_tanh", "relu"]
_Format = Literal["bundle", "huggingface", "open_clip", "openai"]
_StoredType = Literal["float32", "float16", "bfloat16", "int8"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ToldOptions:
    """What the files of a model may leave out. Where they tell it themselves, it is refused.

    Parameters
    ----------
    activation
        Of a bare state dict, which does not tell it.
    heads
        Of the image tower of a bare state dict, where they are not 64 channels wide.
    tokenizer
        A folder with a tokenizer, or a file of CLIP's merges, where none lies beside the weights.
    mean
        Of red, green and blue in [0, 1], three numbers that pictures are normalised with.
    std
        Likewise, three numbers.
    resize
        Pictures to the tower's size: shortest (the shorter side, then a crop in the middle) or squash (both sides).
    interpolation
        Of the resize.
    end_token
        The id at which the text tower is read; by default the highest of a text.
    state_dict
        Which model of a checkpoint that holds several, such as one and its average.
    """

    activation: _Activation | None = None
    heads: PositiveInt | None = None
    tokenizer: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    resize: Literal["shortest", "squash"] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    end_token: NonNegativeInt | None = None
    state_dict: str | None = None

    def told(self) -> "Told":
        """As `load` takes them."""
        return cast("Told", {field.name: getattr(self, field.name) for field in fields(self)})


BY_THE_FILES = ToldOptions()

models = App(name="models", help="List the models that --model takes by name, show one, or convert it.")


@models.default
def list_(
    *,
    family: str | None = None,
    licence: str | None = None,
    max_size: PositiveFloat | None = None,
    json_: bool = False,
) -> None:
    """List the models that --model takes by name: those in this package, and those that others published.

    Parameters
    ----------
    family
        Of the published ones, such as SigLIP or OpenCLIP.
    licence
        Of the published ones: a part of its name, such as MIT.
    max_size
        Of the published ones: GB of the weights at float32.
    json_
        Print JSON.
    """
    from diptych.weights.listing import choose_published, list_packaged

    published = choose_published(family=family, licence=licence, max_size=max_size)
    packaged = [] if family or licence or max_size else list_packaged()
    refusals = _refusals(published)
    if json_:
        told = [{**asdict(model), "refusal": refusals and refusals.get(model.hub, "")} for model in published]
        print(json.dumps({"packaged": [asdict(model) for model in packaged], "published": told}, indent=2))
        return
    if packaged:
        _print_packaged(packaged)
    elif not (family or licence or max_size):
        complain("no model ships with this installation. --model also takes a hub name or the folder of a bundle.")
    for group, models_of_it in groupby(
        published, key=lambda model: (model.family, model.data, model.licence, model.source)
    ):
        _print_family(group, list(models_of_it), refusals)
    if refusals is None:
        print("\nOpening a published model needs torch: pip install 'diptych[torch]'.")
    elif published:
        count = sum(model.hub not in refusals for model in published)
        print(f"\n{count:,} of {len(published):,} open. diptych models --json says why another does not.")


def _refusals(published: "list[PublishedModel]") -> dict[str, str] | None:
    """By hub name; None where torch is not installed, without which none of them opens."""
    try:
        from diptych.weights.verdict import refusals
    except ImportError:
        return None
    return refusals(published)


def _print_packaged(packaged: "list[PackagedModel]") -> None:
    from diptych.weights.packaged import DEFAULT_MODEL

    print("In this package")
    print_table(
        [
            (
                model.name + (" (default)" if model.name == DEFAULT_MODEL else ""),
                f"{model.parameters / 1e6:,.1f} M",
                f"{model.embed_dim:,}",
                f"{model.image_size:,} px",
                f"{model.size / 1e6:,.1f} MB",
                model.licence,
            )
            for model in packaged
        ],
        header=("--model", "parameters", "embed_dim", "pictures", "on disk", "licence"),
        numbers=range(1, 5),
    )


def _print_family(
    group: tuple[str, str, str, str], published: "list[PublishedModel]", refusals: dict[str, str] | None
) -> None:
    family, data, licence, source = group
    figures = f" | ImageNet: {source}" if source else ""
    print(f"\n{family}: {data}\nlicence: {licence}{figures}")
    print_table(
        [
            (
                model.hub,
                "-" if model.size is None else f"{model.size / 1e9:,.2f} GB",
                "-" if model.imagenet is None else f"{model.imagenet:.1f} %",
                *(() if refusals is None else ("no" if model.hub in refusals else "yes",)),
            )
            for model in published
        ],
        header=("--model", "size", "ImageNet", *(() if refusals is None else ("opens",))),
        numbers=(1, 2),
    )


@models.command
def show(
    model: str,
    *,
    told: ToldOptions = BY_THE_FILES,
    json_: bool = False,
    recipe: bool = False,
) -> None:
    """Tell what the files of a model hold, without building it.

    Parameters
    ----------
    model
        A name from `diptych models`, hf:org/name, a folder, or a file of weights.
    json_
        Print JSON.
    recipe
        Print a recipe for `diptych train` that fine-tunes the model on pairs in the folder "pairs" beside the recipe.
    """
    if recipe:
        from diptych.config import to_toml
        from diptych.train.recipe import recipe_of
        from diptych.train.start import fine_tuning

        print(to_toml(recipe_of(fine_tuning(model))), end="")
        return
    from diptych.weights.registry import model_info

    info = model_info(model, **told.told())
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
        "pictures": f"{info.recipe} ({info.origins['picture recipe']})",
        "end token": f"{info.end_token} ({info.origins['end token']})",
        "activation": info.origins["activation"],
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
    table_bits: Literal[8, 4] = 8,
    told: ToldOptions = BY_THE_FILES,
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
    table_bits
        Beside int8: bits of a number in the table of tokens, which makes up most of a multilingual model.
    """
    import torch

    from diptych.weights.convert import save_as
    from diptych.weights.registry import load_in_torch

    if out.exists():
        raise ConfigError(f"{out} must not be there yet. Remove it, or choose another name.")
    bundle = load_in_torch(model, **told.told())
    save_as(bundle, out, format=format_, dtype=getattr(torch, dtype), table_bits=table_bits)
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
    from diptych.weights.registry import load_in_torch

    bundle = interpolate(load_in_torch(a), load_in_torch(b), alpha)
    bundle.save(out)
    print(f"{1 - alpha:g} x {a} + {alpha:g} x {b} -> {out}")
