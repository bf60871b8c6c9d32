"""The same features as the peers: largest difference to open_clip, the `openai-clip` package and transformers.

    make parity                        (builds .venv-parity first; full size needs 10 GB of memory and a few minutes)
    python benchmarks/parity.py --size stand-in --out FILE

Every model has random weights. The peer builds it and saves it in its own form; `diptych.load` opens that file or
folder; both encode the same pixels and tokens. Then tokens of awkward texts, and pixels of awkward pictures.
Writes results/parity.json; docs/parity.md shows it.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import open_clip
import safetensors.torch
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

import diptych
from diptych.data.embedded import data_path
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.presets import preset
from diptych.pairs.shards import ShardSet
from diptych.runtime import hardware
from diptych.torch_runtime import generator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it uses pkg_resources
    import clip as openai_clip

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import history
from standins import draw, stand_in, transformers_model

SEED, BATCH = 0, 2
MERGES = Path(openai_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
DISTRIBUTIONS = (
    "diptych", "torch", "torchvision", "transformers", "open_clip_torch", "openai-clip", "tokenizers", "pillow", "ftfy",
)  # fmt: skip
# Our preset, and the configuration in open_clip with the same activation.
FAMILIES = {
    "ViT-B-32": "ViT-B-32-quickgelu",
    "ViT-B-16": "ViT-B-16-quickgelu",
    "ViT-L-14": "ViT-L-14-quickgelu",
    "ViT-L-14-336": "ViT-L-14-336-quickgelu",
    "ViT-H-14": "ViT-H-14",
    "RN50": "RN50-quickgelu",
    "RN101": "RN101-quickgelu",
    "RN50x4": "RN50x4-quickgelu",
}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model of another library, and the file or folder that it saved of it."""

    path: Path
    options: dict[str, Any]  # what `diptych.load` must be told beside the path
    encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # [B, D] image and text features, of any length
    log_logit_scale: float


def open_clip_file(name: str, config: CLIPConfig, folder: Path) -> Peer:
    """A bare state dict as .safetensors."""
    sizes = open_clip.get_model_config(FAMILIES[name])
    if config != preset(name):  # a stand-in
        image, text = config.image, config.text
        sizes["embed_dim"] = config.embed_dim
        layers = list(image.layers) if not isinstance(image, ImageTowerConfig) else image.layers
        sizes["vision_cfg"] |= {"width": image.width, "layers": layers}
        sizes["text_cfg"] |= {"width": text.width, "layers": text.layers, "heads": text.heads}
    sizes.pop("custom_text", None)
    model = open_clip.CLIP(**sizes).eval()
    draw_settled(model, model.visual, config.image.image_size)
    path = folder / "open_clip_model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return Peer(
        path=path,
        options={"activation": config.text.activation, "heads": config.image.heads, "tokenizer": MERGES},
        encode=lambda pixels, tokens: (model.encode_image(pixels), model.encode_text(tokens)),
        log_logit_scale=model.logit_scale.item(),
    )


def openai_model(config: CLIPConfig) -> nn.Module:
    image, text = config.image, config.text
    patch_size = image.patch_size if isinstance(image, ImageTowerConfig) else None
    model = openai_clip.model.CLIP(
        config.embed_dim, image.image_size, image.layers, image.width, patch_size,
        text.context_length, text.vocab_size, text.width, text.heads, text.layers,
    ).eval()  # fmt: skip
    draw_settled(model, model.visual, image.image_size)
    return model.half().float()  # `clip` holds float16 while it loads: values that float16 has come through unchanged


def openai_state_dict(_name: str, config: CLIPConfig, folder: Path) -> Peer:
    """The state dict as .pt, in float32."""
    model, path = openai_model(config), folder / "model.pt"
    torch.save(model.state_dict(), path)
    return Peer(
        path=path,
        options={"activation": "quick_gelu", "tokenizer": MERGES},
        encode=lambda pixels, tokens: (model.encode_image(pixels), model.encode_text(tokens)),
        log_logit_scale=model.logit_scale.item(),
    )


def openai_archive(_name: str, config: CLIPConfig, folder: Path) -> Peer:
    """A TorchScript archive in float16, three sizes among its tensors, as OpenAI's files are; `clip.load` opens it."""
    model, path = openai_model(config), folder / "model.pt"
    side, length = config.image.image_size, config.text.context_length
    sizes = {"input_resolution": side, "context_length": length, "vocab_size": config.text.vocab_size}
    for name, value in sizes.items():
        if hasattr(model, name):
            delattr(model, name)  # a plain number
        model.register_buffer(name, torch.tensor(value))
    inputs = (torch.zeros(1, 3, side, side), torch.ones(1, length, dtype=torch.int64))
    torch.jit.trace(model, inputs, check_trace=False).half().save(path)
    theirs, _ = openai_clip.load(str(path), device="cpu")
    return Peer(
        path=path,
        options={"tokenizer": MERGES},
        encode=lambda pixels, tokens: (theirs.encode_image(pixels), theirs.encode_text(tokens)),
        log_logit_scale=theirs.logit_scale.item(),
    )


