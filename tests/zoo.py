"""Stand-ins for published models of open_clip, at small width: for test_zoo.py and benchmarks/parity_zoo.py.

A file of `tests/zoo/` says how open_clip would describe such a model, and keeps what open_clip itself made of it: the
names and shapes of its tensors, and features. Weights, pixels and tokens are made by a rule from their names alone, so
that no file of weights is kept, and both sides have the same.
"""

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.data.tokenizer import Tokenizer

FOLDER = Path(__file__).parent / "zoo"
BATCH = 2
VOCAB_SIZE = 520  # of the tokenizer that goes with all; the model's is no smaller
TOLERANCE = 1e-5  # of unit-length features, float32
_GAIN = 1.5  # standard deviation of a layer's outputs for inputs of 1: softmax and activations work off their middle
_SMALL = ("embed", "token", "probe", "latent", "pos", "query")  # so that the epsilon of the norm that reads them shows


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """One small model, as its file tells it.

    Attributes:
        family: of models, for tables.
        model_cfg: of an `open_clip_config.json`.
        timm: by the name of an image tower that timm does not have, one that it has (`like`), and the `options` with
            which that one becomes it.
        transformers: by the name of a text encoder that is on no hub, the content of its `config.json`.
        sizes: by module of ours, what is to be added to its table SIZES, so that it knows that name.
        tensors: the names and shapes of open_clip's state dict; empty until benchmarks/parity_zoo.py has recorded it.
        image_features: of `pixels`, [B, D], unit length, by open_clip.
        text_features: of `tokens`, [B, D], unit length, by open_clip.
    """

    family: str
    model_cfg: dict[str, Any]
    timm: dict[str, dict[str, Any]]
    transformers: dict[str, dict[str, Any]]
    sizes: dict[str, dict[str, dict[str, Any]]]
    tensors: dict[str, list[int]]
    image_features: list[list[float]]
    text_features: list[list[float]]


def stand_ins() -> dict[str, StandIn]:
    """All of them by the names of their files."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        empty = {"timm": {}, "transformers": {}, "sizes": {}}
        empty |= {"tensors": {}, "image_features": [], "text_features": []}
        found[path.stem] = StandIn(**empty | json.loads(path.read_text(encoding="utf-8")))
    return found


def pixels(model_cfg: dict[str, Any]) -> Tensor:
    """Normalised pictures, [B, 3, S, S]."""
    side = model_cfg["vision_cfg"].get("image_size", 224)
    return torch.from_numpy(_numbers("pixels", (BATCH, 3, side, side)).astype(np.float32))


def tokens(model_cfg: dict[str, Any]) -> Tensor:
    """Texts of five tokens and of all, [B, L]: an end that is the tokenizer's highest id, and padding behind it."""
    length = model_cfg["text_cfg"].get("context_length", 77)
    ids = np.random.default_rng(zlib.crc32(b"tokens")).integers(3, VOCAB_SIZE - 2, (BATCH, length))
    for row, count in zip(ids, (5, length), strict=True):
        row[count - 1] = VOCAB_SIZE - 1
        row[count:] = _padding(model_cfg)
    return torch.from_numpy(ids)


def tokenizer(model_cfg: dict[str, Any]) -> Tokenizer:
    """One that goes with any of them."""
    length = model_cfg["text_cfg"].get("context_length", 77)
    trained = Tokenizer.train(["a red kite", "a blue boat"] * 3, vocab_size=VOCAB_SIZE, context_length=length)
    return Tokenizer(trained._backend, context_length=length, pad_token_id=_padding(model_cfg))


def _padding(model_cfg: dict[str, Any]) -> int:
    """The token that the text tower takes for padding: 1 of RoBERTa's and NLLB's kinds."""
    name = model_cfg["text_cfg"].get("hf_model_name", "")
    return int("roberta" in name or "nllb" in name)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor by its name: an embedding, the gain or bias of a norm, a statistic of batch norm, or a matrix."""
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.tensor(1)
    if name == "logit_scale":
        return torch.tensor(math.log(1 / 0.07)).reshape(shape)
    if name == "logit_bias":
        return torch.tensor(-10.0).reshape(shape)
    values = _numbers(name, shape)
    if last == "running_var":
        values = 0.5 + np.abs(values)
    elif math.prod(shape) == max(shape, default=1):
        values = float(last in ("weight", "gamma")) + 0.3 * values
    elif any(part in last for part in _SMALL):
        values = 0.02 * values
    else:
        values = _GAIN * math.prod(shape[1:]) ** -0.5 * values
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def _numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
