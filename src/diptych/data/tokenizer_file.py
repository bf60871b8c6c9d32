"""What the files of a tokenizer tell: CLIP's merges, or a `tokenizer.json` with its rules, whoever wrote it.

Nothing is guessed from a token's name. What another library does to a text in code, before its `tokenizer.json`, is
told by whoever knows the model, as a `Cleaning`, and becomes part of the rules.
"""

import gzip
import json
import re
import string
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from diptych.errors import WeightsError

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
Cleaning = Literal["file", "siglip", "whitespace", "lower", "canonicalize"]

_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())  # one printable stand-in a byte; CLIP's ids are in this order
SYMBOLS = [*_BYTES, *(byte + END_OF_WORD for byte in _BYTES)]
_WORDS = tokenizers.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
_PUNCTUATION = normalizers.Replace(tokenizers.Regex(f"[{re.escape(string.punctuation)}]"), "")
_SPACE = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
_PYTHONS_SPACE = normalizers.Replace(tokenizers.Regex(r"[\s\x1c-\x1f]+"), " ")  # what str.split() splits at
_OPEN_CLIPS: dict[Cleaning, list[Any]] = {
    "whitespace": [_PYTHONS_SPACE, normalizers.Strip()],
    "lower": [_PYTHONS_SPACE, normalizers.Strip(), normalizers.Lowercase()],
    "canonicalize": [
        normalizers.Replace("_", " "),
        _PUNCTUATION,
        normalizers.Lowercase(),
        _PYTHONS_SPACE,
        normalizers.Strip(),
    ],
}
_SIGLIP_END, _SIGLIP2_END = "</s>", "<eos>"
_SIGLIP_ENDS = {"SiglipTokenizer": _SIGLIP_END, "GemmaTokenizer": _SIGLIP2_END, "Siglip2Tokenizer": _SIGLIP2_END}
_BERTS_NAMES = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]"}
_SAMPLE = " A,\t B_c "  # what any cleaning changes
_MOST_MERGES = 64_000_000  # bytes of a list of merges, unpacked; CLIP's has 3 million
_MOST_GROWTH = 100  # times that rules may make a text longer


def clip_rules(merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's tokenizer from its merges: ids are 256 bytes, 256 bytes that end a word, merges, start, end."""
    vocab: dict[str, int] = {}
    for token in [*SYMBOLS, *map("".join, merges), START, END]:
        vocab.setdefault(token, len(vocab))  # two merges may make the same token
    return _assemble(vocab, merges)


def read_backend(folder: Path, config: Mapping[str, Any], cleaning: Cleaning) -> tokenizers.Tokenizer:
    """The rules in a folder: `tokenizer.json`, else `vocab.json` and `merges.txt`, else BERT's `vocab.txt`.

    Args:
        folder: where the files are.
        config: the content of its `tokenizer_config.json`.
        cleaning: what the model that it comes with does to a text before: "file", nothing; "siglip", what
            `transformers` does for that model; else one of open_clip's. CLIP's own rules have all theirs.

    Raises:
        WeightsError: a file is missing or broken, or its rules would blow a text up.
    """
    whole, vocab, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
    if whole.exists():
        backend = _read_rules(whole)
    elif vocab.exists() and merges.exists():
        backend = _assemble(read_object(vocab), read_merges(merges))
    elif (folder / "vocab.txt").exists():
        backend = _bert_rules(folder / "vocab.txt", config)
    elif (folder / "spiece.model").exists():
        raise WeightsError(
            f"{folder} must hold tokenizer.json, and has the same as spiece.model alone, which is not read. Download "
            "tokenizer.json from where the weights are from."
        )
    else:
        raise WeightsError(f"{folder} must hold tokenizer.json, or vocab.json and merges.txt. Is it a bundle's folder?")
    _check_sides(backend, config, folder)
    if str(config.get("tokenizer_class")).startswith("NllbTokenizer"):
        _name_language(backend, config, folder)
    if backend.token_to_id(START) is None:
        if cleaning == "siglip":
            _complete_siglip(backend, config)
        elif cleaning != "file":
            _clean_first(backend, _OPEN_CLIPS[cleaning])
    return backend


def end_with_padding(backend: tokenizers.Tokenizer) -> None:
    """Put token 0 behind a text, instead of the end token that the rules put there.

    So does open_clip for CLIPA: BERT's end token becomes padding. The name of an end token within a text does not.
    """
    ids = [number for number in backend.encode("").ids if number != (backend.padding or {}).get("pad_id")]
    start, pad = backend.id_to_token(ids[0]) if len(ids) > 1 else "", backend.id_to_token(0)
    around = {token: backend.token_to_id(token) for token in (start, pad) if token}
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {pad}".strip(), special_tokens=list(around.items())
    )


