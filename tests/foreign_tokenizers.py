"""Small tokenizers in the form of other models: their special tokens, their splits, their normalisation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "",
    "a photo of a cat",
    "A Photo of THE Dog, it's (small)!",
    "  a\tphoto \n of  a　cat ",
    "café naïve 日本語 🐼 straße",
    "snake_case a-b &amp; <b>",
    "the cat " * 60,
]
PIECES = [
    *((f"▁{word}", -1.0) for word in ("a", "A", "photo", "Photo", "of", "the", "cat", "Dog")),
    *((letter, -6.0) for letter in "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!'()-_&;é"),
]


def template(before: str, after: str, ids: dict[str, int]) -> processors.TemplateProcessing:
    single = " ".join(filter(None, (before, "$A", after)))
    return processors.TemplateProcessing(single=single, special_tokens=[(name, ids[name]) for name in single.split()
                                                                        if name != "$A"])  # fmt: skip


def unigram(special: list[str], before: str, after: str) -> tokenizers.Tokenizer:
    """As XLM-R, T5 and mT5 are: SentencePiece's words, capitals and punctuation kept."""
    backend = tokenizers.Tokenizer(
        models.Unigram(
            [*((name, 0.0) for name in special), *PIECES], unk_id=special.index("<unk>"), byte_fallback=False
        )
    )
    backend.normalizer = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.post_processor = template(before, after, {name: special.index(name) for name in special})
    backend.add_special_tokens(special)
    return backend


def trained(special: list[str], before: str, after: str, *, byte_level: bool) -> tokenizers.Tokenizer:
    """As RoBERTa's (bytes) and Llama's (letters, with bytes to fall back on) are."""
    backend = tokenizers.Tokenizer(
        models.BPE() if byte_level else models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else []
    if byte_level:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [] if byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*special, *bytes_], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    plain = json.loads(backend.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] in special]
    backend = tokenizers.Tokenizer.from_str(json.dumps(plain))
    if before or after:
        backend.post_processor = template(before, after, {name: special.index(name) for name in special})
    return backend


def word_piece() -> tokenizers.Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [chr(code) for code in range(97, 123)]
    vocab = [*special, "photo", "cat", "the", *letters, *(f"##{letter}" for letter in letters), ",", "!", "(", ")", "'"]
    backend = tokenizers.Tokenizer(models.WordPiece({t: i for i, t in enumerate(vocab)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = template("[CLS]", "[SEP]", {"[CLS]": 2, "[SEP]": 3})
    backend.add_special_tokens(special)
    return backend


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>"]
LLAMA = ["<unk>", "<s>", "</s>"]
FOREIGN: dict[str, tuple[Callable[[], tokenizers.Tokenizer], dict[str, Any], tuple[int | None, int, int]]] = {
    "XLM-R": (
        lambda: unigram(ROBERTA, "<s>", "</s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        (0, 2, 1),
    ),
    "RoBERTa": (
        lambda: trained(ROBERTA, "<s>", "</s>", byte_level=True),
        {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}, "pad_token": "<pad>"},
        (0, 2, 1),
    ),
    "T5": (
        lambda: unigram(["<pad>", "</s>", "<unk>"], "", "</s>"),
        {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        (None, 1, 0),
    ),
    "BERT": (word_piece, {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}, (2, 3, 0)),
    "Llama, with its end": (
        lambda: trained(LLAMA, "<s>", "</s>", byte_level=False),
        {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"},
        (1, 2, 0),
    ),
}


def write_tokenizer(folder: Path, backend: tokenizers.Tokenizer, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 24, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
