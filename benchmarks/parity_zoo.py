"""The families of open_clip's models, opened here with equal features: small stand-ins, and one whole model of each.

    make parity                                     (builds .venv-parity first, and runs this beside parity.py)
    python benchmarks/parity_zoo.py --record vit    writes down what open_clip makes of tests/zoo/vit.json
    python benchmarks/parity_zoo.py --size stand-in

open_clip builds each model with random weights; they are saved as it lays them out; diptych opens the folder, both
encode the same pixels and tokens; it is saved as a bundle and as an open_clip folder, which are opened again, by both.
tests/test_zoo.py holds the stand-ins to what was recorded, without open_clip. Writes results/parity_zoo.json;
docs/parity.md shows it.
"""

import argparse
import dataclasses
import datetime
import gc
import importlib
import importlib.metadata
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from diptych.runtime import hardware
from diptych.weights.bundle import Bundle
from diptych.weights.open_clip import plain_names
from diptych.weights.registry import load_in_torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import history
import zoo

# A published model of each family, whole: the one with the fewest parameters where several are alike.
WHOLE = {
    "CLIP": "ViT-B-32",
    "SigLIP": "ViT-B-16-SigLIP",
    "SigLIP 2": "ViT-B-32-SigLIP2-256",
    "CLIPA": "ViT-L-14-CLIPA",
    "CoCa": "coca_ViT-B-32",
    "ConvNeXt": "convnext_base",
    "MobileCLIP": "MobileCLIP2-S0",
    "MobileCLIP (ViT)": "MobileCLIP-B",
    "MobileCLIP 2 (ViT)": "MobileCLIP2-L-14",
    "EVA-CLIP": "EVA02-B-16",
    "PE-Core": "PE-Core-T-16-384",
    "ViTamin": "ViTamin-S",
    "XLM-R": "xlm-roberta-base-ViT-B-32",
    "RoBERTa": "roberta-ViT-B-32",
    "NLLB": "nllb-clip-base",
}
# What the hub says of the text encoders that these name; there is no network here.
_ROBERTA = {
    "model_type": "roberta",
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "roberta-base": {**_ROBERTA, "vocab_size": 50_265},
    "xlm-roberta-base": {**_ROBERTA, "model_type": "xlm-roberta", "vocab_size": 250_002},
    "facebook/nllb-200-distilled-600M": {
        "model_type": "m2m_100",
        "vocab_size": 256_206,
        "d_model": 1024,
        "encoder_layers": 12,
        "decoder_layers": 12,
        "encoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "max_position_embeddings": 1024,
        "scale_embedding": True,
    },
}
DISTRIBUTIONS = ("diptych", "torch", "open_clip_torch", "timm")


def encoder_config(name: str) -> transformers.PretrainedConfig:
    """In place of what would ask the hub."""
    told = dict(ENCODERS[name])
    return transformers.AutoConfig.for_model(told.pop("model_type"), **told)


def build(name: str, model_cfg: dict[str, Any], folder: Path) -> nn.Module:
    """open_clip's own model of a config, with its own first weights."""
    open_clip.hf_model.AutoConfig.from_pretrained = encoder_config
    path = folder / f"{name}.json"
    path.write_text(json.dumps(model_cfg), encoding="utf-8")
    open_clip.add_model_config(path)
    return open_clip.create_model(name, load_weights=False, pretrained_text=False).eval()


def stand_in_model(name: str, stand_in: zoo.StandIn, folder: Path) -> nn.Module:
    """As `build`, at the stand-in's sizes and with weights by the rule."""
    ENCODERS.update(stand_in.transformers)
    for timm_name, told in stand_in.timm.items():
        timm.models.register_model(_small(timm_name, told["like"], told["options"]))
    for module, sizes in stand_in.sizes.items():
        importlib.import_module(module).SIZES.update(sizes)
    model = build(f"stand-in-{name}", stand_in.model_cfg, folder)
    weights = {key: zoo.weight(key, tuple(tensor.shape)) for key, tensor in _weights(model).items()}
    model.load_state_dict(weights, strict=False)
    return model