def pad_token_of(backend: tokenizers.Tokenizer, folder: Path, config: Mapping[str, Any], cleaning: Cleaning) -> int:
    """The id that a text is padded with: what the files say, 0 where they are silent."""
    if backend.padding:
        return backend.padding["pad_id"]
    path = folder / "special_tokens_map.json"
    name = _name(config.get("pad_token")) or _name(read_object(path).get("pad_token") if path.exists() else None)
    if not name and cleaning == "siglip" and backend.token_to_id(START) is None:
        name = {_SIGLIP_END: _SIGLIP_END, _SIGLIP2_END: "<pad>"}.get(_siglip_end(backend, config), "")
    return backend.token_to_id(name) or 0 if name else 0


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges in a file, one a line.

    Raises:
        WeightsError: the file cannot be read or is not a list of merges.
    """
    lines = _read(path).splitlines()
    if lines and "#version" in lines[0]:
        lines = lines[1:]
    merges = []
    for line in filter(None, lines):
        match line.split(" "):
            case [first, second]:
                merges.append((first, second))
            case _:
                shown = line if len(line) <= 80 else f"{line[:76]} ..."
                raise WeightsError(f"{path} must hold two symbols a line, one merge. Got {shown!r}.")
    return merges


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        WeightsError: the file cannot be read, or holds something else.
    """
    try:
        data = json.loads(_read(path))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a list in a list in a list ...
        raise WeightsError(f"{path} must be JSON: {error}. Copy or download it again.") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} must hold a JSON object. Got {type(data).__name__}: is it another file?")
    return data


def _read_rules(path: Path) -> tokenizers.Tokenizer:
    text = _read(path)
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        raise WeightsError(f"{path} is not a tokenizer: {error}. Copy or download it again.") from error
    growth = _growth(json.loads(text).get("normalizer") or {})
    if growth > _MOST_GROWTH:
        raise WeightsError(
            f"{path} must not make texts more than {_MOST_GROWTH} times longer, and its replacements make "
            f"{growth:,.0f} letters of one. It is not to be trusted."
        )
    return backend


def _growth(normalizer: Mapping[str, Any]) -> float:
    """How many letters the replacements of a normalizer can make of one, at most."""
    growth, grown = 1.0, ""
    steps = [normalizer]
    while steps:
        step = steps.pop(0)
        steps = [*step.get("normalizers", ()), *steps]
        if step.get("type") == "Prepend":
            growth += len(step.get("prepend", ""))
        if step.get("type") != "Replace":
            continue
        content, pattern = step["content"], step["pattern"]
        literal = pattern.get("String")
        factor = len(content) / max(1, len(literal)) if literal is not None else float(max(1, len(content)))
        if factor <= 1:
            continue
        meets_grown = literal is None or any(letter in grown for letter in literal)
        growth = growth * factor if meets_grown else max(growth, factor)
        grown += content
    return growth


def _check_sides(backend: tokenizers.Tokenizer, config: Mapping[str, Any], folder: Path) -> None:
    for side, of_backend in (("padding_side", backend.padding), ("truncation_side", backend.truncation)):
        if config.get(side, (of_backend or {}).get("direction", "right")) != "right":
            raise WeightsError(
                f"{folder}: {side} of the tokenizer must be right. Got left, for which a CLIP gives one text another "
                "feature in each batch. Set it to right if the model was trained so."
            )


def _name(token: Any) -> str:
    """Of a special token, which the files of `transformers` write as a string or as an object."""
    name = token.get("content") if isinstance(token, Mapping) else token
    return name if isinstance(name, str) else ""


