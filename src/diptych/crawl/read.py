"""Sources of pairs: what files of the world become rows. Every row that is read is kept or dropped with a cause.

A source is cut into pieces that are read apart: a range of a table or of pairs, or a whole WARC or WAT file, which is
read as a stream. Pieces stand in the order of the sources, of their files by name (`natural_order` of the path below
the source's), and of what lies in a file.

A file is known by its name below the source's path, its size, and its time of change to the nanosecond, or behind a URL
by what the store says instead: ETag, checksum or time. Pairs are known by their own fingerprint (`Pairs.fingerprint`:
names and sizes of files, or the digest of a table). So a source that is moved as a whole stays the same.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from diptych.config import to_dict
from diptych.crawl import address_tables
from diptych.crawl.address_tables import AddressColumns, TableRules
from diptych.crawl.collected import Collected, as_text
from diptych.crawl.picture_tags import OPT_OUTS, TEXTS, PageRules
from diptych.crawl.source_files import SourceFile, found_files, mark_of, open_file
from diptych.crawl.web import read_warc, read_wat
from diptych.data.tar import TAR_ENDINGS
from diptych.errors import ConfigError, DataError, ShardError
from diptych.pairs.rows import Quoting
from diptych.pairs.samples import CAPTION_COLUMNS, IMAGE_COLUMN
from diptych.pairs.sources import Pairs, Source, open_pairs
from diptych.rows.stage import Judged

Kind = Literal["warc", "wat", "table", "pairs"]

_ENDINGS: dict[Kind, tuple[str, ...]] = {
    "wat": (".wat", ".wat.gz"),
    "warc": (".warc", ".warc.gz", ".warc.zst"),
    "table": address_tables.ENDINGS,
}


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Where pairs come from: one table `[[sources]]` of a recipe."""

    # A file, a folder, a pattern such as "crawl/*.warc.gz", or a URL of any of them that fsspec reads; of pairs also
    # what `open_pairs` takes.
    path: str
    kind: Literal["auto", "warc", "wat", "table", "pairs"] = "auto"  # auto: by the files' endings and columns
    name: str = ""  # of pairs: part of the keys, so unique among sources; empty: the last part of the path
    licence: str = ""  # of the rows that say none
    language: str = ""  # likewise; ISO 639 code
    texts: tuple[str, ...] = ("alt",)  # of a page: what of a picture tag becomes captions; alt, title, figcaption
    opt_outs: tuple[str, ...] = OPT_OUTS  # of a page: which are obeyed
    page_mb: float = 10.0  # 10^6 bytes; a larger page is left out
    columns: AddressColumns = field(default_factory=AddressColumns)  # of a table of addresses
    header: tuple[str, ...] = ()  # names of the columns of a CSV or TSV that has no header
    separator: str = ""  # of a CSV or TSV; empty: comma, tab, semicolon or bar, as finds the columns
    quoting: Quoting = "auto"  # of a CSV or TSV; auto: fields may stand in quotes unless tabs or bars part them
    image_column: str = IMAGE_COLUMN  # of pairs, and so on: see `Source`
    caption_columns: tuple[str, ...] = CAPTION_COLUMNS
    key_column: str = ""
    image_folder: str = ""

    def __post_init__(self) -> None:
        for name, values, options in (("texts", self.texts, TEXTS), ("opt_outs", self.opt_outs, OPT_OUTS)):
            if unknown := [value for value in values if value not in options]:
                raise ConfigError(f"sources.{name} must be some of {', '.join(options)}. Got {unknown[0]!r}.")
        if not self.texts:
            raise ConfigError(f"sources.texts must name at least one of {', '.join(TEXTS)}. Got none.")
        if not 0 < self.page_mb <= 1000:
            raise ConfigError(f"sources.page_mb must be above 0 and at most 1000. Got {self.page_mb:g}.")
        if len(self.separator) > 1 or self.separator in ('"', "\n", "\r"):
            raise ConfigError(f"sources.separator must be one character, no quote. Got {self.separator!r}.")
        if not self.path:
            raise ConfigError("sources.path must be a file, a folder, a pattern or a URL. Got nothing.")

    @property
    def page_rules(self) -> PageRules:
        return PageRules(texts=self.texts, opt_outs=self.opt_outs, largest=int(self.page_mb * 1e6))

    @property
    def table_rules(self) -> TableRules:
        return TableRules(columns=self.columns, header=self.header, separator=self.separator, quoting=self.quoting)

    @property
    def pairs(self) -> Source:
        """The same as a source of pairs."""
        return Source(
            path=self.path,
            image_column=self.image_column,
            caption_columns=self.caption_columns,
            key_column=self.key_column,
            image_folder=self.image_folder,
            separator=self.separator,
            quoting=self.quoting,
        )

    @property
    def own_name(self) -> str:
        """What stands before the keys of its samples; it does not change when the folder is moved."""
        if self.name:
            return self.name
        parts = self.path.rstrip("/").split("/")
        return "/".join(parts[-2:] if "*" in parts[-1] else parts[-1:])


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is read at a time: a range of one file, or of the samples of a source."""

    source: int  # its number
    kind: Kind
    file: str  # path or URL; of pairs the source's
    name: str  # the file's, below the source's path
    start: int = 0  # of a table of text in bytes, of Parquet in rows, of pairs in samples
    stop: int = 0  # behind the last one; 0: all of the file
    mark: str  # changes with the file, see the top of this file


def pieces(sources: Sequence[PairSource], part_rows: int) -> list[Piece]:
    """What there is to read, in its order.

    Tables of text are looked through for where their rows begin; of Parquet the footers are read, of pairs what
    `open_pairs` reads.

    Args:
        sources: of the recipe.
        part_rows: rows of a piece of a table, samples of one of pairs.

    Raises:
        ConfigError: a column is not there, two sources of pairs have one name, or it cannot be told what a source is.
        DataError: there is nothing at a path, or it cannot be read.
        MissingExtraError: a kind needs one.
    """
    assert part_rows > 0
    found, names = list[Piece](), dict[str, int]()
    for number, source in enumerate(sources):
        kind, files = _resolved(source)
        if kind == "pairs":
            if source.own_name in names:
                raise ConfigError(
                    f"sources {names[source.own_name] + 1} and {number + 1} must have names of their own, which stand "
                    f"in the keys of their samples. Both are {source.own_name!r}: set name in one."
                )
            names[source.own_name] = number
            found += _cut_pairs(number, source, part_rows)
            continue
        for file in files:
            piece = Piece(source=number, kind=kind, file=file.path, name=file.name, mark=mark_of(file.path))
            cuts = _cut(source, file, part_rows) if kind == "table" else [(0, 0)]
            found += [dataclasses.replace(piece, start=start, stop=stop) for start, stop in cuts]
    return found


def check(sources: Sequence[PairSource]) -> list[str]:
    """What is assumed in reading the sources: a sentence each.

    Raises:
        ConfigError, DataError, MissingExtraError: as `pieces`.
    """
    said = []
    for source in sources:
        kind, files = _resolved(source)
        if kind == "pairs":
            said += open_pairs(source.pairs).check()
        elif kind == "table":
            for file in files:
                if not _is_parquet(file.name):
                    with open_file(file.path, seeks=True) as stream:
                        said += address_tables.layout_of(stream, file.name, source.table_rules).notes
    return said


def fingerprint(found: Sequence[Piece], sources: Sequence[PairSource]) -> str:
    """SHA-256 that changes when what is read does: with files, options and pieces, not with where a source lies."""
    options = [{name: value for name, value in to_dict(source).items() if name != "path"} for source in sources]
    facts = [(piece.source, piece.kind, piece.name, piece.start, piece.stop, piece.mark) for piece in found]
    return hashlib.sha256(json.dumps([options, facts]).encode()).hexdigest()


def read_piece(piece: Piece, sources: Sequence[PairSource]) -> Judged:
    """The rows of a piece, each kept or dropped.

    Args:
        piece: one of `pieces(sources, ...)`.
        sources: of the recipe.

    Raises:
        DataError: it cannot be read, or is another one by now.
        MissingExtraError: its kind needs one.
    """
    source = sources[piece.source]
    collected = Collected(piece.source, licence=source.licence, language=source.language)
    if piece.kind == "pairs":
        _read_pairs(piece, source, collected)
        return collected.judged()
    if (now := mark_of(piece.file)) != piece.mark:
        raise DataError(f"{piece.file} must stay as it was when the run began, and has changed ({now}). Start again.")
    with open_file(piece.file, seeks=piece.kind == "table") as file:
        if piece.kind == "warc":
            read_warc(file, piece.name, collected, source.page_rules)
        elif piece.kind == "wat":
            read_wat(file, piece.name, collected, source.page_rules)
        elif _is_parquet(piece.name):
            address_tables.read_parquet(file, piece.name, source.table_rules, piece.start, piece.stop, collected)
        else:
            layout = address_tables.layout_of(file, piece.name, source.table_rules)
            address_tables.read_text(file, piece.name, layout, piece.start, piece.stop, collected)
    return collected.judged()


def sample_address(source: PairSource, key: str) -> str:
    """What stands for the address in the key of a sample that has none: the source's name and the sample's key."""
    return f"pairs:{source.own_name}/{key}"


@functools.lru_cache(maxsize=4)
def opened_pairs(source: Source, mark: str) -> Pairs:
    """The samples of a source, opened once in a process.

    Args:
        source: of pairs.
        mark: its fingerprint, as a piece has it.

    Raises:
        DataError: it cannot be opened, or is another one by now.
    """
    pairs = open_pairs(source)
    if pairs.fingerprint() != mark:
        raise DataError(f"{source.path} must stay as it was when the run began, and has changed. Start again.")
    return pairs


def _read_pairs(piece: Piece, source: PairSource, collected: Collected) -> None:
    pairs = opened_pairs(source.pairs, piece.mark)
    for place in range(piece.start, piece.stop):
        address = f"{source.own_name}, sample {place}"
        try:
            address = sample_address(source, pairs.key(place))
            text = as_text(pairs.captions(place))
        except ShardError as error:
            collected.drop(address, "", error.cause)
        except DataError as error:
            collected.drop(address, "", str(error))
        else:
            if text:
                collected.keep(address, text, place=place)
            else:
                collected.drop(address, "", "no caption")


def _cut_pairs(number: int, source: PairSource, part_rows: int) -> Iterator[Piece]:
    try:
        pairs = open_pairs(source.pairs)
    except ConfigError as error:
        hint = " If it is a table of addresses, set kind to table in the source." if source.kind == "auto" else ""
        raise ConfigError(f"{error}{hint}") from error
    mark = pairs.fingerprint()
    for start in range(0, len(pairs), part_rows):
        stop = min(start + part_rows, len(pairs))
        yield Piece(
            source=number, kind="pairs", file=source.path, name=source.own_name, start=start, stop=stop, mark=mark
        )


def _cut(source: PairSource, file: SourceFile, part_rows: int) -> list[tuple[int, int]]:
    with open_file(file.path, seeks=True) as stream:
        if _is_parquet(file.name):
            _, rows = address_tables.parquet_columns(stream, file.name, source.table_rules)
            return [(start, min(start + part_rows, rows)) for start in range(0, rows, part_rows)]
        layout = address_tables.layout_of(stream, file.name, source.table_rules)
        return [(start, stop) for start, stop in address_tables.cuts_of(stream, layout, part_rows) if start < stop]


def _resolved(source: PairSource) -> tuple[Kind, list[SourceFile]]:
    """What a source is, and its files; of pairs none.

    Raises:
        ConfigError: it cannot be told.
        DataError: nothing is there.
    """
    if source.kind == "pairs" or source.path.startswith("embedded:"):
        return "pairs", []
    found = found_files(source.path)
    if source.kind != "auto":
        if not (files := _of_kind(found, source.kind) or (found if len(found) == 1 else [])):
            endings = ", ".join(_ENDINGS[source.kind])
            raise DataError(f"{source.path} must hold files of the kind {source.kind} ({endings}). It has none.")
        return source.kind, files
    by_kind: dict[Kind, list[SourceFile]] = {kind: files for kind in _ENDINGS if (files := _of_kind(found, kind))}
    if "warc" in by_kind and "wat" in by_kind:
        raise ConfigError(
            f"{source.path} has WARC and WAT files, which tell of the same pages. Set kind to warc or wat."
        )
    for kind in ("warc", "wat"):
        if kind in by_kind:
            return kind, by_kind[kind]
    tables = by_kind.get("table", [])
    has_shards = any(file.name.lower().endswith(TAR_ENDINGS) for file in found)
    if tables and not has_shards and _has_addresses(source, tables[0]):
        return "table", tables
    return "pairs", []


def _of_kind(files: Sequence[SourceFile], kind: Kind) -> list[SourceFile]:
    return [file for file in files if file.name.lower().endswith(_ENDINGS[kind])]


def _has_addresses(source: PairSource, file: SourceFile) -> bool:
    """Whether a table has a column of addresses; one with a column of pictures is a table of pairs."""
    if source.columns != AddressColumns() or source.header:
        return True
    with open_file(file.path, seeks=True) as stream:
        try:
            if _is_parquet(file.name):
                address_tables.parquet_columns(stream, file.name, source.table_rules)
            else:
                address_tables.layout_of(stream, file.name, source.table_rules)
        except ConfigError:
            return False
    return True


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")
