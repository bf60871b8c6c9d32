"""Rows of tables that are text, read where they lie: CSV, TSV and JSON lines; and lists of captions in one JSON.

Rules of CSV. A field stands in quotes when it begins with one and a closing quote ends it; what only begins with a
quoted word is text as it stands. A row goes over several lines only within a field in quotes. In a table that is
separated by tabs a quote is a letter, unless the source says otherwise.
"""

import collections
import functools
import hashlib
import json
import re
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from diptych.config import unknown_name
from diptych.data.texts import encoding_of
from diptych.errors import ConfigError, DataError
from diptych.files import read_at
from diptych.pairs.samples import Columns, key_hash

Quoting = Literal["auto", "quotes", "none"]
SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")

_TRIED = (",", "\t", ";", "|")  # where the ending's own separator does not find the columns
_HEAD = 2**16  # bytes in which line ends and NULs are looked for
_LONGEST_ROW = 1000  # lines; a quote that is not closed by then was no opening one
_MARK = "\ufeff"


@dataclass(frozen=True)
class Dialect:
    """How the text of a row becomes fields."""

    separator: str
    quotes: bool

    def fields(self, row: str, *, is_whole: bool) -> list[str] | None:
        """The fields of a row without its line end; none where an unquoted one has a line end.

        Args:
            row: its text.
            is_whole: a quote that is not closed is a letter; else the answer is then None, as the row goes on.
        """
        if not self.quotes or '"' not in row:
            return self._stripped(row.split(self.separator))
        fields, start = [], 0
        while True:
            if quoted := _quoted(self.separator).match(row, start):
                fields.append(quoted[1].replace('""', '"'))
                end = quoted.end()
            elif not is_whole and _OPEN.match(row, start):
                return None
            else:
                end = row.find(self.separator, start)
                end = len(row) if end < 0 else end
                fields.append(row[start:end])
                if "\n" in fields[-1]:
                    return []
            if end == len(row):
                return self._stripped(fields)
            start = end + 1

    def _stripped(self, fields: list[str]) -> list[str]:
        return [field.strip() for field in fields] if self.separator == "|" else fields


_OPEN = re.compile(r'"(?:[^"]|"")*+\Z')  # a field in quotes that has not ended


@functools.cache
def _quoted(separator: str) -> re.Pattern[str]:
    return re.compile(rf'"((?:[^"]|"")*+)"(?={re.escape(separator)}|\Z)')


@dataclass
class _Seen:
    """How many of a kind, and the first."""

    count: int = 0
    line: int = 0  # its number, from 1
    text: str = ""

    def add(self, line: int, text: str = "") -> None:
        if not self.count:
            self.line, self.text = line, text
        self.count += 1


