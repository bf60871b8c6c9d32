"""Tokenizers of other kinds under a CLIP of `transformers`: the tokens, and the features of its texts, there and here.

    python benchmarks/parity_tokenizers.py

Small stand-ins of five tokenizers, and a CLIP and a MetaCLIP 2 with random weights over each, saved by `transformers`
and opened by `diptych.load`. Writes results/parity_tokenizers.json; docs/parity.md shows it.
"""

import argparse
import datetime
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

import diptych
from diptych.data.images import Preprocess
from diptych.runtime import hardware
from diptych.torch_runtime import generator

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import history
from foreign_tokenizers import FOREIGN, TEXTS, write_tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def measured(name: str, folder: Path, kind: type[Any]) -> dict[str, Any]:
    """How many texts have other tokens, and the largest difference of a value of their unit-length features."""
    backend, tokens, (start, end, pad) = FOREIGN[name]
    ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
    text = {**SIZES, "vocab_size": 700, "max_position_embeddings": 24, **ids}
    vision = {**SIZES, "image_size": 32}
    twin = kind(kind.config_class(text_config=text, vision_config=vision, projection_dim=24)).eval()
    for i, parameter in enumerate(twin.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=generator(i))
    twin.save_pretrained(folder)
    write_tokenizer(folder, backend(), tokens)
    (folder / "preprocessor_config.json").write_text(json.dumps(Preprocess(image_size=32).to_hf()))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = theirs(TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        features = twin.get_text_features(inputs)
    expected = F.normalize(features if isinstance(features, Tensor) else features.pooler_output)
    bundle = diptych.load(folder)
    ours = torch.from_numpy(bundle.tokenizer.encode(TEXTS, truncate=True))
    distance = (torch.from_numpy(bundle.encode_texts(TEXTS, truncate=True)) - expected).abs().max().item()
    return {
        "tokenizer": name,
        "model": kind.__name__,
        "texts": len(TEXTS),
        "texts_with_other_tokens": int((ours != inputs).any(dim=1).sum()),
        "largest_difference": float(f"{distance:.2g}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=history.RESULTS / "parity_tokenizers.json")
    arguments = parser.parse_args()
    rows = []
    for name in FOREIGN:
        for kind in (transformers.CLIPModel, transformers.MetaClip2Model):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measured(name, Path(folder), kind))
                print(json.dumps(rows[-1]), flush=True)
    result = {
        "what": "texts with other tokens; largest difference of unit-length text features; random weights, float32",
        "seed": 0,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")},
        "rows": rows,
    }
    history.write(arguments.out, result, keys=("tokenizer", "model"))


if __name__ == "__main__":
    main()