def _small(name: str, like: str, options: dict[str, Any]) -> Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return timm.create_model(like, pretrained=pretrained, **options | kwargs)

    entry.__name__, entry.__module__ = name, "timm.models.vision_transformer"
    return entry


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and the statistics of batch norm: what is drawn or learned, and not computed from the sizes."""
    learned = {name for name, _ in model.named_parameters()}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in model.state_dict().items() if key in learned or key.endswith(statistics)}


def features(model: nn.Module, model_cfg: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What open_clip makes of the pixels and tokens, [B, D] each, unit length."""
    with torch.inference_mode():
        image = model.encode_image(zoo.pixels(model_cfg))
        text = model.encode_text(zoo.tokens(model_cfg))
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


def ours(folder: Path, model_cfg: dict[str, Any]) -> tuple[Tensor, Tensor, Bundle]:
    """The same by diptych, from a folder that open_clip laid out."""
    bundle = load_in_torch(folder)
    with torch.inference_mode():
        image = bundle.model.encode_image(zoo.pixels(model_cfg))
        text = bundle.model.encode_text(zoo.tokens(model_cfg))
    return image, text, bundle


def lay_out(folder: Path, model: nn.Module, model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any]) -> None:
    """A folder as open_clip's own push to the hub writes it."""
    folder.mkdir()
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    zoo.tokenizer(model_cfg).save(folder)


def difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference."""
    return (a - b).abs().max().item()


def row(name: str, family: str, size: str, model: nn.Module, model_cfg: dict[str, Any], place: Path) -> dict[str, Any]:
    """All that is compared of one model."""
    preprocess_cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    lay_out(place / "theirs", model, model_cfg, preprocess_cfg)
    theirs = features(model, model_cfg)
    image, text, bundle = ours(place / "theirs", model_cfg)
    bundle.save(place / "bundle")
    again = ours(place / "bundle", model_cfg)
    bundle.save(place / "back", layout="open_clip")
    back = plain_names(safetensors.torch.load_file(place / "back" / "open_clip_model.safetensors"))
    weights = plain_names(_weights(model))  # open_clip itself takes both
    returned = open_clip.create_model(f"local-dir:{place / 'back'}").eval()
    from_back = features(returned, model_cfg)
    return {
        "family": family,
        "model": name,
        "size": size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image": difference(image, theirs[0]),
        "text": difference(text, theirs[1]),
        "bundle": max(difference(again[0], image), difference(again[1], text)),
        "tensors_back": sum(key in back and torch.equal(back[key], value) for key, value in weights.items()),
        "tensors": len(weights),
        "back": max(difference(mine, their) for mine, their in zip(from_back, theirs, strict=True)),
    }


def record(name: str) -> None:
    """Write down the names and shapes of a stand-in's tensors, and the features that open_clip gives."""
    stand_in = zoo.stand_ins()[name]
    with tempfile.TemporaryDirectory() as folder:
        model = stand_in_model(name, stand_in, Path(folder))
    image, text = features(model, stand_in.model_cfg)
    told = {key: value for key, value in dataclasses.asdict(stand_in).items() if value}
    told |= {
        "tensors": {key: list(tensor.shape) for key, tensor in _weights(model).items()},
        "image_features": [[round(value, 7) for value in line] for line in image.tolist()],
        "text_features": [[round(value, 7) for value in line] for line in text.tolist()],
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in told.items()]
    (zoo.FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", nargs="+", metavar="NAME", help="stand-ins to be written down; nothing is compared")
    parser.add_argument("--size", choices=("whole", "stand-in"), help="both when not given")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone; no result is written")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "parity_zoo.json")
    arguments = parser.parse_args()
    if arguments.record:
        for name in arguments.record:
            record(name)
        return
    small = {} if arguments.size == "whole" else zoo.stand_ins()
    whole = {} if arguments.size == "stand-in" else WHOLE
    rows = []
    for name in (*small, *whole):
        label = name if name in small else whole[name]
        if arguments.only and label not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            if name in small:
                cfg, family, size = small[name].model_cfg, small[name].family, "stand-in"
                model = stand_in_model(name, small[name], place)
            else:
                cfg, family, size = open_clip.get_model_config(label), name, "whole"
                model = build(f"whole-{label}", cfg, place)
            rows.append(row(label, family, size, model, cfg, place))
        print(json.dumps(rows[-1]), flush=True)
        del model
        gc.collect()
    if arguments.only:
        return
    result = {
        "what": "largest difference of unit-length features; random weights, float32, same inputs",
        "n": zoo.BATCH,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": {name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
        "models": rows,
    }
    history.write(arguments.out, result, keys=("family", "model", "size"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the peers' own
    main()
