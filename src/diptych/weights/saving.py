"""A bundle as a folder: its layouts, how it is written whole, and the check that it still encodes as it did.

The folder of a ViT model is a `transformers` CLIP or SigLIP folder; that of a ResNet, which `transformers` has no class
for, is an `open_clip` folder and has a `config.json` with `model_type: diptych-clip`; so have mixtures that neither
library knows. In all, `config.json` holds our seal: what the bundle is, the SHA-256 of its files, and what it makes of
a few golden inputs.
"""

from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import safetensors.torch
import torch
from torch import Tensor

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError
from diptych.files import atomic_folder, write_json
from diptych.model.clip import CLIP, CLIPConfig
from diptych.weights.adapters import OWN, Naming, config_to_own
from diptych.weights.eight_bit import TableBits, from_eight_bits, to_eight_bits
from diptych.weights.folder import (
    CONFIG,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PREPROCESS,
    STATISTICS,
    WEIGHTS,
    About,
    Golden,
    Seal,
    digests,
    write_config,
)
from diptych.weights.hugging_face import config_to_hf, hugging_face_naming
from diptych.weights.open_clip import config_to_open_clip, fits_open_clip, naming_to_write
from diptych.weights.stored import give_weights

Layout = Literal["bundle", "open_clip"]
_CONFIGS = (CONFIG, OPEN_CLIP_CONFIG)
STORED_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


class Savable(Protocol):
    """What this file asks of a bundle."""

    @property
    def model(self) -> CLIP: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def about(self) -> About: ...


def check_replaceable(folder: Path) -> None:
    """Refuse a folder with other things than a model in it.

    Raises:
        DataError: what stands there is no model's.
    """
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in _CONFIGS):
        raise DataError(f"{folder} must be a model's folder, be empty or absent: what is in it would be replaced.")


def stored_weights(model: CLIP, dtype: torch.dtype, table_bits: TableBits = 8) -> dict[str, Tensor]:
    """A model's state dict as it is stored; batch norm's statistics and the logit scale stay float32.

    Raises:
        ConfigError: dtype is none of float32, float16, bfloat16, int8; or a table of 4 bits is asked for beside others.
    """
    if dtype not in STORED_TYPES:
        raise ConfigError(f"weights are stored as {', '.join(map(str, STORED_TYPES))}. Got {dtype}.")
    if table_bits not in get_args(TableBits) or (table_bits == 4 and dtype != torch.int8):
        raise ConfigError(f"a table of tokens has 8 bits, or 4 where dtype is int8. Got {table_bits} beside {dtype}.")

    def stored(name: str, tensor: Tensor) -> Tensor:
        # Half a per cent of the logit scale is lost in bfloat16, and a variance may be beyond float16.
        whole = name.endswith(STATISTICS) or tensor.ndim == 0
        tensor = tensor.detach().cpu()
        whole = whole or dtype == torch.int8
        return tensor if not tensor.is_floating_point() else tensor.to(torch.float32 if whole else dtype)

    weights = {name: stored(name, tensor) for name, tensor in model.state_dict().items()}
    return to_eight_bits(weights, table_bits=table_bits) if dtype == torch.int8 else weights


def as_stored(config: CLIPConfig, weights: dict[str, Tensor]) -> CLIP:
    """The model that will be read from what `stored_weights` gave."""
    model = CLIP(config)
    give_weights(model, from_eight_bits(weights))
    return model


def write_folder(
    folder: Path, bundle: Savable, weights: dict[str, Tensor], golden: Golden, *, layout: Layout, dtype: torch.dtype
) -> None:
    """Write a bundle's folder, whole or not at all; one that stood there is replaced.

    Args:
        folder: where to.
        bundle: what is saved.
        weights: what `stored_weights` gave.
        golden: what the model makes of the golden inputs as it is stored, so that a check on load need not allow for
            the rounding of its weights.
        layout: see `Bundle.save`.
        dtype: what parameters are stored as.

    Raises:
        ConfigError: open_clip has no such model or dtype.
        DataError: the folder cannot be written.
    """
    naming, weights_name, configs = _files(bundle, layout, dtype)
    with atomic_folder(folder) as aside:
        # Through bytes: the file writer of safetensors does not say that a disk is full.
        (aside / weights_name).write_bytes(safetensors.torch.save(naming.from_ours(weights), metadata={"format": "pt"}))
        bundle.tokenizer.save(aside, masks_padding=not bundle.model.config.text.reads_padding)
        write_json(aside / PREPROCESS, bundle.preprocess.to_hf())
        for name, config in configs.items():
            write_json(aside / name, config)
        digest = digests(aside, sorted(path.name for path in aside.iterdir()))
        first = next(iter(configs))
        seal = Seal(about=bundle.about, sha256=digest, golden=golden).sealed()
        write_config(aside / first, configs[first], seal)


def transformers_naming(config: CLIPConfig, tokenizer: Tokenizer) -> Naming | None:
    """The names with which `transformers` opens a model with its tokenizer; None when it cannot."""
    # Where the padding is read, it counts that CLIP's tokenizer there pads with the end token alone.
    pads_otherwise = tokenizer.start_token_id is not None and tokenizer.pad_token_id != tokenizer.end_token_id
    return None if config.text.reads_padding and pads_otherwise else hugging_face_naming(config)


def config_file(config: CLIPConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a bundle's `config.json`, without the seal."""
    if transformers_naming(config, tokenizer) is None:
        return _own_config_file(config)
    return config_to_hf(
        config,
        start_token_id=tokenizer.start_token_id,
        end_token_id=tokenizer.end_token_id,
        vocab_size=tokenizer.vocab_size,
    )


def _files(bundle: Savable, layout: Layout, dtype: torch.dtype) -> tuple[Naming, str, dict[str, dict[str, Any]]]:
    """The names of the tensors, that of their file, and the config files; the seal goes into the first."""
    config = bundle.model.config
    if layout == "open_clip":
        if dtype == torch.int8:
            raise ConfigError("open_clip opens no weights in 8 bits. Save them in bfloat16, or as a bundle.")
        foreign = config_to_open_clip(config, bundle.preprocess)
        return naming_to_write(config), OPEN_CLIP_WEIGHTS, {OPEN_CLIP_CONFIG: foreign}
    if dtype == torch.int8:
        return OWN, WEIGHTS, {CONFIG: _own_config_file(config) | {"dtype": "int8"}}
    own = {CONFIG: config_file(config, bundle.tokenizer) | {"dtype": str(dtype).removeprefix("torch.")}}
    if naming := transformers_naming(config, bundle.tokenizer):
        return naming, WEIGHTS, own
    if config.head == "softmax" and fits_open_clip(config):
        foreign = config_to_open_clip(config, bundle.preprocess)
        return naming_to_write(config), WEIGHTS, own | {OPEN_CLIP_CONFIG: foreign}
    return OWN, WEIGHTS, own


def _own_config_file(config: CLIPConfig) -> dict[str, Any]:
    return {"model_type": "diptych-clip", "model": config_to_own(config)}
