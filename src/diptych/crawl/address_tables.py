"""Tables of addresses and texts: CSV, TSV, JSON lines, Parquet. [extra: parquet]

Columns are found by the names that LAION, DataComp, Conceptual Captions and img2dataset give them, or by those that the
source says. A CSV or TSV without a header, as Conceptual Captions has it, is known by an address in its first row: the
column whose values are addresses is that of the addresses, and where there is one other, it is that of the texts.
Which columns were taken, `Layout.notes` says.
"""

import dataclasses
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diptych.config import unknown_name
from diptych.crawl.collected import (
    Collected,
    as_text,
    clean_text,
    fault_of,
    language_of,
    pixels_of,
    plain_address,
    sha256_of,
)
from diptych.data.texts import encoding_of
from diptych.errors import ConfigError, DataError
from diptych.pairs.rows import (
    JSON_LINES,
    SEPARATORS,
    Dialect,
    Lines,
    Quoting,
    csv_rows,
    has_quotes,
    json_row,
    line_ends,
    row_text,
)
from diptych.pairs.samples import texts_of

ENDINGS = (*SEPARATORS, *JSON_LINES, ".parquet")

_KNOWN = {
    "url": ("url", "URL", "image_url", "img_url", "image_link"),
    "texts": ("text", "TEXT", "caption", "CAPTION", "alt", "alt_text", "captions", "title"),
    "page": ("page", "page_url", "PAGE_URL", "source_url"),
    "licence": ("licence", "license", "LICENSE", "LICENCE"),
    "language": ("language", "LANGUAGE", "lang", "LANG"),
    "width": ("original_width", "width", "WIDTH"),  # img2dataset's width is that of its resized copy
    "height": ("original_height", "height", "HEIGHT"),
    "sha256": ("sha256", "SHA256"),
}
_SEPARATORS = (",", "\t", ";", "|")
_HEAD = 2**20  # bytes in which columns are looked for
_LOOKED_AT = 100  # rows, likewise
_CHUNK = 2**22  # bytes
_BATCH = 8192  # rows of Parquet that are Python objects at once
_BROKEN = re.compile("[\udc80-\udcff]")  # a byte that was no UTF-8
_UNKNOWN = ("", "?", "unknown", "none", "null")  # what stands in a column of licences where none is known


