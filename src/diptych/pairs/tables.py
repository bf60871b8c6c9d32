"""Tables of pairs: CSV, TSV, JSON lines, JSON lists of captions and Parquet, read at random."""

import bisect
import functools
import hashlib
import itertools
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diptych.errors import ConfigError, DataError, ImageError, missing_extra
from diptych.pairs.rows import JSON_LINES, SEPARATORS, LineRows, Quoting, checked_columns
from diptych.pairs.samples import (
    UNTYPED_PICTURE,
    Columns,
    Sample,
    as_lines,
    captions_of,
    key_hash,
    splits_said,
    texts_of,
)

TABLES = (*SEPARATORS, *JSON_LINES, ".json", ".parquet")

_ROW_GROUPS = 16  # of a Parquet file, held in memory
_FOOTER = 2**20  # bytes at the end of a Parquet file; offsets and statistics of all columns are there
_LOOKED_AT = 20  # pictures that are looked for before a run


class _Rows(Protocol):
    @property
    def columns(self) -> Columns: ...
    @property
    def digest(self) -> str: ...
    @property
    def ends(self) -> Sequence[int]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    def hashes(self) -> tuple[np.ndarray, np.ndarray]: ...
    def __getitem__(self, number: int) -> Mapping[str, Any]: ...


class PairTable:
    """Rows that name a picture and its captions; rows with the same key are one sample with all their captions.

    Samples stand in the order in which their keys come first. The key is that of the key column, else the picture's
    path as the table writes it, else, for pictures inside the table, the number of the row from 0. A caption is one
    line: breaks within it become spaces. The fingerprint covers the table, not the pictures it points to.

    Args:
        path: of the table, with one of the endings `TABLES`; or a folder with Parquet files, or a pattern of their
            names.
        columns: which to read; a default that the table does not have is looked for by other names in common use.
        pictures: folder from which the pictures are found; None: that of the table.
        separator: of CSV, see `LineRows`.
        quoting: likewise.
        max_bad: share of the rows of a text file that may be unreadable.

    Raises:
        ConfigError: a column is not there.
        DataError: the table cannot be read or has no row, or rows with one key name several pictures.
        MissingExtraError: it is a Parquet file, and pyarrow is not installed.
    """

    def __init__(
        self,
        path: Path,
        columns: Columns,
        *,
        pictures: Path | None = None,
        separator: str = "",
        quoting: Quoting = "auto",
        max_bad: float = 0.0,
    ) -> None:
        self.path = path
        self._asked = columns
        self._pictures = pictures or (path if path.is_dir() else path.parent)
        self._rows = rows = _rows(path, columns, separator, quoting, max_bad)
        self._columns = rows.columns
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
        image = first.get(self._columns.image)
        if isinstance(image, str):
            parts = {Path(image).suffix[1:].lower() or UNTYPED_PICTURE: read_picture(self._pictures / image)}
        elif image is not None and not isinstance(image, bytes):
            raise DataError("picture is no path")
        else:
            parts = {UNTYPED_PICTURE: image} if image else {}
        return Sample(self._key(numbers[0], first), parts | self._text(numbers))

    def key(self, index: int) -> str:
        """The key of one sample; see `Pairs`. Of pictures inside a table it reads these, too."""
        number = self._numbers(index)[0]
        return self._key(number, self._rows[number])

    def captions(self, index: int) -> list[str]:
        """The captions of one sample; see `Pairs`."""
        return captions_of(Sample("", self._text(self._numbers(index))))

    def fingerprint(self) -> str:
        """See `Pairs`."""
        facts = repr((self._rows.digest, self._asked))
        return hashlib.sha256(facts.encode()).hexdigest()

    def check(self) -> list[str]:
        """See `Pairs`; the first pictures are looked for."""
        names = [self._rows[self._numbers(n)[0]].get(self._columns.image) for n in range(min(len(self), _LOOKED_AT))]
        paths = [name for name in names if isinstance(name, str)]
        if len(paths) == len(names) and not any(_is_file(self._pictures / name) for name in paths):
            raise DataError(
                f"{self.path} must name pictures that are there, from {self._pictures}. None of the first {len(names)} "
                f"is, e.g. {paths[0]!r}. Set image_folder in the source, or image_column."
            )
        said = list(self._rows.notes)
        if self._columns != self._asked:
            said.append(
                f"pictures are read from the column {self._columns.image}, captions from {self._columns.captions[0]}"
            )
        return [f"{self.path}: {sentence}." for sentence in said]

    def _key(self, number: int, row: Mapping[str, Any]) -> str:
        image = row.get(self._columns.image)
        own = row.get(self._columns.key) if self._columns.key else image if isinstance(image, str) else None
        return f"{number:09d}" if own is None else str(own)

    def _numbers(self, index: int) -> list[int]:
        start = self._ends[index - 1] if index else 0
        return self._order[start : self._ends[index]].tolist()

    def _text(self, numbers: Sequence[int]) -> dict[str, bytes]:
        rows = (self._rows[number] for number in numbers)
        return {
            "txt": as_lines(text for row in rows for name in self._columns.captions for text in texts_of(row.get(name)))
        }


