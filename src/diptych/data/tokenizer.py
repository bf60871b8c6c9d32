"""Text to tokens, by CLIP's rules: byte-pair merges over cleaned, lower-cased words. SigLIP's tokenizers are read, too.

Everything a text goes through is carried by `tokenizer.json`, so any library that reads that file gives the same
tokens: NFC, lower case, the split into words, single digits and runs of signs, the merges, start and end, truncation
and padding. One step is not: HTML entities are unescaped here, in Python, before. CLIP's mojibake repair (ftfy) is
left out, as in `transformers`: results must not depend on what is installed. So mis-decoded text and curly quotes
keep their own bytes, where CLIP's released code would have mended them.

SigLIP's have no start token, and cleaning of their own: lower case letter by letter, and for the first SigLIP no ASCII
punctuation. Published files may leave it out, as other libraries clean elsewhere; it is then added on loading.

Source: CLIP, arXiv:2103.00020, section 2.4; SigLIP, arXiv:2303.15343; SigLIP 2, arXiv:2502.14786; the released code.
"""

import gzip
import hashlib
import html
import itertools
import json
import re
import string
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from diptych.errors import ConfigError, DataError, TextError, WeightsError
from diptych.files import write_json, write_text

START = "<|startoftext|>"
END = "<|endoftext|>"
SIGLIP_END, SIGLIP2_END = "</s>", "<eos>"
SENTENCE_START, SENTENCE_END = "[CLS]", "[SEP]"
END_OF_WORD = "</w>"
CLIP_MERGES = 48_894  # of the 262,144 in the published file; with 512 byte symbols, start and end: 49,408 tokens

_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())  # one printable stand-in a byte; CLIP's ids are in this order
_SYMBOLS = [*_BYTES, *(byte + END_OF_WORD for byte in _BYTES)]
_WORDS = tokenizers.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
_PUNCTUATION = tokenizers.Regex(f"[{re.escape(string.punctuation)}]")
_SPACE = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
_LONGEST_CONTEXT = 1_000_000  # a larger model_max_length is transformers' way to say that it does not know


