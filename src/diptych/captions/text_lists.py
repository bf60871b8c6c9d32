"""Rules that find phrases of lists in captions."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from diptych.captions.captions import Captions, Verdict
from diptych.captions.phrases import Phrases, phrases_of_kind, phrases_of_lines


@dataclass(frozen=True, kw_only=True)
class Boilerplate:
    """Captions with what pages say beside pictures: "click here", "add to cart", "image may contain", or only "logo".

    The phrases are in `phrases.toml`, in English and 16 other languages; a file of one's own takes their place.

    Source: C4 (arXiv:1910.10683, section 2.2) drops lines with "javascript" and pages with cookie notices; the phrases
    are ours.
    """

    kind: Literal["boilerplate"] = "boilerplate"
    phrases: Path | None = None  # a file like `phrases.toml`; None is that
    name: ClassVar[str] = "boilerplate"
    limit: ClassVar[str] = "no phrase of the list of boilerplate"

    def judge(self, captions: Captions, /) -> Verdict:
        return _by_phrases(captions, phrases_of_kind("boilerplate", self.phrases))


@dataclass(frozen=True, kw_only=True)
class Watermarks:
    """Captions that name a stock agency, or say that the picture is a stock photo: previews wear its name as a mark.

    The phrases are in `phrases.toml`; a file of one's own takes their place.

    Source: LAION-5B (arXiv:2210.08402, section 4.2) tells watermarks by the picture; the names are ours.
    """

    kind: Literal["watermarks"] = "watermarks"
    phrases: Path | None = None
    name: ClassVar[str] = "watermarks"
    limit: ClassVar[str] = "no phrase of the list of watermarks"

    def judge(self, captions: Captions, /) -> Verdict:
        return _by_phrases(captions, phrases_of_kind("watermarks", self.phrases))


@dataclass(frozen=True, kw_only=True)
class DenyWords:
    """Captions with a word or phrase of the user's list: whole words, in this order, whatever their case.

    Source: C4 (arXiv:1910.10683, section 2.2) drops pages with a word of a list of bad words. diptych ships no such
    list: which words are bad depends on the use, and lists take away what people say of themselves.
    """

    kind: Literal["deny-words"] = "deny-words"
    file: Path  # a word or phrase a line
    show: bool = False  # the word itself in the ledger

    @property
    def name(self) -> str:
        return f"deny-words {self.file.stem}"

    @property
    def limit(self) -> str:
        return f"no word of {self.file.name}"

    def judge(self, captions: Captions, /) -> Verdict:
        verdict = _by_phrases(captions, phrases_of_lines(self.file))
        return verdict if self.show else Verdict(keep=verdict.keep, values=lambda at: [None] * len(at))


def _by_phrases(captions: Captions, phrases: Phrases) -> Verdict:
    found = phrases.find(captions.characters)
    return Verdict(keep=found < 0, values=lambda at: [phrases.phrases[i] for i in found[at]])
