"""Lists of phrases, found as whole words in any number of texts at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from diptych.captions.characters import Characters, mixed
from diptych.config import from_dict, read_toml, unknown_name
from diptych.data.prompts import read_lines
from diptych.errors import ConfigError, DataError

SHIPPED = Path(__file__).with_name("phrases.toml")


class _OfLength(NamedTuple):
    """The phrases of one number of words."""

    words: int
    hashes: np.ndarray  # [P] uint64, ascending
    numbers: np.ndarray  # [P] int32, which phrase
    may_begin: np.ndarray  # [65536] bool, by the lowest bits of a word's hash


@dataclass(frozen=True, kw_only=True, eq=False)
class Phrases:
    """Phrases to be found. Case, signs between the words and the kind of white space do not count."""

    phrases: tuple[str, ...]
    whole: np.ndarray  # [P] bool, counts only where it is all of the text
    by_length: tuple[_OfLength, ...]

    @classmethod
    def of(cls, anywhere: Iterable[str], whole: Iterable[str] = ()) -> Self:
        """Phrases that count anywhere in a text, and such that count only where they are all of it.

        Raises:
            DataError: a phrase has no letter or digit.
        """
        anywhere, whole = tuple(anywhere), tuple(whole)
        phrases = anywhere + whole
        words = Characters.of(pa.array(phrases, pa.string())).words
        counts = np.diff(words.starts)
        if (counts == 0).any():
            raise DataError(f"a phrase must have a letter or a digit. Got {phrases[int(counts.argmin())]!r}.")
        by_length = []
        for length in np.unique(counts).tolist():
            numbers = np.flatnonzero(counts == length).astype(np.int32)
            first = words.starts[numbers]
            hashes = _joined(words.hashes, first, length)
            order = np.argsort(hashes, kind="stable")  # of two that are alike the one that counts anywhere is found
            may_begin = np.zeros(1 << 16, bool)
            may_begin[words.hashes[first] & np.uint64(0xFFFF)] = True
            by_length.append(_OfLength(length, hashes[order], numbers[order], may_begin))
        return cls(phrases=phrases, whole=np.arange(len(phrases)) >= len(anywhere), by_length=tuple(by_length))

    def find(self, characters: Characters) -> np.ndarray:
        """The first phrase of each text, and of those that begin at one word the longest.

        Returns:
            [N] int32, numbers of phrases; -1 where there is none.
        """
        words = characters.words
        place = np.arange(len(words.hashes)) - words.starts[words.of_text]  # [W] which word of its text
        left = np.diff(words.starts)[words.of_text] - place  # [W] words from here to the end of the text
        begins = words.hashes & np.uint64(0xFFFF)
        matches = [np.empty((0, 4), np.int64)]  # text, place, minus length, phrase
        for length, hashes, numbers, may_begin in self.by_length:
            at = np.flatnonzero(may_begin[begins] & (left >= length))
            joined = _joined(words.hashes, at, length)
            nearest = np.searchsorted(hashes, joined).clip(max=len(hashes) - 1)
            is_all = (place[at] == 0) & (left[at] == length)
            hit = (hashes[nearest] == joined) & (is_all | ~self.whole[numbers[nearest]])
            at, number = at[hit], numbers[nearest[hit]]
            matches.append(np.stack([words.of_text[at], place[at], np.full(len(at), -length), number], axis=1))
        found = np.concatenate(matches)
        found = found[np.lexsort(found.T[2::-1])]
        first = np.unique(found[:, 0], return_index=True)[1]
        phrase = np.full(len(characters), -1, np.int32)
        phrase[found[first, 0]] = found[first, 3]
        return phrase


def _joined(hashes: np.ndarray, at: np.ndarray, length: int) -> np.ndarray:
    """Hashes of `length` words in a row, from the places `at` on."""
    joined = hashes[at]
    for step in range(1, length):
        joined = mixed(joined) + hashes[at + step]  # not the mere sum: order counts
    return joined


@dataclass(frozen=True, kw_only=True)
class _List:
    """Phrases of one kind in one language, as a file has them."""

    anywhere: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


@cache
def phrases_of_kind(kind: str, path: Path | None = None) -> Phrases:
    """The phrases of one kind from a file like `phrases.toml`: tables KIND.LANGUAGE with lists `anywhere` and `whole`.

    Args:
        kind: the rule that asks, e.g. "boilerplate".
        path: the user's file; None is the one in the package.

    Raises:
        ConfigError: the file cannot be read, or has no such kind or what is no such list.
    """
    tables = read_toml(path or SHIPPED)
    if kind not in tables:
        raise ConfigError(f"{path}: {unknown_name(kind, '', tables, 'a table of the file')}")
    if not isinstance(tables[kind], dict):
        raise ConfigError(f"{path}: {kind} must be a table of languages. Got {tables[kind]!r}.")
    lists = [from_dict(_List, table, where=f"{kind}.{language}") for language, table in tables[kind].items()]
    return Phrases.of(
        dict.fromkeys(phrase for of_one in lists for phrase in of_one.anywhere),
        dict.fromkeys(phrase for of_one in lists for phrase in of_one.whole),
    )


@cache
def phrases_of_lines(path: Path) -> Phrases:
    """A text file with a word or a phrase on each line.

    Raises:
        DataError: it cannot be read, has no line, or a line has no letter or digit.
    """
    return Phrases.of(read_lines(path))
