"""Text to tokens, by CLIP's rules: byte-pair merges over cleaned, lower-cased words. SigLIP's tokenizers are read, too.

Everything a text goes through is carried by `tokenizer.json`, so any library that reads that file gives the same
tokens: NFC, lower case, the split into words, single digits and runs of signs, the merges, start and end, truncation
and padding. One step is not: HTML entities are unescaped here, in Python, before. CLIP's mojibake repair (ftfy) is
left out, as in `transformers`: results must not depend on what is installed. So mis-decoded text and curly quotes
keep their own bytes, where CLIP's released code would have mended them.

Tokenizers of other models are what their `tokenizer.json` says, see `diptych.data.tokenizer_file`. SigLIP's have no
start token, and cleaning of their own: lower case letter by letter, and for the first SigLIP no ASCII punctuation.
Published files may leave it out, as other libraries clean elsewhere; where the model is a SigLIP it is then added.

Source: CLIP, arXiv:2103.00020, section 2.4; SigLIP, arXiv:2303.15343; SigLIP 2, arXiv:2502.14786; the released code.
"""

import hashlib
import html
import itertools
import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, trainers

from diptych.data.tokenizer_file import (
    END,
    END_OF_WORD,
    START,
    SYMBOLS,
    Cleaning,
    clip_rules,
    end_with_padding,
    pad_token_of,
    read_backend,
    read_merges,
    read_object,
)
from diptych.data.translations import TRANSLATIONS, Translations
from diptych.errors import ConfigError, DataError, TextError, WeightsError
from diptych.files import write_json, write_text

CLIP_MERGES = 48_894  # of the 262,144 in the published file; with 512 byte symbols, start and end: 49,408 tokens

_LONGEST_CONTEXT = 1_000_000  # a larger model_max_length is transformers' way to say that it does not know
_UNESCAPES = "unescape_html"  # our key in tokenizer_config.json


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A text of which a tokenizer knows some words not, or none; as a string, one sentence about it."""

    text: str
    words: int  # that it has, as the tokenizer splits them; 0 where cleaning left nothing
    unknown: int  # of them
    read_by: str = ""  # another model that would read it, where one is at hand

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the text is read: all such texts have one and the same feature."""
        return self.unknown == self.words

    def __str__(self) -> str:
        if self.is_whole:
            other = self.read_by or "a model that reads any letters, such as CLIP's or SigLIP's (`diptych models`)"
            return (
                f"{_shorten(self.text)} is no text to this model: its tokenizer knows no word of it, and all such "
                f"texts are one to it. Say it in other words, or take {other}."
            )
        return (
            f"this model's tokenizer does not know {self.unknown:,} of {self.words:,} words of {_shorten(self.text)}."
        )