def _rows(path: Path, columns: Columns, separator: str, quoting: Quoting, max_bad: float) -> _Rows:
    ending = path.suffix.lower()
    if ending == ".json":
        return _ListRows(path, columns)
    if ending == ".parquet" or path.is_dir() or "*" in path.name:
        is_one = path.is_file() or not (path.is_dir() or "*" in path.name)
        return _ParquetRows([path] if is_one else parquet_files(path), columns)
    return LineRows(path, columns, separator=separator, quoting=quoting, max_bad=max_bad)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or, where it has none itself, of those in it; or those that a pattern finds."""
    patterns = [folder.name] if "*" in folder.name else ["*.parquet", "*/*.parquet"]
    folder = folder.parent if "*" in folder.name else folder
    for pattern in patterns:
        if found := sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")):
            return found
    return []


class _ListRows:
    """Captions of one JSON file, in memory: COCO's, Karpathy's, or a list of objects with the columns."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.ends: list[int] = []
        self.notes: list[str] = []
        try:
            content = path.read_bytes()
            self._found, self.columns = _listed(path, json.loads(content), columns)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path} must list pictures with captions: COCO's images and annotations, Karpathy's images with "
                f"sentences, or objects with {columns.image} and {', '.join(columns.captions)}. It cannot be read: "
                f"{type(error).__name__} {error}."
            ) from None
        self.digest = hashlib.sha256(content).hexdigest()
        self.ends = [len(self._found)]

    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """[rows] of the keys, [rows] of the pictures."""
        images = np.array([key_hash(str(row.get(self.columns.image))) for row in self._found], dtype=np.int64)
        if not self.columns.key:
            return images, images
        return np.array([key_hash(str(row.get(self.columns.key))) for row in self._found], dtype=np.int64), images

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        return self._found[number]


def _listed(path: Path, content: Any, columns: Columns) -> tuple[Sequence[Mapping[str, Any]], Columns]:
    """Rows, and the columns that they have."""
    if isinstance(content, list):
        rows = [dict(row) for row in content]
        return rows, checked_columns(path, columns, list(rows[0])) if rows else columns
    plain = Columns("image", ("caption",), "")
    if "annotations" in content:  # COCO
        files = {image["id"]: image["file_name"] for image in content["images"]}
        rows = [{"image": files[one["image_id"]], "caption": one["caption"]} for one in content["annotations"]]
        return rows, plain
    rows = [
        {
            "image": "/".join(filter(None, [image.get("filepath"), image["filename"]])),
            "caption": [sentence["raw"] for sentence in image["sentences"]],
        }
        for image in content["images"]
    ]
    return rows, plain