class LineRows:
    """Rows of a text file, read where they lie; 16 bytes of memory a row.

    Bytes that are not UTF-8 are kept as they are: a caption with some is counted when it is drawn. Rows without the
    header's columns, or that are no JSON object, are left out up to a limit.

    Args:
        path: of the table; one of JSON lines by its ending, else CSV.
        columns: which to read.
        separator: of CSV; empty: the one that finds the columns in the header.
        quoting: whether fields may stand in quotes; "auto": unless the separator is a tab or "|".
        max_bad: share of the rows that may be unreadable; where it is not 0, one may be in any case.

    Raises:
        ConfigError: a column is not there.
        DataError: the file cannot be read, is no UTF-8 text, or has too many rows that are none.
    """

    def __init__(
        self, path: Path, columns: Columns, *, separator: str = "", quoting: Quoting = "auto", max_bad: float = 0.0
    ) -> None:
        self._path = path
        self._is_json = path.suffix.lower() in JSON_LINES
        self._file, self._ends = _opened(path)
        weakref.finalize(self, self._file.close)
        self._digest = hashlib.sha256()
        self._starts, self._sizes, self._keys, self._images = array("q"), array("q"), array("q"), array("q")
        self._bad = _Seen()  # rows that are none
        self._long = _Seen()  # rows of several lines
        self._unclosed = _Seen()  # rows with a quote that is not closed
        self._in_quotes = 0  # fields that look quoted where a quote is a letter
        self.notes: list[str] = []
        lines = Lines(self._file, self._ends, self._digest)
        try:
            if self._is_json:
                self.columns = self._read_json(lines, columns)
            else:
                self.columns = self._read_csv(lines, columns, separator, quoting)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read after row {len(self._starts)}: {error.strerror}. Write it again."
            ) from error
        self.digest = self._digest.hexdigest()
        self.ends = [len(self._starts)]
        self._judge(lines.count, max_bad)

    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """[rows] of the keys, [rows] of the pictures."""
        return np.asarray(self._keys), np.asarray(self._images)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        content = read_at(self._file, self._sizes[number], self._starts[number])
        row = self._parsed(self._text(content))
        if row is None or self._hash(row.get(self.columns.image), self._starts[number]) != self._images[number]:
            raise DataError(f"{self._path.name} changed during the run")
        return row

    def _read_csv(self, lines: "Lines", columns: Columns, separator: str, quoting: Quoting) -> Columns:
        header = self._text(lines.take()[1]).removeprefix(_MARK)
        self._dialect, self._names = _dialect(self._path, header, columns, separator, quoting)
        found = checked_columns(self._path, columns, self._names)
        if self._dialect.separator != SEPARATORS.get(self._path.suffix.lower()) and not separator:
            self.notes.append(f"columns are separated by {_name_of(self._dialect.separator)}")
        for row in csv_rows(lines, self._dialect, self._ends, len(self._names)):
            if row.is_unclosed:
                self._unclosed.add(row.line)
            if row.lines > 1:
                self._long.add(row.line)
            if len(row.fields) != len(self._names):
                self._bad.add(row.line, row.text)
                continue
            if not self._dialect.quotes:
                self._in_quotes += sum(len(f) > 1 and f[0] == f[-1] == '"' for f in row.fields)
            self._add(dict(zip(self._names, row.fields, strict=True)), found, row.start, row.size)
        return found

    def _read_json(self, lines: "Lines", columns: Columns) -> Columns:
        found: Columns | None = None
        while (line := lines.take())[1]:
            text = self._text(line[1]).removeprefix(_MARK)
            if not text.strip():
                continue
            row = self._parsed(text)
            if row is None:
                self._bad.add(lines.count, text)
                continue
            found = found or checked_columns(self._path, columns, list(row))
            self._add(row, found, *line[:1], len(line[1]))
        return found or columns

    def _add(self, row: Mapping[str, Any], columns: Columns, start: int, size: int) -> None:
        self._starts.append(start)
        self._sizes.append(size)
        self._images.append(self._hash(row.get(columns.image), start))
        self._keys.append(self._hash(row.get(columns.key), start) if columns.key else self._images[-1])

    def _hash(self, value: Any, start: int) -> int:
        """Of a key or a picture; what a row does not have, it shares with no other."""
        return key_hash(f"{start}" if value is None else value if isinstance(value, str) else repr(value))

    def _parsed(self, text: str) -> Mapping[str, Any] | None:
        """A row, or None where it is none."""
        if not self._is_json:
            fields = self._dialect.fields(text, is_whole=True) or []
            return dict(zip(self._names, fields, strict=True)) if len(fields) == len(self._names) else None
        return json_row(text)

    def _text(self, content: bytes) -> str:
        return row_text(content, self._ends)

    def _judge(self, lines: int, max_bad: float) -> None:
        """Refuse what has too many rows that are none; say what of it a user may not expect."""
        rows, bad = len(self._starts), self._bad
        if bad.count > max(max_bad * (rows + bad.count), max_bad > 0) or (bad.count and not rows):
            raise DataError(
                f"{self._path}: {self._complaint(bad.text)} This is line {bad.line:,}, of {bad.count:,} such."
            )
        if bad.count:
            self.notes.append(
                f"{bad.count:,} of {rows + bad.count:,} rows cannot be read and are left out; one is in line "
                f"{bad.line:,}"
            )
        if self._long.count:
            self.notes.append(
                f"{rows:,} rows stand on {lines - 1:,} lines: {self._long.count:,} go over several, within quotes; one "
                f"from line {self._long.line:,}. Where none should, set quoting to none"
            )
        if self._unclosed.count:
            self.notes.append(
                f"a quote is not closed in {self._unclosed.count:,} rows, the first in line {self._unclosed.line:,}: "
                "it is read as a letter"
            )
        if self._in_quotes:
            self.notes.append(
                f"{self._in_quotes:,} fields stand in quotes, which are letters in a table of this kind. Where they "
                "are none, set quoting to quotes"
            )

    def _complaint(self, text: str) -> str:
        if self._is_json:
            return f"each line must be a JSON object. Got {text[:80]!r}."
        cure = (
            f"Put quotes around a text that has a {_name_of(self._dialect.separator)}."
            if self._dialect.quotes
            else "If texts stand in quotes, set quoting to quotes in the source."
        )
        count = len(self._dialect.fields(text, is_whole=True) or [])
        return f"a row must have {len(self._names)} columns, as the header. Got {count}: {text[:80]!r}. {cure}"


class Lines:
    """The lines of a file with where they begin; some can be given back.

    Args:
        file: read from where it stands.
        ends: what ends a line.
        digest: takes in each line.
        position: of the first line.
    """

    def __init__(self, file: BinaryIO, ends: bytes, digest: Any = None, position: int = 0) -> None:
        self._lines = iter(file) if ends == b"\n" else _split(file, ends)
        self._digest = digest
        self._waiting: collections.deque[bytes] = collections.deque()
        self._position = position
        self.count = 0  # lines taken so far

    def take(self) -> tuple[int, bytes]:
        """The next line and its offset; an empty one at the end."""
        if self._waiting:
            line = self._waiting.popleft()
        else:
            line = next(self._lines, b"")
            if self._digest:
                self._digest.update(line)
        start = self._position
        self._position += len(line)
        self.count += bool(line)
        return start, line

    def give_back(self, lines: Sequence[bytes]) -> None:
        """The last lines, in their order."""
        self._waiting.extendleft(reversed(lines))
        self._position -= sum(map(len, lines))
        self.count -= len(lines)