class Tokenizer:
    """Texts in, tokens `[B, L]` out; L is `context_length`.

    Args:
        backend: the rules; it is taken over, its truncation and padding are set here.
        context_length: tokens, start and end included.
        pad_token_id: what follows the end token. CLIP's released code pads with 0, `transformers` with the end token;
            features are the same, as attention is causal. SigLIP's is not: there the padding matters.

    Attributes:
        start_token_id: None for SigLIP, which has none.

    Raises:
        ConfigError: context_length has no room for a token between start and end.
        WeightsError: the backend does not put CLIP's start and end tokens around a text, nor SigLIP's end after it.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, context_length: int, pad_token_id: int = 0) -> None:
        if context_length < 3:
            raise ConfigError(f"context_length must be at least 3: start, one token, end. Got {context_length}.")
        backend.no_padding()
        backend.enable_truncation(context_length)
        empty = backend.encode("")
        if empty.tokens not in ([START, END], [SIGLIP_END], [SIGLIP2_END], [SENTENCE_START, SENTENCE_END]):
            raise WeightsError(
                f"the tokenizer must put {START} before and {END} after a text, as CLIP's does, {SIGLIP_END} or "
                f"{SIGLIP2_END} after it, as SigLIP's do, or {SENTENCE_START} before and {SENTENCE_END} after it, as "
                f"BERT's does. It made {empty.tokens} of an empty text: is it of another model?"
            )
        pad_token = backend.id_to_token(pad_token_id)
        if pad_token is None:
            raise WeightsError(f"the pad token must be one of {backend.get_vocab_size()} tokens. Got {pad_token_id}.")
        backend.enable_padding(pad_id=pad_token_id, pad_token=pad_token, length=context_length)
        self.context_length = context_length
        self.pad_token_id = pad_token_id
        self.start_token_id = empty.ids[0] if len(empty.ids) == 2 else None
        self.end_token_id = empty.ids[-1]
        self.vocab_size = backend.get_vocab_size()
        self._is_clip = empty.tokens == [START, END]
        self._backend = backend

    def with_context_length(self, context_length: int) -> "Tokenizer":
        """The same vocabulary for texts of another length.

        Raises:
            ConfigError: there is no room for a token between start and end.
        """
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        return Tokenizer(backend, context_length=context_length, pad_token_id=self.pad_token_id)

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """Tokens of some texts.

        Args:
            texts: B texts; one text goes in as a list of one.
            truncate: cut what is too long; the end token keeps the last place. `count_too_long` tells how many.

        Returns:
            [B, L] int64: start (not SigLIP), text, end, padding. The names of start and end within a text become those
            tokens.

        Raises:
            TextError: a text is too long and `truncate` is not set, or is not a valid string.
        """
        encodings = self._encodings(texts)
        for text, encoding in zip(texts, encodings, strict=True):
            if encoding.overflowing and not truncate:
                parts = [encoding, *encoding.overflowing]
                around = 1 if self.start_token_id is None else 2  # each part has its own start and end
                length = around + sum(sum(part.attention_mask) - around for part in parts)
                raise TextError(
                    f"a text must fit {self.context_length} tokens, start and end included. Got {length} tokens: "
                    f"{_shorten(text)}. Shorten it, or ask for truncation (truncate=True)."
                )
        ids = [encoding.ids for encoding in encodings]
        return torch.tensor(ids, dtype=torch.int64).reshape(len(ids), self.context_length)  # [B, L], also for B = 0

    def count_too_long(self, texts: Sequence[str]) -> int:
        """How many of the texts `encode` refuses, or cuts with `truncate`."""
        return sum(bool(encoding.overflowing) for encoding in self._encodings(texts))

    def decode(self, tokens: Tensor) -> str:
        """The cleaned text of one row of tokens `[L]`, up to its first end token."""
        ids = itertools.takewhile(lambda token: token != self.end_token_id, tokens.tolist())
        return self._backend.decode(list(ids)).replace(END_OF_WORD, " ").strip()

    def fingerprint(self) -> str:
        """SHA-256 of `tokenizer.json` in canonical form; the context length and the padding are part of it."""
        canonical = json.dumps(json.loads(self._backend.to_str()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the files that `Tokenizer.load` and the tokenizers of `transformers` read.

        Raises:
            DataError: the folder cannot be written.
        """
        write_text(folder / "tokenizer.json", self._backend.to_str(pretty=True) + "\n")
        config: dict[str, Any] = {"model_max_length": self.context_length}
        if not self._is_clip:
            config |= {
                "tokenizer_class": "PreTrainedTokenizerFast",  # all is in tokenizer.json; theirs of SigLIP clean again
                "eos_token": self._backend.id_to_token(self.end_token_id),
                "pad_token": self._backend.id_to_token(self.pad_token_id),
                "padding_side": "right",
                # no attention mask: SigLIP reads the padding, a sentence tower knows it by its id
                "model_input_names": ["input_ids"],
            }
        else:
            self._save_merges(folder)
            config |= {
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": START,
                "eos_token": END,
                "unk_token": END,
                # Not the name of token 0, "!": transformers would then take every "!" of a text for padding.
                "pad_token": END,
            }
        write_json(folder / "tokenizer_config.json", config)

    def _save_merges(self, folder: Path) -> None:
        vocab = sorted(self._backend.get_vocab().items(), key=lambda item: item[1])
        merges = ["#version: 0.2", *map(" ".join, _merges_of(self._backend))]
        write_text(folder / "vocab.json", json.dumps(dict(vocab), ensure_ascii=False) + "\n")
        write_text(folder / "merges.txt", "\n".join(merges) + "\n")

    @classmethod
    def load(cls, folder: Path, *, context_length: int | None = None) -> "Tokenizer":
        """A tokenizer from a bundle or a `transformers` folder: `tokenizer.json`, else `vocab.json` and `merges.txt`.

        Args:
            folder: where the files are.
            context_length: tokens; `model_max_length` of `tokenizer_config.json` when not given.

        Raises:
            WeightsError: a file is missing or broken, or no file tells the context length.
        """
        config_path = folder / "tokenizer_config.json"
        config = _read_object(config_path) if config_path.exists() else {}
        backend = _read_backend(folder)
        padding = _complete_siglip(backend, lowers=config.get("do_lower_case", True))
        if context_length is None:
            context_length = config.get("model_max_length")
        if not isinstance(context_length, int) or context_length > _LONGEST_CONTEXT:
            raise WeightsError(
                f"{config_path} must tell the context length (model_max_length), and it is missing there or endless. "
                "Pass context_length: CLIP's is 77, SigLIP's 64."
            )
        if backend.padding:
            pad_token_id = backend.padding["pad_id"]
        else:
            pad_token = config.get("pad_token") or padding
            pad_token_id = backend.token_to_id(pad_token["content"] if isinstance(pad_token, dict) else pad_token) or 0
        return cls(backend, context_length=context_length, pad_token_id=pad_token_id)

    @classmethod
    def from_merges(cls, path: Path, *, context_length: int = 77) -> "Tokenizer":
        """CLIP's tokenizer from its published merges: ids are 256 bytes, 256 bytes that end a word, merges, start, end.

        Args:
            path: `bpe_simple_vocab_16e6.txt.gz` or a `merges.txt`; the first 48,894 merges count.
            context_length: tokens, start and end included.

        Raises:
            WeightsError: the file cannot be read or is not a list of merges.
        """
        return cls(_from_merges(_read_merges(path)[:CLIP_MERGES]), context_length=context_length)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int, context_length: int) -> "Tokenizer":
        """Learn merges from texts. The same texts in the same or another order give the same file, on any machine.

        Every byte has a token, within a word and at its end, so no text is unknown; the end token has the highest id.

        Args:
            texts: captions; each is cleaned as `encode` does.
            vocab_size: tokens at most; fewer when no pair of symbols is left that occurs twice.
            context_length: tokens, start and end included.

        Raises:
            ConfigError: vocab_size leaves no room for the bytes, start and end.
            TextError: one of the texts is not a valid string.
            DataError: the texts hold nothing to learn from.
        """
        least = len(_SYMBOLS) + 3
        if vocab_size < least:
            raise ConfigError(
                f"vocab_size must be at least {least}: 512 byte symbols, one merge, start and end. Got {vocab_size}."
            )
        # Naming all symbols up front fixes their ids, and ties between pairs are broken by id. Left to itself, the
        # trainer numbers the symbols that end a word in the order of a hash table.
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            min_frequency=2,
            special_tokens=list(_SYMBOLS),
            end_of_word_suffix=END_OF_WORD,
            show_progress=False,
        )
        learner = _from_merges([])
        learner.train_from_iterator(_unescaped(texts), trainer)
        merges = _merges_of(learner)
        if not merges:
            raise DataError("a tokenizer needs texts to learn from, with pairs of letters that occur at least twice.")
        return cls(_from_merges(merges), context_length=context_length)

    def _encodings(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        # SigLIP's and BERT's leave HTML as it is.
        return self._backend.encode_batch_fast(list(_unescaped(texts) if self._is_clip else _checked(texts)))


def _unescaped(texts: Iterable[str]) -> Iterable[str]:
    # Twice, as CLIP does: scraped text is often escaped twice.
    return (html.unescape(html.unescape(text)) for text in _checked(texts))


def _checked(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise TextError(f"texts must be a list of strings. Got one string, {_shorten(texts)}: put it in a list.")
    return map(_check, texts)


def _check(text: str) -> str:
    if not isinstance(text, str):
        raise TextError(f"a text must be a string. Got {_shorten(text)}, {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TextError(f"a text must be valid Unicode. Got half a surrogate pair in {_shorten(text)}.") from None
    return text


def _shorten(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:76]} ..."


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


def _complete_siglip(backend: tokenizers.Tokenizer, *, lowers: bool) -> str:
    """Give a SigLIP tokenizer the cleaning and the end token that its file left out; its pad token's name."""
    if backend.token_to_id(START) is not None:
        return ""  # CLIP's
    cleaning: list[Any] = [normalizers.Lowercase()] if lowers else []
    if backend.token_to_id(SIGLIP2_END) is not None:  # asked first: its vocabulary has "</s>" as well
        end, pad = SIGLIP2_END, "<pad>"
    elif backend.token_to_id(SIGLIP_END) is not None:
        end = pad = SIGLIP_END
        cleaning += [normalizers.Replace(_PUNCTUATION, ""), _SPACE, normalizers.Strip()]
    else:
        return ""
    first = normalizers.Sequence(cleaning)
    rest = backend.normalizer or normalizers.Sequence([])
    sample = "A, B"
    if rest.normalize_str(first.normalize_str(sample)) != rest.normalize_str(sample):
        backend.normalizer = normalizers.Sequence([*cleaning, rest])
    empty = backend.encode("")
    if empty.tokens[: sum(empty.attention_mask)] != [end]:
        end_id = backend.token_to_id(end)
        assert end_id is not None
        backend.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, end_id)])
    return pad