def _siglip_end(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> str:
    """The end token of the SigLIP whose tokenizer this is; empty where it is another kind, which tells all itself."""
    kind = config.get("tokenizer_class")
    if kind is None:  # a lone tokenizer.json; that of SigLIP 2 has "</s>" as well
        return next((end for end in (_SIGLIP2_END, _SIGLIP_END) if backend.token_to_id(end) is not None), "")
    end = _SIGLIP_ENDS.get(str(kind).removesuffix("Fast"), "")
    return end if end and backend.token_to_id(end) is not None else ""


def _complete_siglip(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Give a SigLIP's tokenizer the cleaning and the end token that its file left out."""
    end = _siglip_end(backend, config)
    if not end:
        return
    cleaning: list[Any] = [normalizers.Lowercase()] if config.get("do_lower_case", True) else []
    if end == _SIGLIP_END:
        cleaning += [_PUNCTUATION, _SPACE, normalizers.Strip()]
    _clean_first(backend, cleaning)
    empty = backend.encode("")
    if empty.tokens[: sum(empty.attention_mask)] != [end]:
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, backend.token_to_id(end))]
        )


def _bert_rules(path: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's tokenizer around a list of its words, one a line; where the config is silent, as in `transformers`."""
    vocab = {word: number for number, word in enumerate(_read(path).removesuffix("\n").split("\n"))}
    start, end, unknown, pad = (_name(config.get(f"{name}_token")) or default for name, default in _BERTS_NAMES.items())
    for name in (start, end, unknown, pad):
        if name not in vocab:
            raise WeightsError(f"{path} must hold {name}, as BERT's lists of words do. Is it another kind of list?")
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=bool(config.get("do_lower_case", True)),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    around = [(name, vocab[name]) for name in (start, end)]
    backend.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=around)
    backend.add_special_tokens([start, end, unknown, pad])
    backend.enable_padding(pad_id=vocab[pad], pad_token=pad)
    return backend


def _name_language(backend: tokenizers.Tokenizer, config: Mapping[str, Any], folder: Path) -> None:
    """Put the token of a language before a text, as the library's class does whatever `tokenizer.json` says."""
    if config.get("legacy_behaviour"):
        raise WeightsError(
            f"{folder}: legacy_behaviour of the tokenizer must be false. Got true, which puts the language behind the "
            "end of a text. Set it to false if the model was trained so."
        )
    language, end = config.get("src_lang") or "eng_Latn", _name(config.get("eos_token")) or "</s>"
    ids = [(name, backend.token_to_id(name)) for name in (language, end)]
    if any(number is None for _, number in ids):
        raise WeightsError(
            f"{folder}: src_lang must be a language of the tokenizer, such as eng_Latn. Got {language!r}."
        )
    backend.post_processor = processors.TemplateProcessing(single=f"{language} $A {end}", special_tokens=ids)


def _clean_first(backend: tokenizers.Tokenizer, cleaning: list[Any]) -> None:
    first = normalizers.Sequence(cleaning)
    rest = backend.normalizer or normalizers.Sequence([])
    if rest.normalize_str(first.normalize_str(_SAMPLE)) != rest.normalize_str(_SAMPLE):
        backend.normalizer = normalizers.Sequence([*cleaning, rest])


def _assemble(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's rules around a vocabulary."""
    try:
        backend = tokenizers.Tokenizer(
            models.BPE(
                vocab=vocab, merges=merges, unk_token=END, continuing_subword_prefix="", end_of_word_suffix=END_OF_WORD
            )
        )
        start_id, end_id = vocab[START], vocab[END]
    except Exception as error:  # the library raises bare Exceptions
        raise WeightsError(f"merges and vocabulary do not fit: {error}. Take both from the same model.") from error
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), _SPACE, normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        (END, end_id), (START, start_id), trim_offsets=False, add_prefix_space=False
    )
    backend.add_special_tokens([START, END])
    return backend


def _read(path: Path) -> str:
    try:
        if path.suffix != ".gz":
            return path.read_bytes().decode()
        with gzip.open(path) as file:
            data = file.read(_MOST_MERGES + 1)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Copy or download it again.") from error
    if len(data) > _MOST_MERGES:
        raise WeightsError(f"{path} must unpack to {_MOST_MERGES:,} bytes at most. Got more: it is no list of merges.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} cannot be read: {error}. Copy or download it again.") from error
