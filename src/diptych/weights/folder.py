"""The files of a bundle's folder: what `config.json` says, and the tensors of `model.safetensors`.

No code of a folder is run: JSON and safetensors alone are read.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from diptych.config import from_dict, to_dict
from diptych.data.images import Preprocess
from diptych.errors import ConfigError, WeightsError
from diptych.files import sha256, write_text
from diptych.model.clip import CLIP, CLIPConfig
from diptych.weights.adapters import HUGGING_FACE, OWN, Naming, config_from_hf

FORMAT_VERSION = 1
CONFIG, WEIGHTS, PREPROCESS, TOKENIZER = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: buffers, not parameters


@dataclass(frozen=True, kw_only=True)
class About:
    """Where a model comes from; every field is for people to read and may be empty."""

    source: str = ""  # who made the weights, with an address
    licence: str = ""  # of the weights
    data: str = ""  # what it was trained on, with its licence
    recipe: str = ""  # the whole recipe as TOML, or where it is
    created: str = ""  # a date


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What a bundle made of the golden inputs when it was saved; features are rounded to 5 digits."""

    tokens: tuple[tuple[int, ...], ...]  # of the golden texts, up to the end token
    image_features: tuple[tuple[float, ...], ...]  # [1, D], of the golden picture
    text_features: tuple[tuple[float, ...], ...]  # [3, D]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Our part of `config.json`."""

    version: int = FORMAT_VERSION
    about: About
    sha256: dict[str, str]  # see `digests`
    golden: Golden


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """What a `config.json` says."""

    model: CLIPConfig
    naming: Naming  # of the tensors in model.safetensors
    block: Block | None  # None in a folder of another library


def read_config(folder: Path) -> BundleConfig:
    """What the `config.json` of a folder says; the weights are not touched.

    Raises:
        WeightsError: the file is missing or damaged, or describes a model of another kind.
    """
    path = folder / CONFIG
    data = _read_json(path)
    kind, plain = data.get("model_type"), data.get("diptych")
    version = plain.get("version") if isinstance(plain, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise WeightsError(f"{path} has format {version}; this diptych reads up to {FORMAT_VERSION}. Update diptych.")
    try:
        if kind == "clip":
            model, naming = config_from_hf(data), HUGGING_FACE
        elif kind == "diptych-clip":
            model, naming = from_dict(CLIPConfig, data.get("model", {}), where="model"), OWN
        else:
            raise ConfigError(f"model_type must be clip or diptych-clip. Got {kind!r}: it is another kind of model.")
        block = None if plain is None else from_dict(_Checked, {"diptych": plain}).diptych
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    return BundleConfig(model=model, naming=naming, block=block)


def write_config(folder: Path, config: Mapping[str, Any], block: Block) -> None:
    """Write `config.json`: the model as plain data, and our block.

    Raises:
        DataError: the file cannot be written.
    """
    text = json.dumps({**config, "diptych": to_dict(block)}, indent=2, ensure_ascii=False, allow_nan=False)
    compact = re.sub(
        r"\[\n([-\d\s.,e]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text
    )  # one line a feature
    write_text(folder / CONFIG, compact + "\n")


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of each tensor in `model.safetensors`, from its header alone.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise WeightsError(f"{folder} must hold {WEIGHTS}, one whole file: neither pickles nor parts of it are read.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Copy or download it again.") from error


def count_parameters(shapes: Mapping[str, Sequence[int]]) -> int:
    """Parameters among tensors of these shapes, as `tensor_shapes` gives them: what is learned, not what is counted."""
    learned = [shape for name, shape in shapes.items() if not name.endswith((*STATISTICS, "position_ids"))]
    return sum(int(np.prod(shape)) for shape in learned)


def read_weights(folder: Path, config: BundleConfig) -> dict[str, Tensor]:
    """A state dict for `CLIP(config.model)`, of the types that are in the file.

    Raises:
        WeightsError: the file is missing or damaged, or its tensors are not those of the model.
    """
    ours = CLIP(config.model).state_dict()  # shapes alone
    expected = config.naming.from_ours(ours)
    _check_fit(folder, expected, tensor_shapes(folder), config.naming)
    theirs = safetensors.torch.load_file(folder / WEIGHTS)
    for name, shape in expected.items():
        if name not in theirs:  # num_batches_tracked: some files leave it out, and nothing is computed from it
            theirs[name] = torch.zeros_like(shape, device="cpu")
        if theirs[name].is_floating_point() != shape.is_floating_point():
            raise WeightsError(f"{folder / WEIGHTS}: {name} must be {shape.dtype} or alike. Got {theirs[name].dtype}.")
    return config.naming.to_ours(theirs, ours)


def read_preprocess(folder: Path) -> Preprocess:
    """The picture recipe of a folder: `preprocessor_config.json`, else a part of `processor_config.json`.

    Raises:
        WeightsError: both are missing, or it asks for what `Preprocess` does not do.
    """
    newer = folder / "processor_config.json"  # where transformers puts it since version 5
    if not (folder / PREPROCESS).exists() and newer.exists():
        return Preprocess.from_hf(_read_json(newer).get("image_processor") or {})
    return Preprocess.from_hf(_read_json(folder / PREPROCESS))


def digests(folder: Path, config: Mapping[str, Any] | None = None) -> dict[str, str]:
    """SHA-256 of each file that decides a feature, empty for one that is missing.

    Args:
        folder: where the files are.
        config: content of `config.json`, read from there when not given; its digest is of a canonical form, without
            our block.
    """
    config = _read_json(folder / CONFIG) if config is None else config
    files = {name: folder / name for name in (WEIGHTS, TOKENIZER, PREPROCESS)}
    canonical = json.dumps({key: value for key, value in config.items() if key != "diptych"}, sort_keys=True)
    return {
        **{name: sha256(path) if path.is_file() else "" for name, path in files.items()},
        CONFIG: hashlib.sha256(canonical.encode()).hexdigest(),
    }


@dataclass(frozen=True, kw_only=True)
class _Checked:
    diptych: Block


def _check_fit(
    folder: Path, expected: Mapping[str, Tensor], found: Mapping[str, Sequence[int]], naming: Naming
) -> None:
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in expected and not re.fullmatch(naming.without_meaning, name)]
    misshapen = [
        f"{name} {list(found[name])} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and list(found[name]) != list(tensor.shape)
    ]
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, kind in ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape"))
        if names
    ]
    if faults:
        raise WeightsError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {', '.join(faults)}. Was it saved from another architecture?"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path.parent} must hold {path.name}, and has none. Is it a bundle's folder?") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} must be JSON: {error}. Copy or download it again.") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} must hold a JSON object. Got {type(data).__name__}: is it another file?")
    return data