def transformers_folder(_name: str, config: CLIPConfig, folder: Path) -> Peer:
    """What `save_pretrained` writes, with a tokenizer and a picture recipe beside it."""
    tokenizer, side = Tokenizer.from_merges(MERGES), config.image.image_size
    model = transformers_model(config, bos_token_id=tokenizer.start_token_id, eos_token_id=tokenizer.end_token_id)
    draw(model, SEED)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    square = {"height": side, "width": side}
    transformers.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square).save_pretrained(folder)

    def encode(pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        output = model(pixel_values=pixels, input_ids=tokens)
        return output.image_embeds, output.text_embeds

    return Peer(path=folder, options={}, encode=encode, log_logit_scale=model.logit_scale.item())


def draw_settled(model: nn.Module, visual: nn.Module, image_size: int) -> None:
    """Draw all parameters; batch norm's statistics are then those of a few random pictures."""
    draw(model, SEED)
    norms = [module for module in visual.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean
        visual.train()
        visual(torch.randn(4, 3, image_size, image_size, generator=generator(SEED, 1)))
        visual.eval()


PEERS = {
    "transformers": transformers_folder,
    "open_clip": open_clip_file,
    "openai-clip, state dict": openai_state_dict,
    "openai-clip, archive": openai_archive,
}


def has_class_for(peer: str, config: CLIPConfig) -> bool:
    if peer == "transformers":
        return isinstance(config.image, ImageTowerConfig)
    return not peer.startswith("openai") or config.text.activation == "quick_gelu"


@torch.inference_mode()
def features(peer: str, name: str, size: str) -> dict[str, Any]:
    """The largest differences of one model to its peer."""
    config = preset(name) if size == "whole" else stand_in(preset(name))
    with tempfile.TemporaryDirectory() as folder:
        theirs = PEERS[peer](name, config, Path(folder))
        ours = diptych.load(theirs.path, **theirs.options)
        assert ours.model.config == config
        side = config.image.image_size
        pixels = torch.randn(BATCH, 3, side, side, generator=generator(SEED, 2))
        texts = ["a photo of a cat", "two red kites, 3 blue boats & a dog"]
        tokens = torch.from_numpy(ours.tokenizer.encode(texts))
        image_features, text_features = (
            nn.functional.normalize(some, dim=-1) for some in theirs.encode(pixels, tokens)
        )
        logits = math.exp(theirs.log_logit_scale) * image_features @ text_features.T  # [B, B]
        found = ours.model(pixels, tokens)
    return {
        "model": name,
        "size": size,
        "peer": peer,
        "parameters": sum(parameter.numel() for parameter in ours.model.parameters()),
        "image_features": largest(found.image_features - image_features),
        "text_features": largest(found.text_features - text_features),
        "logits": largest(found.logit_scale * found.image_features @ found.text_features.T - logits),
        # A 1 would hide an error: the features would say nothing of the inputs.
        "cosine_of_images": round((image_features[0] @ image_features[1]).item(), 3),
        "cosine_of_texts": round((text_features[0] @ text_features[1]).item(), 3),
    }


def largest(difference: Tensor) -> float:
    return float(f"{difference.abs().max().item():.2g}")


AWKWARD_TEXTS = [
    *("", " ", "a", "A PHOTO OF A CAT.", "don't we'll they've I'M", "!!! ??? ...", "snake_case", "#a @b $5 50% ^_^"),
    *("3.14159 1,000,000 2024", "\ttabs\nand\r\nlines\u00a0here\u2003there", "word " * 200, "a" * 500),
    *("naïve café", "nai\u0308ve cafe\u0301", "e\u0301\u0301\u0301", "ÀÉÎÕÜ ßẞ İI ı ſ", "Ångström 2 µm", "½ ² Ⅷ ① ٣"),
    *("日本語の文", "한국어", "中文，标点。", "العربية", "हिन्दी", "ไทย", "ελληνικά Σς", "кириллица", "١٢٣ 一二三"),
    *("🙂👨‍👩‍👧🏽🇫🇷", "zero\u200bwidth\u200djoiner\ufeff", "\u202eright to left", "\x00\x07control\x1b[0m"),
    *("“curly” ‘quotes’ it’s", "ﬁne ﬂow", "ｆｕｌｌｗｉｄｔｈ", "cafÃ© â€œmojibakeâ€\x9d"),
    *("&amp;lt;b&amp;gt; &quot;x&quot; &eacute; &#39;", "&amp;amp;amp;"),
    *("<|startoftext|>", "a <|endoftext|> b", "<|ENDOFTEXT|>"),
]
RANDOM_TEXTS, RANDOM_SIZES = 2000, 100
# Unicode that random texts are drawn from, one block a text.
BLOCKS = ((0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x2000, 0x2070), (0x3040, 0x3100), (0x4E00, 0x9FA0))


def token_rows() -> list[dict[str, Any]]:
    """How many texts come out as other tokens than ours, and in how many of those ftfy is the cause."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Tokenizer.from_merges(MERGES)
        ours.save(Path(folder))
        theirs = transformers.CLIPTokenizer.from_pretrained(folder)

    def with_transformers(texts: list[str]) -> Tensor:
        found = theirs(texts, truncation=True, padding="max_length", return_tensors="pt")
        return found.input_ids * found.attention_mask  # they pad with the end token, we with 0

    random = np.random.default_rng(SEED)
    drawn = []
    for _ in range(RANDOM_TEXTS):
        low, high = BLOCKS[random.integers(len(BLOCKS))]
        drawn.append("".join(map(chr, random.integers(low, high, random.integers(1, 25)))))
    captions: set[str] = set()
    for shards in (ShardSet(data_path("embedded:emoji")), ShardSet(data_path("embedded:icons"))):
        for i in range(len(shards)):
            captions |= set(shards[i].parts["txt"].decode().splitlines())
    rows = []
    for kind, texts in (("captions", sorted(captions)), ("awkward", AWKWARD_TEXTS), ("random", drawn)):
        found, of_mended = (ours.encode(some, truncate=True) for some in (texts, list(map(ftfy.fix_text, texts))))
        for peer, tokens in (
            ("open_clip", open_clip.tokenize(texts)),
            ("openai-clip", openai_clip.tokenize(texts, truncate=True).long()),
            ("transformers", with_transformers(texts)),
        ):
            differs = (found != tokens).any(dim=1)
            by_ftfy = differs & (of_mended == tokens).all(dim=1)
            rows.append(
                {
                    "texts": kind,
                    "peer": peer,
                    "n": len(texts),
                    "differ": int(differs.sum()),
                    "by_ftfy": int(by_ftfy.sum()),
                    "otherwise": [texts[i] for i in (differs & ~by_ftfy).nonzero()[:, 0].tolist()],
                }
            )
    return rows


def pixel_rows() -> list[dict[str, Any]]:
    """How far pixels are from ours after resize, crop and normalisation, in 8-bit levels; pictures of noise."""
    random = np.random.default_rng(SEED)
    sizes = [(224, 224), (640, 480), *map(tuple, random.integers(60, 700, (RANDOM_SIZES, 2)).tolist())]
    pictures = [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]
    square = {"height": 224, "width": 224}
    processors = [
        getattr(transformers, name)(size={"shortest_edge": 224}, crop_size=square)
        for name in ("CLIPImageProcessorPil", "CLIPImageProcessor")
    ]
    peers: dict[str, Callable[[Image.Image], Tensor]] = {
        "open_clip": open_clip.image_transform(224, is_train=False),
        "openai-clip": openai_clip.clip._transform(224),
        "transformers, Pillow": lambda picture: processors[0](picture, return_tensors="pt").pixel_values[0],
        "transformers, torchvision": lambda picture: processors[1](picture, return_tensors="pt").pixel_values[0],
    }
    ours = Preprocess(image_size=224)

    def levels(transform: Callable[[Image.Image], Tensor], picture: Image.Image) -> float:
        return largest((transform(picture) - ours(picture)) * torch.tensor(ours.std)[:, None, None] * 255)

    rows = []
    for peer, transform in peers.items():
        by_size = [levels(transform, picture) for picture in pictures]
        rows.append(
            {
                "peer": peer,
                "n": len(pictures),
                "equal": sum(level < 0.01 for level in by_size),
                "within_2_levels": sum(level < 2.01 for level in by_size),
                "grey": levels(transform, pictures[1].convert("L")),
                "palette": levels(transform, pictures[1].quantize(64)),
                "cmyk": levels(transform, pictures[1].convert("CMYK")),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=("whole", "stand-in"), help="both when not given")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "parity.json")
    arguments = parser.parse_args()
    rows = []
    for size in [arguments.size] if arguments.size else ["stand-in", "whole"]:
        for name in FAMILIES:
            for peer in PEERS:
                if has_class_for(peer, preset(name)):
                    rows.append(features(peer, name, size))
                    print(json.dumps(rows[-1]), flush=True)
    result = {
        "what": "largest difference of unit-length features and logits; random weights, float32, same inputs",
        "n": BATCH,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": {name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
        "features": rows,
        "tokens": token_rows(),
        "pixels": pixel_rows(),
    }
    history.write(arguments.out, result, keys=("texts", "model", "size", "peer"))
    print(json.dumps({key: result[key] for key in ("versions", "tokens", "pixels")}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the peers' own
    main()
