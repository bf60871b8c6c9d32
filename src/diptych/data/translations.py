"""Words of other languages put into English, by a list that travels with a model whose text tower reads English alone.

Only what stands in the list is put into English, as it stands there: no other form of a word, no grammar. What stays is
read as any text is.
"""

import functools
import gzip
import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import WeightsError
from diptych.files import atomic_file

TRANSLATIONS = "translations.tsv.gz"  # the file of a model's folder
_MOST_BYTES = 1 << 25  # of a list as plain text; what is larger is none

# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, and those of Chinese and Japanese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_RUN = re.compile(r"\S+")


@dataclass(frozen=True)
class Translations:
    """English words, and what each is called in other languages.

    Args:
        english: N words or phrases.
        others: lines of N texts, each with the language that it is of; "" where it has none that an earlier line has
            not. A language may have several lines.

    Raises:
        ValueError: a line is of another length.
    """

    english: tuple[str, ...]
    others: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        for language, line in self.others:
            if len(line) != len(self.english):
                raise ValueError(f"{len(line)} texts of {language!r} for {len(self.english)} English ones")

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes, each once."""
        return tuple(dict.fromkeys(language for language, _ in self.others))

    def __call__(self, text: str) -> str:
        """The text with what is in the list put into English; a text with nothing of it as it came.

        Other words of a text that has some are in lower case then, and composed (NFKC).
        """
        clean = normalised(text)
        words = clean.translate(_SEPARATORS).split()
        is_plain = self._english.keys().isdisjoint(words) and self._longest.keys().isdisjoint(words)
        if is_plain and not _UNSPACED.search(clean):
            return text
        parts, done = [], 0
        for start, end, english in self._found(clean):
            is_apart = _UNSPACED.match(clean[start]) is not None
            parts += (clean[done:start], f" {english} " if is_apart else english)
            done = end
        return "".join((*parts, clean[done:])) if parts else text

    def _found(self, clean: str) -> Iterator[tuple[int, int, str]]:
        """Start, end and English of each place, from the left, the longest first."""
        spans = [match.span() for match in _RUN.finditer(clean.translate(_SEPARATORS))]
        words = [clean[start:end] for start, end in spans]
        number = 0
        while number < len(words):
            longest = self._longest.get(words[number], 1)
            for count in range(min(longest, len(words) - number), 0, -1):
                english = self._english.get(" ".join(words[number : number + count]))
                if english is not None:
                    yield spans[number][0], spans[number + count - 1][1], english
                    number += count
                    break
            else:
                if _UNSPACED.search(words[number]):
                    yield from self._within(words[number], spans[number][0])
                number += 1

    def _within(self, run: str, offset: int) -> Iterator[tuple[int, int, str]]:
        """Likewise, of a run of letters that may be several words."""
        start = 0
        while start < len(run):
            for end in range(min(len(run), start + self._most_letters), start, -1):
                is_cut = end < len(run) and unicodedata.category(run[end])[0] == "M"  # from what stands on the letter
                english = None if is_cut or not _UNSPACED.match(run[start]) else self._english.get(run[start:end])
                if english is not None:
                    yield offset + start, offset + end, english
                    start = end
                    break
            else:
                start += 1

    @functools.cached_property
    def _english(self) -> dict[str, str]:
        meanings: dict[str, str] = {}
        for _, line in reversed(self.others):  # what an earlier line says stays
            meanings.update(zip(line, self.english, strict=True))
        meanings.pop("", None)
        return meanings

    @functools.cached_property
    def _longest(self) -> dict[str, int]:
        """By the first word of phrases, how many words the longest one has that begins so."""
        longest: dict[str, int] = {}
        for first, *rest in (text.split(" ") for text in self._english if " " in text):
            longest[first] = max(longest.get(first, 0), 1 + len(rest))
        return longest

    @functools.cached_property
    def _most_letters(self) -> int:
        return max((len(text) for text in self._english if _UNSPACED.match(text)), default=0)

    def fingerprint(self) -> str:
        """SHA-256 of the list."""
        return hashlib.sha256(self._plain().encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the list: a line of English words, then one a language, its code first; tabs between.

        Raises:
            DataError: the folder cannot be written.
        """
        with atomic_file(folder / TRANSLATIONS) as aside:
            aside.write_bytes(gzip.compress(self._plain().encode(), mtime=0))

    def _plain(self) -> str:
        lines = (("en", self.english), *self.others)
        return "".join("\t".join((language, *line)) + "\n" for language, line in lines)

    @classmethod
    def load(cls, folder: Path) -> "Translations | None":
        """The list of a model's folder; None where it has none.

        Raises:
            WeightsError: it is damaged.
        """
        path = folder / TRANSLATIONS
        if not path.is_file():
            return None
        try:
            (first, *english), *others = (line.split("\t") for line in _lines(path.read_bytes()))
            if first != "en":
                raise ValueError(f"the first line is of {first!r}")
            return cls(tuple(english), tuple((language, tuple(line)) for language, *line in others))
        except (OSError, zlib.error, ValueError) as error:
            raise WeightsError(
                f"{path} must hold English words and a line of the same length for each language, and it does not "
                f"({error}). Copy or download it again."
            ) from error


def _lines(packed: bytes) -> list[str]:
    reader = zlib.decompressobj(wbits=31)  # of gzip
    plain = reader.decompress(packed, _MOST_BYTES)
    if not reader.eof:
        raise ValueError(f"it is cut off, or longer than {_MOST_BYTES:,} bytes")
    return re.sub("\r\n?", "\n", plain.decode()).rstrip("\n").split("\n")  # an editor may have put its own ends


def normalised(text: str) -> str:
    """As texts are compared: composed (NFKC), in lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def as_key(text: str) -> str:
    """A text of a list as it must stand there: its words, one space between."""
    clean = normalised(text)
    return " ".join(clean.translate(_SEPARATORS).split())


class _Separators(dict[int, str]):
    """For `str.translate`: all but letters, marks, digits and what joins letters becomes a space of the same length."""

    def __missing__(self, code: int) -> str:
        self[code] = chr(code) if unicodedata.category(chr(code))[0] in "LMN" or code in (0x200C, 0x200D) else " "
        return self[code]


_SEPARATORS = _Separators()
