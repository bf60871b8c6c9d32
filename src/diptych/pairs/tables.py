"""Tables of pairs: CSV, TSV and Parquet, read at random."""

import bisect
import csv
import functools
import hashlib
import io
import itertools
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config import unknown_name
from diptych.errors import ConfigError, DataError, ImageError, missing_extra
from diptych.files import read_at
from diptych.pairs.shards import UNTYPED_PICTURE, Sample, captions_of, key_hash

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLES = (*_SEPARATORS, ".parquet")

_ROW_GROUPS = 16  # of a Parquet file, held in memory
_FOOTER = 2**20  # bytes at the end of a Parquet file; offsets and statistics of all columns are there


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns."""

    image: str  # the picture's path, from the table's folder; in Parquet also its bytes
    captions: tuple[str, ...]  # each gives a caption; in Parquet also a list of them
    key: str  # empty: rows with the same picture's path are one sample

    def wanted(self) -> list[str]:
        """All of them, each once."""
        return sorted({self.image, *self.captions, *filter(None, [self.key])})


class PairTable:
    """Rows that name a picture and its captions; rows with the same key are one sample with all their captions.

    Samples stand in the order in which their keys come first. The key is that of the key column, else the picture's
    path as the table writes it, else, for pictures inside the table, the number of the row from 0. A caption is one
    line: breaks within it become spaces. The fingerprint covers the table, not the pictures it points to.

    Args:
        path: of the table, with one of the endings `TABLES`; pictures are found from its folder.
        columns: which to read.

    Raises:
        ConfigError: a column is not there.
        DataError: the table cannot be read or has no row, or rows with one key name several pictures.
        MissingExtraError: it is a Parquet file, and pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._columns = columns
        self._rows = rows = (_CsvRows if path.suffix.lower() in _SEPARATORS else _ParquetRows)(path, columns)
        keys, images = rows.hashes()
        if not len(keys):
            raise DataError(f"{path} must hold a row for each pair. It has none.")
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        if (clash := images != images[first][group]).any():
            raise DataError(
                f"{path}: rows with the same {columns.key} must name one picture. Row {int(clash.argmax())} names "
                "another one than the row before with its key."
            )
        rank = np.empty_like(first)
        rank[np.argsort(first)] = np.arange(len(first))  # groups in the order of their first rows
        self._order = np.argsort(rank[group], kind="stable")  # rows, sample by sample
        self._ends = np.cumsum(np.bincount(rank[group]))
        self.shard_ends = rows.ends if len(first) == len(keys) else [len(first)]

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Sample:
        """One sample; see `Pairs`."""
        numbers = self._numbers(index)
        first = self._rows[numbers[0]]
        image = first[self._columns.image]
        key = (
            first[self._columns.key] if self._columns.key else image if isinstance(image, str) else f"{numbers[0]:09d}"
        )
        if isinstance(image, str):
            parts = {Path(image).suffix[1:].lower() or UNTYPED_PICTURE: read_picture(self.path.parent / image)}
        else:
            parts = {UNTYPED_PICTURE: image} if image else {}
        return Sample(str(key), parts | self._text(numbers))

    def captions(self, index: int) -> list[str]:
        """The captions of one sample; see `Pairs`."""
        return captions_of(Sample("", self._text(self._numbers(index))))

    def fingerprint(self) -> str:
        """See `Pairs`."""
        facts = repr((self._rows.digest, self._columns))
        return hashlib.sha256(facts.encode()).hexdigest()

    def _numbers(self, index: int) -> list[int]:
        start = self._ends[index - 1] if index else 0
        return self._order[start : self._ends[index]].tolist()

    def _text(self, numbers: Sequence[int]) -> dict[str, bytes]:
        captions: dict[str, None] = {}
        for number in numbers:
            row = self._rows[number]
            for value in (row[column] for column in self._columns.captions):
                several = [value] if isinstance(value, str) else value or []
                captions |= dict.fromkeys(" ".join(caption.split()) for caption in several if caption)
        return {"txt": "\n".join(captions).encode("utf-8", "surrogateescape")}


