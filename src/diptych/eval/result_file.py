"""Results as JSON files: the one place where they are written and read.

A file is `Result` field by field, under `format`. A column of numbers is a line of text, a table of scores its ranks
within each column, as bytes in base64: what is made from them looks at the order alone. An audit's results are of the
same pictures again and again: what they share stands once, by its digest.
"""

import base64
import dataclasses
import hashlib
import json
import types
import typing
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from diptych.errors import DataError, DiptychError
from diptych.eval.chapter import AUDIT_FORMAT, Audit
from diptych.eval.result import Result
from diptych.files import write_json

Record = TypeVar("Record", Result, Audit)

RESULT_FORMAT = "diptych-result-1"
_DIGITS = 16  # of a digest in an audit's file, which has a few dozen of them
_CURE = "Measure again with this version: `diptych evaluate suite`, or `zero-shot`, `probe` or `retrieval` with --out."


def write_result(result: Result, path: Path) -> None:
    """Write a result, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    write_record(path, RESULT_FORMAT, result)


def write_record(path: Path, format_: str, record: Any) -> None:
    """Write what is no `Result` but a dataclass as well, such as a choice of prompts: field by field under its format.

    Raises:
        DataError: the file cannot be written.
    """
    write_json(path, {"format": format_, **_encoded(record)})


def read_result(path: Path) -> Result:
    """What `write_result` wrote; confidences have four digits then, and scores are ranks.

    Raises:
        DataError: there is no such file, or it holds something else, or a result of another version.
    """
    return _read(path, RESULT_FORMAT, Result, "a result file", _CURE)


def write_audit(audit: Audit, path: Path) -> None:
    """Write an audit, whole or not at all; its pictures are for the page alone.

    Raises:
        DataError: the file cannot be written.
    """
    chapters = tuple(
        replace(chapter, examples=tuple(replace(one, picture=None) for one in chapter.examples))
        for chapter in audit.chapters
    )
    content = _encoded(replace(audit, chapters=chapters))
    write_json(path, {"format": AUDIT_FORMAT, **content, "shared": _take_out(content)})


def read_audit(path: Path) -> Audit:
    """What `write_audit` wrote, also before results shared anything.

    Raises:
        DataError: there is no such file, or it holds something else, or an audit of another version.
    """
    return _read(path, AUDIT_FORMAT, Audit, "an audit's file", "Make it again: `diptych audit MODEL --out FOLDER`.")


def _read(path: Path, format_: str, kind: type[Record], what: str, cure: str) -> Record:
    content = _json(path, what)
    if not isinstance(content, dict) or content.get("format") != format_:
        older = kind is Result and isinstance(content, dict) and {"task", "model", "data"} <= content.keys()
        found = "a result of an older version" if older else "something else"
        raise DataError(f"{path} must be {what} ({format_}). It holds {found}. {cure}")
    try:
        if kind is Audit:
            _put_back(content, content.pop("shared", {}))
        return _decoded(kind, {name: value for name, value in content.items() if name != "format"})
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error, DiptychError) as error:
        raise DataError(f"{path} must be {what}. It is damaged: {error!r}. {cure}") from None


def read_results(path: Path) -> tuple[dict[Path, Result], list[str]]:
    """Results: of one file, or all of a folder, by name.

    Args:
        path: of the file or folder.

    Returns:
        The results by their files, and of a folder a sentence for each JSON file that is none.

    Raises:
        DataError: there is no result.
    """
    if not path.is_dir():
        return {path: read_result(path)}, []
    found: dict[Path, Result] = {}
    notes: list[str] = []
    for file in sorted(path.glob("*.json")):
        try:
            found[file] = read_result(file)
        except DataError as error:
            notes.append(str(error))
    if not found:
        raise DataError(notes[0] if notes else f"{path} must hold result files (*.json). It holds none.")
    return found, notes


def result_at(path: Path) -> Result | None:
    """The result in a file; None where there is none, or none that can be read."""
    try:
        return read_result(path)
    except DataError:
        return None


def _json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} must be {what}. It cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} must be {what}. It is no JSON: {error}.") from None


def _shareable(audit: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where results of an audit, as JSON, hold what others hold as well: an object, and the name of its field."""
    for chapter in audit["chapters"]:
        for result in chapter["results"]:
            yield result["rows"], "keys"
            yield result, "prompts"


def _take_out(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Leave digests in place of what is shared; what they stand for, by digest."""
    shared: dict[str, Any] = {}
    for holder, name in _shareable(audit):
        value = holder[name]
        holder[name] = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:_DIGITS]
        shared[holder[name]] = value
    return shared


def _put_back(audit: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
    for holder, name in _shareable(audit):
        if isinstance(holder[name], str):
            holder[name] = shared[holder[name]]


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        plain = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: _encoded(one) for name, one in plain if one is not None}
    if isinstance(value, Tensor):
        return _column(value) if value.ndim == 1 else _table(value)
    if isinstance(value, Mapping):
        return {str(name): _encoded(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_encoded(one) for one in value]
    return value


def _decoded(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{name: _decoded(hints[name], one) for name, one in value.items()})  # type: ignore[operator]
    if origin in (types.UnionType, typing.Union):
        options = [one for one in arguments if one is not type(None)]
        return _decoded(options[0], value) if len(options) == 1 else value
    if hint is Tensor:
        return _column_of(value) if isinstance(value, str) else _table_of(value)
    if origin is tuple:
        inner = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(_decoded(one, part) for one, part in zip(inner, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {arguments[0](name): _decoded(arguments[1], one) for name, one in value.items()}
    return float(value) if hint is float else value


def _column(values: Tensor) -> str:
    """Numbers with spaces between; whole ones, and shares to four digits."""
    if values.dtype == torch.float64:
        return " ".join(map(repr, values.tolist()))
    if values.is_floating_point():
        return " ".join(f"{value:.4g}" for value in values.tolist())
    kind = "b" if values.dtype == torch.bool else "i"
    return " ".join([kind, *map(str, values.long().tolist())])


def _column_of(text: str) -> Tensor:
    words = text.split()
    if words[:1] in (["b"], ["i"]):
        return torch.tensor([int(word) for word in words[1:]], dtype=torch.bool if words[0] == "b" else torch.int64)
    return torch.tensor([float(word) for word in words], dtype=torch.float64)


def _table(values: Tensor) -> dict[str, Any]:
    """[n, C] as bytes; numbers that are no truth values become ranks within their column, from 1, and NaN 0."""
    if values.dtype == torch.bool:
        return {"shape": list(values.shape), "bits": _packed(np.packbits(values.numpy()))}
    columns = values.double().numpy()
    ranks = np.zeros(columns.shape, dtype="<u4")
    for number, column in enumerate(columns.T):
        known = ~np.isnan(column)
        ranks[known, number] = np.unique(column[known], return_inverse=True)[1] + 1
    narrow = ranks.astype("<u2") if ranks.max(initial=0) < 1 << 16 else ranks
    return {"shape": list(values.shape), f"ranks{8 * narrow.itemsize}": _packed(narrow)}


def _table_of(table: Mapping[str, Any]) -> Tensor:
    shape = tuple(table["shape"])
    if "bits" in table:
        bits = np.frombuffer(_unpacked(table["bits"]), dtype=np.uint8)
        return torch.tensor(np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool))
    width = "16" if "ranks16" in table else "32"
    ranks = np.frombuffer(_unpacked(table[f"ranks{width}"]), dtype=f"<u{int(width) // 8}").reshape(shape)
    return torch.tensor(np.where(ranks == 0, np.nan, ranks.astype(np.float64)))


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