def _from_merges(merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    vocab: dict[str, int] = {}
    for token in [*_SYMBOLS, *map("".join, merges), START, END]:
        vocab.setdefault(token, len(vocab))  # two merges may make the same token
    return _assemble(vocab, merges)


def _merges_of(backend: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    return [(first, second) for first, second in json.loads(backend.to_str())["model"]["merges"]]


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    whole, vocab, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
    if whole.exists():
        try:
            return tokenizers.Tokenizer.from_str(_read(whole))
        except Exception as error:  # bare ones, as above
            raise WeightsError(f"{whole} is not a tokenizer: {error}. Copy or download it again.") from error
    if vocab.exists() and merges.exists():
        return _assemble(_read_object(vocab), _read_merges(merges))
    if (folder / "spiece.model").exists():
        raise WeightsError(
            f"{folder} must hold tokenizer.json, and has the same as spiece.model alone, which is not read. Download "
            "tokenizer.json from where the weights are from."
        )
    raise WeightsError(f"{folder} must hold tokenizer.json, or vocab.json and merges.txt. Is it a bundle's folder?")


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = _read(path).splitlines()
    if lines and "#version" in lines[0]:
        lines = lines[1:]
    merges = []
    for line in filter(None, lines):
        match line.split(" "):
            case [first, second]:
                merges.append((first, second))
            case _:
                raise WeightsError(f"{path} must hold two symbols a line, one merge. Got {_shorten(line)}.")
    return merges


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Copy or download it again.") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path} must be JSON: {error}. Copy or download it again.") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} must hold a JSON object. Got {type(data).__name__}: is it another file?")
    return data