class _ParquetRows:
    """Rows of Parquet files; a row is read with the whole of its row group, of which the latest few are kept."""

    def __init__(self, paths: Sequence[Path], columns: Columns) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise missing_extra(f"reading {paths[0]}", "parquet", "CSV and tar shards are read without it.") from None
        self.notes = splits_said(path.name for path in paths)
        self._groups: list[tuple[Path, int]] = []  # of all files
        self._schemas: list[Any] = []
        rows, digests = [], []
        for path in paths:
            try:
                # The footer is read once; each row group then through a handle of its own: a handle is for one thread.
                footer = pyarrow.parquet.read_metadata(path)
                schema = pyarrow.parquet.read_schema(path)
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - _FOOTER))
                    digests.append(hashlib.sha256(file.read() + str(path.stat().st_size).encode()).hexdigest())
            except (OSError, pyarrow.ArrowException) as error:
                reason = " ".join(str(error).split())
                raise DataError(f"{path} must be a Parquet file, and cannot be read: {reason}.") from error
            self.columns = checked_columns(path, columns, schema.names)
            self._has_paths = _check_types(path, schema, self.columns)
            groups = [group for group in range(footer.num_row_groups) if footer.row_group(group).num_rows]
            self._groups += [(path, group) for group in groups]
            rows += [footer.row_group(group).num_rows for group in groups]
        self.digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        self.ends = list(itertools.accumulate(rows))

        def read(number: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
            path, group = self._groups[number]
            try:
                with pyarrow.parquet.ParquetFile(path) as file:
                    return file.read_row_group(group, columns=list(names), use_threads=False).to_pylist()
            except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
                raise DataError(f"{path.name} cannot be read") from error

        self._read = read
        wanted = tuple(self.columns.wanted())
        self._group: Callable[[int], list[dict[str, Any]]] = functools.lru_cache(maxsize=_ROW_GROUPS)(
            lambda number: read(number, wanted)
        )

    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """[rows] of the keys, [rows] of the pictures; where pictures lie inside, of the number of the row."""
        image, key = self.columns.image, self.columns.key
        if not self.ends:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        if not key and not self._has_paths and not isinstance(_plain(self._group(0)[0][image]), str):
            return (numbers := np.arange(self.ends[-1])), numbers
        keys, images = array("q"), array("q")
        for number in range(len(self.ends)):
            for row in self._read(number, (image, key) if key else (image,)):
                picture = _plain(row[image])
                images.append(key_hash(picture) if isinstance(picture, str) else len(images))
                keys.append(key_hash(str(row[key])) if key else images[-1])
        return np.asarray(keys), np.asarray(images)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        group = bisect.bisect_right(self.ends, number)
        start = self.ends[group - 1] if group else 0
        row = {name: _plain(value) for name, value in self._group(group)[number - start].items()}
        for name in self.columns.captions:
            if isinstance(row[name], bytes):  # of writers that do not say that their bytes are text
                row[name] = row[name].decode("utf-8", "surrogateescape")
        return row


def _check_types(path: Path, schema: Any, columns: Columns) -> bool:
    """Whether pictures are paths.

    Raises:
        ConfigError: a column holds what is no picture or no caption.
    """
    kind = _inner(schema.field(columns.image).type)
    fields = {kind.field(n).name for n in range(kind.num_fields)} if str(kind).startswith("struct") else set()
    if not (_is_text(kind) or _is_bytes(kind) or fields & {"bytes", "path"}):
        raise ConfigError(
            f"{path}: {columns.image} must hold pictures: paths, bytes, or structs of bytes and path. It holds {kind}. "
            f"Name another column in the source: image_column. Columns: {', '.join(schema.names)}."
        )
    for name in columns.captions:
        held = _inner(schema.field(name).type)
        inner = _inner(held.value_type) if "list" in str(held).split("<")[0] else held
        if not (_is_text(inner) or _is_bytes(inner)):
            raise ConfigError(
                f"{path}: {name} must hold captions: texts or lists of texts. It holds {held}. Name another column in "
                f"the source: caption_columns. Columns: {', '.join(schema.names)}."
            )
    return _is_text(kind)


def _inner(kind: Any) -> Any:
    """What a dictionary or an extension type is about."""
    if str(kind).startswith("dictionary"):
        return kind.value_type
    return getattr(kind, "storage_type", kind)


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view", "utf8", "large_utf8")


def _is_bytes(kind: Any) -> bool:
    return str(kind).split("[")[0] in ("binary", "large_binary", "binary_view", "fixed_size_binary")


def _plain(value: Any) -> Any:
    """A struct of `bytes` and `path`, as Hugging Face data sets store pictures, is what of it is there."""
    return (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


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