@dataclass(frozen=True, kw_only=True)
class AddressColumns:
    """Names of the columns of a table of addresses; empty: by the names in common use, where there is one."""

    url: str = ""
    texts: tuple[str, ...] = ()  # each is a caption, or a list of them
    page: str = ""
    licence: str = ""
    language: str = ""
    width: str = ""
    height: str = ""
    sha256: str = ""

    def among(self, names: Sequence[str], where: str) -> "AddressColumns":
        """These columns as they are called in a table; what it does not have is empty.

        Args:
            names: of the table's columns.
            where: the table, for messages.

        Raises:
            ConfigError: one that is asked for is not there, or there are no addresses or no texts.
        """
        asked = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in itertools.chain.from_iterable(
            (value,) if isinstance(value, str) else value for value in asked.values()
        ):
            if name and name not in names:
                raise ConfigError(f"{where}: " + unknown_name(name, "", names, "a column"))
        found = {kind: next((name for name in _KNOWN[kind] if name in names), "") for kind in asked if not asked[kind]}
        if "texts" in found:
            found["texts"] = (found["texts"],) if found["texts"] else ()
        columns = dataclasses.replace(self, **found)
        for kind, value in (("url", columns.url), ("texts", columns.texts)):
            if not value:
                what = "addresses" if kind == "url" else "texts"
                raise ConfigError(
                    f"{where} must have a column of {what}. Name it in the source: columns.{kind}. Its columns: "
                    f"{', '.join(names)}."
                )
        return columns

    def wanted(self) -> list[str]:
        """All that there are, each once."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        flat = itertools.chain.from_iterable((value,) if isinstance(value, str) else value for value in values)
        return list(dict.fromkeys(filter(None, flat)))


@dataclass(frozen=True, kw_only=True)
class TableRules:
    """How a table is read."""

    columns: AddressColumns = AddressColumns()
    header: tuple[str, ...] = ()  # names of the columns of a CSV or TSV that has no header
    separator: str = ""  # of a CSV or TSV; empty: comma, tab, semicolon or bar, as finds the columns
    quoting: Quoting = "auto"  # auto: fields may stand in quotes unless tabs or bars part them


@dataclass(frozen=True)
class Layout:
    """How the rows of one table of text lie, as its first ones tell."""

    columns: AddressColumns
    names: tuple[str, ...]
    dialect: Dialect | None  # None: JSON lines
    ends: bytes  # of lines
    start: int  # byte of the first row
    notes: tuple[str, ...]  # what was assumed


def layout_of(file: BinaryIO, name: str, rules: TableRules) -> Layout:
    """How a table of text is to be read.

    Args:
        file: open, to be read from its beginning.
        name: of the file, whose ending tells what it is.
        rules: how.

    Raises:
        ConfigError: its columns cannot be told.
        DataError: it is no UTF-8 text.
    """
    file.seek(0)
    head = file.read(_HEAD)
    encoding = encoding_of(head)
    if not encoding.startswith("utf-8") or b"\0" in head:
        raise DataError(f"{name} must be UTF-8 text, and is {encoding.upper()} or has NUL bytes. Save it as UTF-8.")
    mark, ends = 3 * (encoding == "utf-8-sig"), line_ends(head)
    if name.lower().endswith(JSON_LINES):
        lines = head[mark:].split(ends)[:_LOOKED_AT]
        rows = [row for line in lines if (row := json_row(row_text(line, ends)))]
        names = tuple(dict.fromkeys(itertools.chain.from_iterable(rows)))
        return Layout(rules.columns.among(names, name), names, None, ends, mark, ())
    first, end, _ = head[mark:].partition(ends)
    usual = SEPARATORS.get("." + name.lower().rpartition(".")[2], ",")
    tries = [rules.separator] if rules.separator else [usual, *(one for one in _SEPARATORS if one != usual)]
    known = set(rules.columns.wanted()) or set(itertools.chain.from_iterable(_KNOWN.values()))
    found = list[tuple[int, int, Dialect, list[str]]]()
    for order, separator in enumerate(tries):
        fields = Dialect(separator, True).fields(row_text(first, ends), is_whole=True) or []
        fields = [field.strip() for field in fields]
        is_first_row = any(fault_of(field) is None for field in fields)
        score = len(fields) > 1 if is_first_row else len(known.intersection(fields))
        found.append((int(score), -order, Dialect(separator, has_quotes(separator, rules.quoting)), fields))
    *_, dialect, fields = max(found, key=lambda item: item[:2])
    if rules.header:
        start = mark + (len(first) + len(end) if fields == list(rules.header) else 0)
        return Layout(rules.columns.among(rules.header, name), rules.header, dialect, ends, start, ())
    if any(fault_of(field) is None for field in fields):
        return _without_header(head, mark, ends, dialect, len(fields), name)
    names = tuple(fields)
    return Layout(rules.columns.among(names, name), names, dialect, ends, mark + len(first) + len(end), ())


def _without_header(head: bytes, mark: int, ends: bytes, dialect: Dialect, count: int, name: str) -> Layout:
    """The layout of a table whose first line is a row."""
    lines = Lines(io.BytesIO(head[mark:]), ends)
    rows = [row.fields for row in itertools.islice(csv_rows(lines, dialect, ends, count), _LOOKED_AT)]
    rows = [fields for fields in rows if len(fields) == count]
    shares = [sum(fault_of(plain_address(row[n])) is None for row in rows) for n in range(count)]
    urls = [n for n in range(count) if shares[n] > len(rows) / 2]
    if len(urls) != 1 or count != 2:
        raise ConfigError(
            f"{name} has no header, and {count} columns of which {len(urls)} hold addresses: which is which cannot be "
            "told. Name them in the source: header = [...]."
        )
    names = ("url", "text") if urls == [0] else ("text", "url")
    note = f"{name} has no header: column {urls[0] + 1} holds the addresses, column {2 - urls[0]} the texts."
    return Layout(AddressColumns(url="url", texts=("text",)), names, dialect, ends, mark, (note,))


def cuts_of(file: BinaryIO, layout: Layout, part_rows: int) -> list[tuple[int, int]]:
    """Ranges of bytes of a table of text, each with so many rows (lines, where a row is one), the last one excepted."""
    starts = [layout.start]
    size = file.seek(0, io.SEEK_END)
    file.seek(layout.start)
    if layout.dialect is not None and layout.dialect.quotes:
        rows = csv_rows(Lines(file, layout.ends, position=layout.start), layout.dialect, layout.ends, len(layout.names))
        starts += [row.start for number, row in enumerate(rows) if number and number % part_rows == 0]
    else:
        seen, position = 0, layout.start
        while chunk := file.read(_CHUNK):
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == layout.ends[0])
            picked = ends[(part_rows - 1 - seen) % part_rows :: part_rows] + position + 1
            starts += [int(start) for start in picked if start < size]
            seen, position = seen + len(ends), position + len(chunk)
    return list(zip(starts, [*starts[1:], size], strict=True))


def read_text(file: BinaryIO, name: str, layout: Layout, start: int, stop: int, collected: Collected) -> None:
    """Collect the rows of a range of bytes.

    Args:
        file: of the table.
        name: of the file, which with the row's place is the key of a row without an address.
        layout: of the table.
        start: byte where a row begins.
        stop: byte where the last one has ended.
        collected: where they go.
    """
    file.seek(start)
    lines = Lines(file, layout.ends, position=start)
    if layout.dialect is None:
        while (line := lines.take())[1] and line[0] < stop:
            text = row_text(line[1], layout.ends)
            if text.strip():
                row = json_row(text)
                place = f"{name}, byte {line[0]}"
                if row is None:
                    collected.drop(place, "", "bad row", text[:80], "a JSON object")
                else:
                    _add(row, place, layout.columns, collected)
        return
    count = len(layout.names)
    for row in csv_rows(lines, layout.dialect, layout.ends, count):
        if row.start >= stop:
            return
        place = f"{name}, byte {row.start}"
        if len(row.fields) != count:
            collected.drop(place, "", "bad row", f"{len(row.fields)} columns", f"{count} columns")
        else:
            _add(dict(zip(layout.names, row.fields, strict=True)), place, layout.columns, collected)


def parquet_columns(file: BinaryIO, name: str, rules: TableRules) -> tuple[AddressColumns, int]:
    """The columns of a Parquet file, and how many rows it has.

    Raises:
        ConfigError: its columns cannot be told.
        DataError: it cannot be read.
    """
    with _parquet(file, name) as table:
        return rules.columns.among(table.schema_arrow.names, name), table.metadata.num_rows


def read_parquet(file: BinaryIO, name: str, rules: TableRules, start: int, stop: int, collected: Collected) -> None:
    """Collect a range of rows of a Parquet file; as many of its row groups are decoded as hold them.

    Args:
        file: of the table.
        name: of the file, which with the row's number is the key of a row without an address.
        rules: how.
        start: number of the first row.
        stop: number behind the last one.
        collected: where they go.

    Raises:
        ConfigError: its columns cannot be told.
        DataError: it cannot be read.
    """
    with _parquet(file, name) as table:
        columns = rules.columns.among(table.schema_arrow.names, name)
        counts = [table.metadata.row_group(n).num_rows for n in range(table.metadata.num_row_groups)]
        ends = list(itertools.accumulate(counts))
        groups = [n for n, end in enumerate(ends) if end > start and end - counts[n] < stop]
        if not groups:
            return
        number = ends[groups[0]] - counts[groups[0]]
        try:
            batches = table.iter_batches(_BATCH, row_groups=groups, columns=columns.wanted(), use_threads=False)
            for batch in batches:
                low, high = max(start - number, 0), min(stop - number, len(batch))
                if low < high:
                    for offset, row in enumerate(_rows(batch.slice(low, high - low)), number + low):
                        _add(row, f"{name}, row {offset}", columns, collected)
                number += len(batch)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{name} cannot be read after row {number:,}: {' '.join(str(error).split())}.") from error


def _parquet(file: BinaryIO, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name} must be a Parquet file: {' '.join(str(error).split())}.") from error


def _rows(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any]]:
    names = batch.schema.names
    for values in zip(*(_values(column) for column in batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _values(column: pa.Array) -> Iterable[Any]:
    """The values of a column; text as text also where it is no UTF-8, or is stored as bytes."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            return column.to_pylist()
        except UnicodeDecodeError:
            column = column.cast(pa.large_binary())
    values = column.to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def _add(row: Mapping[str, Any], place: str, columns: AddressColumns, collected: Collected) -> None:
    """A row as one that is kept or dropped."""
    value = row.get(columns.url)
    written = value if isinstance(value, str) else ""
    url = plain_address(written)
    fault, text = fault_of(url), ""
    try:
        captions = [caption for name in columns.texts for caption in _captions(row.get(name))]
        text = as_text(captions)
        if not written.isascii() or not all(map(str.isascii, captions)):
            fault = fault or ("not UTF-8" if any(map(_BROKEN.search, (written, *captions))) else None)
    except DataError:
        fault = fault or "text is no text"
    if not fault and not text:
        fault = "no text"
    if fault:
        collected.drop(url if url and fault_of(url) is None else place, text, fault)
        return
    collected.keep(
        url,
        text,
        url=url,
        page=_page(row[columns.page]) if columns.page in row else None,
        licence=_licence(row[columns.licence]) if columns.licence in row else None,
        language=language_of(row[columns.language]) if columns.language in row else None,
        width=pixels_of(row[columns.width]) if columns.width in row else None,
        height=pixels_of(row[columns.height]) if columns.height in row else None,
        listed_sha256=sha256_of(row[columns.sha256]) if columns.sha256 in row else None,
    )


def _captions(value: Any) -> Sequence[str]:
    return (value,) if isinstance(value, str) else texts_of(value)


def _page(value: Any) -> str | None:
    return plain_address(value) or None if isinstance(value, str) else None


def _licence(value: Any) -> str | None:
    text = clean_text(value) if isinstance(value, str) else ""
    return None if text.lower() in _UNKNOWN else text
