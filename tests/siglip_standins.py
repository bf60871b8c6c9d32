"""Small tokenizers and models in the form in which SigLIP and SigLIP 2 are published."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from diptych.torch_runtime import generator

CAPTIONS = [
    f"{photo} of {article} {size} {thing}."
    for photo in ("a photo", "a blurry photo", "a drawing", "its a sketch", "un café noir")
    for article in ("a", "the", "my")
    for size in ("small", "large", "weird", "2021")
    for thing in ("cat", "dog", "house", "boxer a type of pet", "日本 flag", "panda 🐼")
]
TEXTS = [  # the names of special tokens are left out: transformers' two kinds of tokenizer differ in them
    "",
    "a photo of a cat",
    "  a\tphoto \n of  a　cat ",
    "A Photo Of The DOG!",
    "it's what, they've; 'said'",
    "don’t “curl” quotes",
    "in 2021 there were 1,234.5 ½ ² Ⅷ",
    "café naïve Ångström e\u0301 İstanbul straße",
    "日本語の文章 한국어",
    "👩‍👩‍👧‍👦 family 🐼🐼",
    "!!! ... ---",
    "[\\]^`{|}~ a - b",
    "<b>bold</b> a_b &amp; &lt; #tag @you https://x.org/a?b=1",
    "zero\u200bwidth nbsp\u00a0soft\u00adhyphen \x00 \x07",
    "a ▁ b▁c",
    "the cat " * 60,
]
_UNIGRAM = [  # id, piece, score: "<pad>" is not what the first SigLIP pads with
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    *((f"▁{word}", -1.0) for word in ("a", "photo", "of", "the", "cat", "dog", "blue", "boat")),
    *((letter, -6.0) for letter in "▁abcdefghijklmnopqrstuvwxyzABCDEFG0123456789.,!é"),
]


def write_siglip_tokenizer(
    folder: Path, pieces: list[tuple[str, float]] | None = None, *, charsmap: bytes = b"", lowers: bool = True
) -> None:
    """A tokenizer of the first SigLIP, whose tokenizer.json has neither cleaning nor an end token.

    Args:
        folder: is made.
        pieces: of a SentencePiece model, with their scores.
        charsmap: its normalisation.
        lowers: what `do_lower_case` says.
    """
    backend = tokenizers.Tokenizer(models.Unigram(pieces or _UNIGRAM, unk_id=2, byte_fallback=False))
    steps: list[Any] = [normalizers.Precompiled(charsmap)] if charsmap else []
    steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(tokenizers.Regex(" {2,}"), "▁")]
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens(["</s>", "<unk>"])
    config = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64, "do_lower_case": lowers}
    _write(folder, json.loads(backend.to_str()), config | {"pad_token": "</s>", "eos_token": "</s>"})


def write_siglip2_tokenizer(folder: Path) -> None:
    """A tokenizer of SigLIP 2: Gemma's, which does not lower its letters."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*special, *bytes_, "</s>"], show_progress=False)
    backend.train_from_iterator([*CAPTIONS, *map(str.upper, CAPTIONS)], trainer)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    plain = json.loads(backend.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] in special]
    config = {"tokenizer_class": "GemmaTokenizer", "model_max_length": 64, "padding_side": "right"}
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    _write(folder, plain, config | names | {"add_bos_token": False, "add_eos_token": True})


def siglip_twin(*, vision: dict[str, Any], text: dict[str, Any]) -> transformers.SiglipModel:
    """A model of `transformers` in which nothing stays at 0 or 1, so that all of it counts."""
    ids = {"bos_token_id": None, "eos_token_id": 1}  # their defaults are outside of a small vocabulary
    twin = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=ids | text)).eval()
    for i, (name, parameter) in enumerate(twin.named_parameters()):
        mean = float("norm" in name and name.endswith("weight"))
        torch.nn.init.normal_(parameter, mean=mean, std=0.3, generator=generator(i))
    torch.nn.init.constant_(twin.logit_scale, 4.76)  # as published: above log 100
    torch.nn.init.constant_(twin.logit_bias, -12.9)
    return twin


def _write(folder: Path, backend: dict[str, Any], config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(backend), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
