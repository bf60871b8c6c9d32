"""Rows of one piece of a source as they are read: kept, or dropped with a cause."""

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from diptych.rows.columns import PAIRS, pair_key
from diptych.rows.stage import DROPPED, Judged

_BATCH = 8192  # rows that are held as Python objects
_LONGEST_ADDRESS = 8000  # characters; servers and stores take no longer ones
# What shows nothing and may turn a text around: controls, zero-width spaces, marks of direction, halves of a character.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
_HALF = re.compile("[\ud800-\udfff]")
_HTTP = re.compile(
    r"https?://(?:[^/?#@\s\[\]]*@)?(?:\[[0-9a-f:.]+\]|[^/?#@\s:\[\]\\]+)(?::\d{0,5})?(?=[/?#]|\Z)", re.IGNORECASE
)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_LANGUAGE = re.compile(r"\s*([a-zA-Z]{2,3})(?:[-_][a-zA-Z0-9_-]*)?\s*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIXELS = re.compile(r"\s*(\d{1,9})(?:\.\d+)?\s*(?:px)?\s*", re.IGNORECASE | re.ASCII)
_MOST_PIXELS = 10**9  # of a side; fits int32


class Collected:
    """Columns of `PAIRS` and of `DROPPED`, filled row by row.

    Args:
        source: its number.
        licence: of the rows that say none.
        language: likewise.
    """

    def __init__(self, source: int, *, licence: str = "", language: str = "") -> None:
        self._source, self._licence, self._language = source, licence or None, language or None
        self._rows: list[tuple[Any, ...]] = []
        self._gone: list[tuple[str, str, str | None, str | None]] = []
        self._kept_batches: list[pa.RecordBatch] = []
        self._gone_batches: list[pa.RecordBatch] = []

    def keep(
        self,
        address: str,
        text: str,
        *,
        url: str | None = None,
        place: int | None = None,
        page: str | None = None,
        licence: str | None = None,
        language: str | None = None,
        width: int | None = None,
        height: int | None = None,
        listed_sha256: str | None = None,
    ) -> None:
        """A row that is kept.

        Args:
            address: what the key is made of, see `pair_key`.
            text: its captions, one a line, as `clean_text` leaves them.
            url: see `PAIRS`, and so on.
            place: likewise.
            page: likewise.
            licence: likewise.
            language: likewise.
            width: likewise.
            height: likewise.
            listed_sha256: likewise.
        """
        licence, language = licence or self._licence, language or self._language
        key = pair_key(address, text)
        self._rows.append((key, text, url, place, self._source, page, licence, language, width, height, listed_sha256))
        if len(self._rows) == _BATCH:
            self._flush()

    def drop(self, address: str, text: str, cause: str, value: str | None = None, limit: str | None = None) -> None:
        """A row that is dropped.

        Args:
            address: of the picture; where there is none, of the page or the row.
            text: as far as there is one.
            cause: short and countable.
            value: what was measured.
            limit: what it was held against.
        """
        self._gone.append((pair_key(address, text), cause, None if value is None else whole(value)[:200], limit))
        if len(self._gone) == _BATCH:
            self._flush()

    def judged(self) -> Judged:
        """All of them."""
        self._flush()
        kept = pa.Table.from_batches(self._kept_batches, PAIRS).combine_chunks()
        return Judged(kept=kept, dropped=pa.Table.from_batches(self._gone_batches, DROPPED).combine_chunks())

    def _flush(self) -> None:
        for rows, batches, schema in (
            (self._rows, self._kept_batches, PAIRS),
            (self._gone, self._gone_batches, DROPPED),
        ):
            if rows:
                columns = zip(*rows, strict=True)
                arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
                rows.clear()


def clean_text(text: str) -> str:
    r"""One line: runs of spaces and breaks are one space; what shows nothing is gone, halves of characters are "?".

    >>> clean_text(" a\n\tdog \u202eon\x00 grass ")
    'a dog on grass'
    """
    if not text.isprintable():
        text = whole(_UNSEEN.sub("", text))
    return " ".join(text.split())


def as_text(captions: Iterable[str]) -> str:
    """Captions as the text of a row: each clean, on a line of its own, and once."""
    lines = [line for caption in captions if (line := clean_text(caption))]
    return lines[0] if len(lines) == 1 else "\n".join(dict.fromkeys(lines))


def whole(text: str) -> str:
    """A text that UTF-8 can hold: halves of characters, as JSON and broken bytes leave them, become "?"."""
    return text if text.isprintable() else _HALF.sub("?", text)


def fault_of(url: str) -> str | None:
    """The cause for which an address is not one of the web; None where it is.

    >>> [fault_of(url) for url in ("https://a.example/1.jpg", "", "data:image/gif;base64,R0l", "ftp://a/b", "http:///")]
    [None, 'no address', 'data URL', 'not http', 'bad address']
    """
    if not url:
        return "no address"
    if _HTTP.match(url):
        return "address too long" if len(url) > _LONGEST_ADDRESS else None
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[0].lower() in ("http:", "https:"):
        return "bad address"
    return "data URL" if scheme[0].lower() == "data:" else "not http"


def plain_address(url: str) -> str:
    """An address without what browsers pass over: spaces around it, breaks and controls within, and its fragment."""
    url = url.strip()
    if not url.isprintable() or " " in url:
        url = whole(_UNSEEN.sub("", "".join(url.splitlines()).replace("\t", ""))).replace(" ", "%20")
    return url.partition("#")[0]


def language_of(tag: Any) -> str | None:
    """The ISO 639 code of a language tag, "en" of "en-US"; None of what is none."""
    match = _LANGUAGE.fullmatch(tag) if isinstance(tag, str) else None
    return match[1].lower() if match else None


def pixels_of(value: Any) -> int | None:
    """A side in pixels: of "300", "300px" or 300.0; None of "50%", "auto" and the like."""
    if isinstance(value, str):
        if value.isdecimal() and value.isascii() and len(value) < 10:
            return int(value)
        match = _PIXELS.fullmatch(value)
        return int(match[1]) if match else None
    if isinstance(value, int | float) and 0 <= value <= _MOST_PIXELS:  # not NaN
        return int(value)
    return None


def sha256_of(value: Any) -> str | None:
    """A SHA-256 in hexadecimal; None of what is none."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if _SHA256.fullmatch(text) else None
