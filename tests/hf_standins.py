"""Small models of `transformers` in folders as it saves them, and what must hold of each that opens here."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import Tensor

from diptych.data.images import Preprocess
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.golden import golden_picture
from foreign_tokenizers import FOREIGN, TEXTS, write_tokenizer

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = SIZES | {"image_size": 32, "patch_size": 8}
ALIKE = {"rtol": 0, "atol": 1e-5}


@torch.no_grad()
def drawn(twin: Any, seed: int = 0) -> Any:
    """The same model with parameters in which nothing stays at 0 or 1, so that all of it counts."""
    for i, (name, parameter) in enumerate(sorted(twin.named_parameters())):
        mean = float(any(part in name.lower() for part in ("norm", "_bn.")) and name.endswith("weight"))
        spread = 3.0 * parameter[0].numel() ** -0.5 if parameter.ndim == 4 else 0.2  # convolutions keep the variance
        torch.nn.init.normal_(parameter, mean=mean, std=spread, generator=generator(seed, i))
    for name, buffer in twin.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(0.1)
        if name.endswith("running_var"):
            buffer.fill_(1.5)
    for module in twin.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            torch.nn.init.zeros_(module.weight[module.padding_idx])  # the library does so when it loads them
    return twin.eval()


def text_ids(tokenizer: str) -> dict[str, Any]:
    start, end, pad = FOREIGN[tokenizer][2]
    return {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}


def published(folder: Path, twin: Any, *, tokenizer: str, recipe: dict[str, Any] | None = None) -> Path:
    """A folder as it lies on a hub."""
    twin.save_pretrained(folder)
    backend, tokens, _ = FOREIGN[tokenizer]
    write_tokenizer(folder, backend(), {"model_input_names": ["input_ids", "attention_mask"], **tokens})
    recipe = Preprocess(image_size=32).to_hf() if recipe is None else recipe
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
    return folder


def pictures() -> list[Image.Image]:
    return [golden_picture(), golden_picture().rotate(90, expand=True), Image.new("RGB", (20, 33), "red")]


def feature(output: Any) -> np.ndarray:
    """Of what `get_..._features` gives, unit length."""
    return F.normalize(getattr(output, "pooler_output", output), dim=-1).numpy()


@torch.inference_mode()
def check_same(bundle: Bundle, twin: Any, folder: Path, pixels: Tensor | None = None) -> None:
    """Features of pictures and texts, and the scale, are those of the library with its own tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=20, return_tensors="pt")
    expected = feature(twin.get_text_features(inputs["input_ids"], attention_mask=inputs["attention_mask"]))
    words = bundle.tokenizer.with_context_length(20).encode(TEXTS, truncate=True)
    found = bundle.encode_tokens(words)
    np.testing.assert_allclose(found, expected, **ALIKE)
    assert np.abs(expected[1] - expected[2]).max() > 1e-3  # the texts are told apart
    recipe = bundle.preprocess
    pixels = torch.from_numpy(np.stack([recipe(picture) for picture in pictures()])) if pixels is None else pixels
    expected = feature(twin.get_image_features(pixels))
    np.testing.assert_allclose(bundle.encode_images(pictures()), expected, **ALIKE)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


@torch.inference_mode()
def check_comes_back(bundle: Bundle, twin: Any, folder: Path, tmp_path: Path, *, but: tuple[str, ...] = ()) -> None:
    """A bundle of it is the same model, and the library opens that with the tensors that it came with.

    Args:
        bundle: opened.
        twin: the library's model.
        folder: where it was opened from.
        tmp_path: for the bundle.
        but: beginnings of names of tensors that were left out.
    """
    bundle.save(tmp_path / "ours")
    again = Bundle.load(tmp_path / "ours")
    assert np.array_equal(again.encode_texts(TEXTS, truncate=True), bundle.encode_texts(TEXTS, truncate=True))
    assert np.array_equal(again.encode_images(pictures()), bundle.encode_images(pictures()))
    theirs = type(twin).from_pretrained(tmp_path / "ours", local_files_only=True).eval()
    kept = {name: tensor for name, tensor in twin.state_dict().items() if not name.startswith(but)} if but else None
    for name, tensor in (kept or twin.state_dict()).items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    check_same(again, theirs, tmp_path / "ours")
    words = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert words["model_type"] == twin.config.model_type


def said(caplog: Any) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]
