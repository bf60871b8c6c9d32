"""Evaluation sets as Parquet files of the Hugging Face hub, read at random [extra: parquet].

Files `SPLIT-00000-of-00002.parquet`, in the folder or in `data/` or another one below, or `SPLIT/*.parquet`. The schema
tells which column holds pictures and which the class, and the names of the classes; without it they go by name.
"""

import contextlib
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.config import unknown_name
from diptych.errors import DataError, ImageError, missing_extra
from diptych.sets.pictures import LabelledRows, Stored
from diptych.sets.webdataset import no_split, which_split

_GROUPS = 8  # row groups that are held in memory
_IMAGES = ("image", "img", "jpg", "png", "webp", "picture")
_LABELS = ("label", "fine_label", "labels", "cls", "class", "target")
_CAPTIONS = ("caption", "captions", "sentences", "text", "texts", "sentences_raw")


@dataclass(frozen=True, slots=True)
class _Cell:
    """One picture in a table."""

    path: Path
    group: int
    row: int
    column: str

    def read_bytes(self) -> bytes:
        value = _column(self.path, self.group, self.column)[self.row]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ImageError(f"{self.path} must hold pictures themselves. Row {self.row} only names one.", "missing")
        return content


def parquet_rows(folder: Path, split: str) -> LabelledRows | None:
    """Pictures and classes of one split; None where the folder holds no Parquet files.

    Raises:
        DataError: there is no such split, a file cannot be read, or a column is missing.
        MissingExtraError: pyarrow is not installed.
    """
    files = _files(folder, split)
    if not files:
        return None
    features = _features(files[0])
    image = _chosen(files[0], features, "Image", _IMAGES)
    label = _chosen(files[0], features, "ClassLabel", _LABELS)
    labels = [value for path in files for value in _values(path, label)]
    names = (features.get(label) or {}).get("names") or sorted({str(value) for value in labels}, key=_number_or_text)
    numbers = {str(name): number for number, name in enumerate(names)}
    try:
        # A ClassLabel is a number that counts names; a column without names holds these, or numbers that are.
        has_names = bool((features.get(label) or {}).get("names"))
        targets = [int(value) if has_names else numbers[str(value)] for value in labels]
    except (TypeError, ValueError) as error:
        raise DataError(f"{folder}: each row must have a class in column {label}. Not so: {error}.") from None
    if targets and not 0 <= min(targets) <= max(targets) < len(names):
        raise DataError(f"{folder}: classes in column {label} must be from 0 to {len(names) - 1}. Some are hidden.")
    return LabelledRows(list(map(str, names)), _rows(files, image, targets))


def parquet_captions(folder: Path, split: str) -> list[tuple[str, Stored, tuple[str, ...]]] | None:
    """Key, picture and captions of each row of one split; None where the folder holds no Parquet files.

    Raises:
        DataError: there is no such split, a file cannot be read, or a column is missing.
        MissingExtraError: pyarrow is not installed.
    """
    files = _files(folder, split)
    if not files:
        return None
    features = _features(files[0])
    image = _chosen(files[0], features, "Image", _IMAGES)
    column = _chosen(files[0], features, None, _CAPTIONS)
    values = [value for path in files for value in _values(path, column)]
    several = [(value,) if isinstance(value, str) else tuple(value or ()) for value in values]
    pictures = _rows(files, image, range(len(several)))
    return [(key, cell, several[number]) for key, cell, number in pictures]


def _files(folder: Path, split: str) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*.parquet")) if not path.name.startswith(".")]
    if not files:
        return []
    by_split: dict[str, list[Path]] = {}
    for path in files:
        name = path.name.removesuffix(".parquet").partition("-")[0]
        by_split.setdefault(path.parent.name if name.isdecimal() else name, []).append(path)
    found = which_split(split, by_split)
    if found is None:
        raise no_split(folder, split, by_split)
    return by_split[found]


def _rows(files: Sequence[Path], image: str, targets: Iterable[int]) -> list[tuple[str, Stored, int]]:
    cells = [
        _Cell(path, group, row, image)
        for path in files
        for group, rows in enumerate(_group_sizes(path))
        for row in range(rows)
    ]
    keys = (f"{number:08d}" for number in range(len(cells)))
    return list(zip(keys, cells, targets, strict=True))


def _chosen(path: Path, features: dict[str, Any], kind: str | None, names: Sequence[str]) -> str:
    """The column of a kind; of several the first of `names`, else the one with the most classes."""
    typed = [name for name, feature in features.items() if kind and (feature or {}).get("_type") == kind]
    candidates = typed or list(features)
    found = next((name for name in names if name in candidates), None)
    if found or typed:
        return found or max(typed, key=lambda name: len(features[name].get("names") or ()))
    raise DataError(f"{path}: {unknown_name(names[0], '', list(features), 'a column')}")


def _features(path: Path) -> dict[str, Any]:
    """What the schema tells of each column; an empty one where it tells nothing."""
    with _reading(path) as parquet:
        schema = parquet.read_schema(path)
    columns: dict[str, Any] = dict.fromkeys(schema.names)
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return columns
    return columns | {name: feature for name, feature in told.items() if name in columns}


def _values(path: Path, column: str) -> list[Any]:
    return [value for group in range(len(_group_sizes(path))) for value in _column_of(path, group, column)]


def _group_sizes(path: Path) -> list[int]:
    with _reading(path) as parquet:
        footer = parquet.read_metadata(path)
        return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]


@functools.lru_cache(maxsize=_GROUPS)
def _column(path: Path, group: int, column: str) -> list[Any]:
    return _column_of(path, group, column)


def _column_of(path: Path, group: int, column: str) -> list[Any]:
    with _reading(path) as parquet, parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column], use_threads=False).column(0).to_pylist()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Pyarrow's part for Parquet, with our sentences."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra(f"reading {path}", "parquet", "Other layouts are read without it.") from None
    try:
        yield pyarrow.parquet
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} must be a Parquet file, and cannot be read: {reason}.") from error


def _number_or_text(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (0, name)
