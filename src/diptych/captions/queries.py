"""The list of queries: what a text must hold to be of use, one entry a line (CLIP, section 2.2).

A list is UTF-8 text with one query a line, best first; MetaCLIP's `metadata.json`, a JSON list of texts, is read as it
is. Lists that we write have `NAME.sources.json` beside them: where the queries are from, under which licences, how many
of each. Nothing of these lists is in the package.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from diptych.data.texts import read_text
from diptych.errors import ConfigError, DataError
from diptych.files import sha256, write_json, write_text

SOURCES_FORMAT = "diptych-queries-1"
LONGEST = 256  # characters of a query, as in MetaCLIP 2


def folded(texts: Any, *, lower: bool = True) -> Any:
    """Texts as they are compared: Unicode's form NFKC, so that é is one character and full width is none; lower case.

    Letters are lowered one by one and without a language: İ and I both become i, and so no ı.

    Args:
        texts: [N] of Arrow's string.
        lower: also in lower case.
    """
    other = pc.invert(pc.fill_null(pc.string_is_ascii(texts), True))
    if pc.any(other).as_py():  # not by pc.utf8_normalize, whose NFKC takes é apart (pyarrow 25)
        composed = [unicodedata.normalize("NFKC", text) for text in pc.filter(texts, other).to_pylist()]
        texts = pc.replace_with_mask(texts, other, pa.array(composed, pa.string()))
    return pc.utf8_lower(texts) if lower else texts


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """A list that was read. Two are equal when they are the same object: hashing half a million texts takes a while."""

    texts: tuple[str, ...]  # as they stand in the file; the number of a query is its place here
    blank: int = 0  # entries without a character that can be seen, left out
    repeated: int = 0  # entries that stand further up already, left out

    @property
    def sentence(self) -> str:
        """What the list holds, and what was left out of it."""
        out = [f"{count:,} {what}" for count, what in ((self.blank, "empty"), (self.repeated, "repeated")) if count]
        return f"{len(self.texts):,} queries" + (f"; left out: {', '.join(out)}" if out else "")


def read_queries(path: Path) -> Queries:
    """Read a list: text with a query a line, or, where the name ends in .json, a JSON list of texts.

    Raises:
        DataError: it cannot be read, is no list of texts, or holds none.
    """
    text = read_text(path)
    entries = _json_list(path, text) if path.suffix == ".json" else text.split("\n" if "\n" in text else "\r")
    if entries and path.suffix != ".json" and not entries[-1]:
        entries.pop()  # what stands behind the last line's end is no line
    stripped = [" ".join(entry.split()) for entry in entries]
    there = [entry for entry in stripped if entry]
    texts = tuple(dict.fromkeys(there))
    if not texts:
        raise DataError(f"{path} must hold queries, one a line, and holds none. `diptych curate queries` makes a list.")
    return Queries(texts=texts, blank=len(entries) - len(there), repeated=len(there) - len(texts))


def _json_list(path: Path, text: str) -> list[str]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"{path} must be a JSON list of texts, as MetaCLIP's metadata.json is. A .txt has one a line.")
    return entries


@dataclass(frozen=True, kw_only=True)
class QuerySource:
    """Candidates of one kind."""

    name: str  # "words of wordfreq 3.1.1"
    licence: str  # of the data that they are from; "yours" of the user's files
    rule: str  # what was chosen by which threshold
    texts: Sequence[str]  # best first


@dataclass(frozen=True, kw_only=True)
class SourceCount:
    """What one source brought into a list."""

    name: str
    licence: str
    rule: str
    offered: int
    added: int  # not there from an earlier source, and within the limit


@dataclass(frozen=True, kw_only=True)
class BuiltQueries:
    """A list that was made."""

    texts: tuple[str, ...]
    counts: tuple[SourceCount, ...]
    cut: int  # queries beyond the limit

    def save(self, out: Path) -> Path:
        """Write the list, and `NAME.sources.json` beside it.

        Returns:
            The path of the latter.

        Raises:
            ConfigError: the name ends in .json, which a list of lines does not.
            DataError: the files cannot be written.
        """
        if out.suffix == ".json":
            raise ConfigError(f"a list of queries has one a line and must not end in .json. Got {out}; try .txt.")
        write_text(out, "".join(f"{text}\n" for text in self.texts))
        beside = out.with_name(f"{out.stem}.sources.json")
        about = {"format": SOURCES_FORMAT, "queries": len(self.texts), "cut": self.cut, "sha256": sha256(out)}
        write_json(beside, about | {"sources": [asdict(count) for count in self.counts]})
        return beside


def merged(sources: Iterable[QuerySource], limit: int) -> BuiltQueries:
    """One list of several: source after source, each query once.

    They are in the form of `folded`, in lower case. Left out is what has no letter and no digit, or more than `LONGEST`
    characters.

    Args:
        sources: those whose queries should stay when the limit cuts come first.
        limit: queries of the list at most.
    """
    there: dict[str, None] = {}
    counts: list[SourceCount] = []
    for source in sources:
        before = min(len(there), limit)
        there |= dict.fromkeys(text for text in _usable(source.texts))
        counts.append(
            SourceCount(
                name=source.name,
                licence=source.licence,
                rule=source.rule,
                offered=len(source.texts),
                added=min(len(there), limit) - before,
            )
        )
    texts = tuple(there)
    return BuiltQueries(texts=texts[:limit], counts=tuple(counts), cut=max(0, len(texts) - limit))


def _usable(texts: Sequence[str]) -> Iterable[str]:
    for text in folded(pa.array(texts, pa.string())).to_pylist():
        words = " ".join(text.split())
        if len(words) <= LONGEST and any(map(str.isalnum, words)):
            yield words