class CsvRow(NamedTuple):
    """One row of CSV, or what stands in the place of one."""

    line: int  # number of its first line, from 1
    start: int  # of its first byte
    size: int  # bytes
    text: str  # of its first line
    fields: list[str]  # as many as the header has, or it is no row
    lines: int  # that it stands on
    is_unclosed: bool  # a quote begins and does not end, and is read as a letter


def csv_rows(lines: Lines, dialect: Dialect, ends: bytes, columns: int) -> Iterator[CsvRow]:
    """The rows of CSV from where the lines stand; an empty line is none.

    Args:
        lines: of the file.
        dialect: of the table.
        ends: what ends its lines.
        columns: how many a row must have.
    """
    while (line := lines.take())[1]:
        start, content = line
        first = lines.count
        text = row_text(content, ends)
        if not text.strip():
            continue
        fields, more = dialect.fields(text, is_whole=False), list[bytes]()
        while fields is None and len(more) < _LONGEST_ROW and (added := lines.take()[1]):
            more.append(added)
            if b'"' in added:
                fields = dialect.fields(row_text(content + b"".join(more), ends), is_whole=False)
        is_unclosed = fields is None or bool(more and len(fields) != columns)
        if is_unclosed:
            lines.give_back(more)
            more = []
            fields = dialect.fields(text, is_whole=True) or []
        yield CsvRow(first, start, len(content) + sum(map(len, more)), text, fields or [], 1 + len(more), is_unclosed)


def row_text(content: bytes, ends: bytes) -> str:
    """The text of a row without its line end, the line ends within as line feeds; what is no UTF-8 as surrogates."""
    text = content.decode("utf-8", "surrogateescape")
    return text.removesuffix("\n").removesuffix("\r") if ends == b"\n" else text.removesuffix("\r")


def json_row(text: str) -> Mapping[str, Any] | None:
    """A row of JSON lines, or None where it is none."""
    try:
        row = json.loads(text.removeprefix(_MARK))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def line_ends(head: bytes) -> bytes:
    """What ends the lines of a text, by its beginning."""
    return b"\n" if b"\n" in head or b"\r" not in head else b"\r"


def _split(file: BinaryIO, ends: bytes) -> Iterator[bytes]:
    rest = b""
    while chunk := file.read(2**20):
        *whole, rest = (rest + chunk).split(ends)
        yield from (line + ends for line in whole)
    if rest:
        yield rest


def _opened(path: Path) -> tuple[BinaryIO, bytes]:
    """A file of text, and what ends its lines."""
    try:
        file = path.open("rb")
        head = file.read(_HEAD)
        file.seek(0)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Give a table of pairs.") from error
    encoding = encoding_of(head)
    if b"\0" in head or not encoding.startswith("utf-8"):
        file.close()
        what = "has NUL bytes" if encoding.startswith("utf-8") else f"is {encoding.upper()}"
        raise DataError(f"{path} must be UTF-8 text, and {what}. Save it as UTF-8.")
    return file, line_ends(head)


def _dialect(path: Path, header: str, columns: Columns, separator: str, quoting: Quoting) -> tuple[Dialect, list[str]]:
    """The separator whose header has the columns, or most of them; the names in it."""
    usual = SEPARATORS.get(path.suffix.lower(), ",")
    found: list[tuple[int, Dialect, list[str]]] = []
    for tried in (separator,) if separator else (usual, *(other for other in _TRIED if other != usual)):
        quotes = has_quotes(tried, quoting)
        names = [name.strip() for name in Dialect(tried, True).fields(header, is_whole=True) or []]
        there = sum(name in names for name in columns.among(names).wanted())
        found.append((there, Dialect(tried, quotes), names))
    _, dialect, names = max(found, key=lambda item: (item[0], len(item[2]) if not item[0] else 0))
    return dialect, names


def has_quotes(separator: str, quoting: Quoting) -> bool:
    """Whether fields may stand in quotes."""
    return separator not in ("\t", "|") if quoting == "auto" else quoting == "quotes"


def checked_columns(path: Path, columns: Columns, names: Sequence[str]) -> Columns:
    """The columns by the names that they have in a table.

    Raises:
        ConfigError: one is not there.
    """
    found = columns.among(names)
    for name in sorted(set(found.wanted()) - set(names)):
        raise ConfigError(
            f"{path}: "
            + unknown_name(name, "", names, "a column")
            + " Name them in the source: image_column, caption_columns, key_column."
        )
    return found


def _name_of(separator: str) -> str:
    return {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}.get(separator, repr(separator))