class _CsvRows:
    """Rows of a CSV or TSV file with a header, read where they lie; 8 bytes of memory a row.

    Bytes that are not UTF-8 are kept as they are: a caption with some is counted when it is drawn.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self._separator = _SEPARATORS[path.suffix.lower()]
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. Give a CSV or TSV file.") from error
        weakref.finalize(self, self._file.close)
        self._path = path
        starts, keys, images = array("q"), array("q"), array("q")
        digest = hashlib.sha256()
        position = 0

        def lines() -> Iterator[str]:
            nonlocal position
            for line in self._file:
                position += len(line)
                digest.update(line)
                yield line.decode("utf-8", "surrogateescape")

        try:
            reader = csv.reader(lines(), delimiter=self._separator, strict=True)
            self._names = [name.removeprefix("\ufeff") for name in next(reader, [])]
            _check_columns(path, columns, self._names)
            starts.append(position)
            for values in reader:
                if values:
                    row = self._row(values)
                    images.append(key_hash(row[columns.image]))
                    keys.append(key_hash(row[columns.key]) if columns.key else images[-1])
                    starts.append(position)
                else:  # an empty line is no row
                    starts[-1] = position
        except (csv.Error, OSError) as error:
            raise DataError(f"{path} cannot be read after row {len(keys)}: {error}. Write it again.") from error
        self._starts, self._keys, self._images = starts, keys, images
        self.digest = digest.hexdigest()
        self.ends = [len(keys)]

    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """[rows] of the keys, [rows] of the pictures."""
        return np.asarray(self._keys), np.asarray(self._images)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        start, end = self._starts[number], self._starts[number + 1]
        text = read_at(self._file, end - start, start).decode("utf-8", "surrogateescape")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=self._separator) if row]
        if len(rows) != 1 or len(rows[0]) != len(self._names):
            raise DataError(f"{self._path.name} changed during the run")
        return self._row(rows[0])

    def _row(self, values: Sequence[str]) -> Mapping[str, str]:
        if len(values) != len(self._names):
            raise DataError(
                f"{self._path} must have {len(self._names)} columns in each row, as its header. Got {len(values)}: "
                f"{self._separator.join(values)[:80]!r}. Put quotes around a text that has a "
                f"{'tab' if self._separator != ',' else 'comma'}."
            )
        return dict(zip(self._names, values, strict=True))


class _ParquetRows:
    """Rows of a Parquet file; a row is read with the whole of its row group, of which the latest few are kept."""

    def __init__(self, path: Path, columns: Columns) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise missing_extra(f"reading {path}", "parquet", "CSV and tar shards are read without it.") from None
        try:
            # The footer is read once; each row group then through a handle of its own: a handle is for one thread.
            footer = pyarrow.parquet.read_metadata(path)
            names = pyarrow.parquet.read_schema(path).names
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _FOOTER))
                self.digest = hashlib.sha256(file.read() + str(path.stat().st_size).encode()).hexdigest()
        except (OSError, pyarrow.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path} must be a Parquet file, and cannot be read: {reason}.") from error
        _check_columns(path, columns, names)
        self._columns = columns
        groups = range(footer.num_row_groups)
        self.ends = list(itertools.accumulate(footer.row_group(group).num_rows for group in groups))

        def read(group: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
            try:
                with pyarrow.parquet.ParquetFile(path) as file:
                    return file.read_row_group(group, columns=list(names), use_threads=False).to_pylist()
            except (OSError, pyarrow.ArrowException) as error:
                raise DataError(f"{path.name} cannot be read") from error

        self._read = read
        self._group = functools.lru_cache(maxsize=_ROW_GROUPS)(lambda group: read(group, tuple(columns.wanted())))

    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """[rows] of the keys, [rows] of the pictures; where pictures lie inside, of the number of the row."""
        image, key = self._columns.image, self._columns.key
        keys, images = array("q"), array("q")
        for group in range(len(self.ends)):
            if group == 0 and not isinstance(_plain(self._group(0)[0][image]), str) and not key:
                return (numbers := np.arange(self.ends[-1])), numbers
            for row in self._read(group, (image, key) if key else (image,)):
                picture = _plain(row[image])
                images.append(key_hash(picture) if isinstance(picture, str) else len(images))
                keys.append(key_hash(str(row[key])) if key else images[-1])
        return np.asarray(keys), np.asarray(images)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        group = bisect.bisect_right(self.ends, number)
        start = self.ends[group - 1] if group else 0
        return {name: _plain(value) for name, value in self._group(group)[number - start].items()}


def _plain(value: Any) -> Any:
    """A struct of `bytes` and `path`, as Hugging Face data sets store pictures, is what of it is there."""
    return (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value


def _check_columns(path: Path, columns: Columns, names: Sequence[str]) -> None:
    for name in sorted(set(columns.wanted()) - set(names)):
        raise ConfigError(
            f"{path}: "
            + unknown_name(name, "", names, "a column")
            + " Name them in the source: image_column, caption_columns, key_column."
        )


def read_picture(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        ImageError: it is missing, or cannot be opened.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path} must be a picture, and no such file exists.", "missing") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be opened: {error}.") from error