class Tokenizer:
    """Texts in, tokens `[B, L]` out; L is `context_length`.

    Args:
        backend: the rules; it is taken over, its truncation and padding are set here.
        context_length: tokens, start and end included.
        pad_token_id: what follows the end token. CLIP's released code pads with 0, `transformers` with the end token;
            features are the same, as attention is causal. SigLIP's is not: there the padding matters.
        unescapes_html: turn entities into letters first, twice; as CLIP's does when not given.
        translations: words that are put into English next.

    Attributes:
        start_token_id: None for SigLIP and T5, which have none.

    Raises:
        ConfigError: context_length has no room for a token between start and end.
        WeightsError: the backend does not put one end token after a text, and at most one start token before it.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        context_length: int,
        pad_token_id: int = 0,
        unescapes_html: bool | None = None,
        translations: Translations | None = None,
    ) -> None:
        if context_length < 3:
            raise ConfigError(f"context_length must be at least 3: start, one token, end. Got {context_length}.")
        backend.no_padding()
        backend.enable_truncation(context_length)
        self.start_token_id, self.end_token_id = _around(backend)
        pad_token = backend.id_to_token(pad_token_id)
        if pad_token is None:
            raise WeightsError(f"the pad token must be one of {backend.get_vocab_size()} tokens. Got {pad_token_id}.")
        backend.enable_padding(pad_id=pad_token_id, pad_token=pad_token, length=context_length)
        self.context_length = context_length
        self.pad_token_id = pad_token_id
        self.vocab_size = backend.get_vocab_size()
        around = (backend.token_to_id(START), backend.token_to_id(END))
        self._is_clip = (self.start_token_id, self.end_token_id) == around and isinstance(backend.model, models.BPE)
        self.unescapes_html = self._is_clip if unescapes_html is None else unescapes_html
        self.translations = translations
        self._unknown_id = _unknown_id(backend, {self.start_token_id, self.end_token_id})
        self._backend = backend

    def with_context_length(self, context_length: int) -> "Tokenizer":
        """The same vocabulary for texts of another length.

        Raises:
            ConfigError: there is no room for a token between start and end.
        """
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        return Tokenizer(
            backend,
            context_length=context_length,
            pad_token_id=self.pad_token_id,
            unescapes_html=self.unescapes_html,
            translations=self.translations,
        )

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> np.ndarray:
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
        return np.array(ids, dtype=np.int64).reshape(len(ids), self.context_length)  # [B, L], also for B = 0

    def __call__(self, texts: Sequence[str], *, truncate: bool = False) -> np.ndarray:
        """`encode`, for code that calls its tokenizers."""
        return self.encode(texts, truncate=truncate)

    def count_too_long(self, texts: Sequence[str]) -> int:
        """How many of the texts `encode` refuses, or cuts with `truncate`."""
        return sum(bool(encoding.overflowing) for encoding in self._encodings(texts))

    def unread(self, texts: Sequence[str]) -> list[Unread]:
        """Those of the texts of which something is unknown, in order; blank ones are not looked at.

        A tokenizer over bytes, as CLIP's, knows all. That of a small vocabulary makes one token of any word that it
        does not have, so that texts of such words are alike to the model, whatever they say.
        """
        found = []
        for text, encoding in zip(texts, self._backend.encode_batch(self._cleaned(texts)), strict=True):
            words = {word for word in encoding.word_ids if word is not None}
            unknown = {
                word
                for token, word in zip(encoding.ids, encoding.word_ids, strict=True)
                if token == self._unknown_id and word is not None
            }
            if text.strip() and (unknown or not words):
                found.append(Unread(text=text, words=len(words), unknown=len(unknown)))
        return found

    def decode(self, tokens: Iterable[int]) -> str:
        """The cleaned text of one row of tokens `[L]`, up to its first end token."""
        ids = itertools.takewhile(lambda token: token != self.end_token_id, tokens)
        return self._backend.decode([int(token) for token in ids]).replace(END_OF_WORD, " ").strip()

    def fingerprint(self) -> str:
        """SHA-256 of `tokenizer.json` in canonical form, with its context length and padding, and of translations."""
        plain = json.loads(self._backend.to_str())
        if self.unescapes_html != self._is_clip:
            plain[_UNESCAPES] = self.unescapes_html
        if self.translations:
            plain[TRANSLATIONS] = self.translations.fingerprint()
        canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, folder: Path, *, masks_padding: bool = False) -> None:
        """Write the files that `Tokenizer.load` and the tokenizers of `transformers` read.

        Args:
            folder: where to.
            masks_padding: whether those of `transformers` tell their models which tokens are padding. A SigLIP reads
                the padding, and must not be told.

        Raises:
            DataError: the folder cannot be written.
        """
        write_text(folder / "tokenizer.json", self._backend.to_str() + "\n")
        config: dict[str, Any] = {"model_max_length": self.context_length}
        if not self._is_clip:
            start = self.start_token_id
            config |= {
                "tokenizer_class": "PreTrainedTokenizerFast",  # all is in tokenizer.json; theirs of SigLIP clean again
                **({} if start is None else {"bos_token": self._backend.id_to_token(start)}),
                "eos_token": self._backend.id_to_token(self.end_token_id),
                "pad_token": self._backend.id_to_token(self.pad_token_id),
                "padding_side": "right",
                "model_input_names": ["input_ids", *(["attention_mask"] if masks_padding else [])],
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
        if self.unescapes_html != self._is_clip:
            config[_UNESCAPES] = self.unescapes_html
        write_json(folder / "tokenizer_config.json", config)
        if self.translations:
            self.translations.save(folder)

    def _save_merges(self, folder: Path) -> None:
        vocab = sorted(self._backend.get_vocab().items(), key=lambda item: item[1])
        merges = ["#version: 0.2", *map(" ".join, _merges_of(self._backend))]
        write_text(folder / "vocab.json", json.dumps(dict(vocab), ensure_ascii=False) + "\n")
        write_text(folder / "merges.txt", "\n".join(merges) + "\n")

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        context_length: int | None = None,
        cleaning: Cleaning = "file",
        pad_token_id: int | None = None,
        ends_with_padding: bool = False,
    ) -> "Tokenizer":
        """A tokenizer from a bundle or a `transformers` folder: `tokenizer.json`, else `vocab.json` and `merges.txt`.

        Args:
            folder: where the files are.
            context_length: tokens; `model_max_length` of `tokenizer_config.json` when not given.
            cleaning: what the model does to a text before, where its file does not say it; see `read_backend`.
            pad_token_id: what the model pads with, where its file says another; by default what the file says.
            ends_with_padding: whether the model reads token 0 where the file puts an end token.

        Raises:
            WeightsError: a file is missing or broken, or no file tells the context length.
        """
        config_path = folder / "tokenizer_config.json"
        config = read_object(config_path) if config_path.exists() else {}
        backend = read_backend(folder, config, cleaning)
        if pad_token_id is None:
            pad_token_id = pad_token_of(backend, folder, config, cleaning)
        if ends_with_padding:
            end_with_padding(backend)
        if context_length is None:
            context_length = config.get("model_max_length")
        if not isinstance(context_length, int) or context_length > _LONGEST_CONTEXT:
            raise WeightsError(
                f"{config_path} must tell the context length (model_max_length), and it is missing there or endless. "
                "Pass context_length: CLIP's is 77, SigLIP's 64."
            )
        # open_clip unescapes for every tokenizer, transformers for none; CLIP's released code does.
        unescapes = True if cleaning not in ("file", "siglip") else config.get(_UNESCAPES)
        return cls(
            backend,
            context_length=context_length,
            pad_token_id=pad_token_id,
            unescapes_html=unescapes if isinstance(unescapes, bool) else None,
            translations=Translations.load(folder),
        )

    @classmethod
    def from_merges(cls, path: Path, *, context_length: int = 77) -> "Tokenizer":
        """CLIP's tokenizer from its published merges: ids are 256 bytes, 256 bytes that end a word, merges, start, end.

        Args:
            path: `bpe_simple_vocab_16e6.txt.gz` or a `merges.txt`; the first 48,894 merges count.
            context_length: tokens, start and end included.

        Raises:
            WeightsError: the file cannot be read or is not a list of merges.
        """
        return cls(clip_rules(read_merges(path)[:CLIP_MERGES]), context_length=context_length)

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
        least = len(SYMBOLS) + 3
        if vocab_size < least:
            raise ConfigError(
                f"vocab_size must be at least {least}: 512 byte symbols, one merge, start and end. Got {vocab_size}."
            )
        # Naming all symbols up front fixes their ids, and ties between pairs are broken by id. Left to itself, the
        # trainer numbers the symbols that end a word in the order of a hash table.
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            min_frequency=2,
            special_tokens=list(SYMBOLS),
            end_of_word_suffix=END_OF_WORD,
            show_progress=False,
        )
        learner = clip_rules([])
        learner.train_from_iterator(_unescaped(texts), trainer)
        merges = _merges_of(learner)
        if not merges:
            raise DataError("a tokenizer needs texts to learn from, with pairs of letters that occur at least twice.")
        return cls(clip_rules(merges), context_length=context_length)

    def _encodings(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        return self._backend.encode_batch_fast(self._cleaned(texts))

    def _cleaned(self, texts: Sequence[str]) -> list[str]:
        """What the rules of `tokenizer.json` are given."""
        clean = _unescaped(texts) if self.unescapes_html else _checked(texts)
        return list(map(self.translations, clean) if self.translations else clean)


def _around(backend: tokenizers.Tokenizer) -> tuple[int | None, int]:
    """The start token that the rules put before a text, None where there is none, and the end token after it.

    Raises:
        WeightsError: there are more, or there is no end token.
    """
    encoding = next((e for sample in "aA1." if 0 in (e := backend.encode(sample)).special_tokens_mask), None)
    if encoding is not None:
        mask = encoding.special_tokens_mask
        before, after = encoding.ids[: mask.index(0)], encoding.ids[len(mask) - mask[::-1].index(0) :]
    else:  # it knows none of these letters: two tokens stand around nothing, and one behind it
        ids = backend.encode("").ids
        before, after = ids[:-1], ids[-1:]
    if len(before) > 1 or len(after) != 1:
        tokens = [" ".join(map(str, map(backend.id_to_token, ids))) or "nothing" for ids in (before, after)]
        raise WeightsError(
            "the tokenizer must put one end token after a text, where the text tower is read, and at most one start "
            f"token before it. It puts {tokens[0]} before and {tokens[1]} after: is it of another model, or does "
            "its tokenizer.json lack a post_processor?"
        )
    return before[0] if before else None, after[0]


def _unknown_id(backend: tokenizers.Tokenizer, around: Container[int | None]) -> int | None:
    """The token that stands for what is not in the vocabulary; None where there is none of its own."""
    match backend.model:
        case models.Unigram():
            number = json.loads(backend.to_str())["model"]["unk_id"]
        case models.BPE() | models.WordPiece() | models.WordLevel() as model:
            number = None if model.unk_token is None else backend.token_to_id(model.unk_token)
        case _:
            return None
    return None if number in around else number  # CLIP's is the end token, which no text over bytes needs


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


def _merges_of(backend: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    return [(first, second) for first, second in json.loads(backend.to_str())["model"]["merges"]]
