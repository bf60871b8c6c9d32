"""Where the index of a folder lies, and its `index.json`: of which folder and model it is, and which part answers."""

import hashlib
import json
import os
import re
import shlex
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diptych.errors import DataError
from diptych.files import expanded, shown, write_json

INDEX = "index.json"
INDEX_FORMAT = "diptych-index-2"
_OLDER = ("diptych-index-1",)


@dataclass(frozen=True, kw_only=True)
class IndexAbout:
    """What `index.json` says."""

    folder: Path  # of the pictures, absolute
    fingerprint: str  # of the model
    part: str  # the folder beside that answers
    dimensions: int  # D
    model: str = ""  # what --model takes; empty when the model came from a program without a name
    exclude: tuple[str, ...] = ()  # what the folder's own walk leaves out, as lines of an ignore file


def indexes_root() -> Path:
    """The folder of all indexes that are kept by default: in the user's cache, never among the pictures."""
    root = os.environ.get("DIPTYCH_INDEXES") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diptych/indexes"
    return expanded(root)


def index_folder(folder: Path) -> Path:
    """Where the index of some pictures lies by default."""
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in shown(folder.name))[:40] or "root"
    return indexes_root() / f"{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def read_about(index: Path) -> IndexAbout | None:
    """What `index.json` says; None when there is none.

    Raises:
        DataError: it is of another version, or damaged.
    """
    try:
        about = json.loads((index / INDEX).read_text(encoding="utf-8"))
        if about["format"] in _OLDER:
            raise DataError(
                f"{index} is an index of an older kind ({about['format']}), which this version does not read. Make it "
                f"anew: rm -r {shlex.quote(str(index))}, then search again."
            )
        if about["format"] != INDEX_FORMAT:
            raise DataError(
                f"{index} is an index of the kind {about['format']!r}, not {INDEX_FORMAT!r}. Update diptych."
            )
        if about.pop("sum") != _sum(about):
            raise ValueError("its checksum is another")
        return IndexAbout(
            folder=Path(path_of(about["folder"])),
            fingerprint=str(about["fingerprint"]),
            part=str(about["part"]),
            dimensions=int(about["dimensions"]),
            model=str(about["model"]),
            exclude=tuple(map(str, about["exclude"])),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            f"{index / INDEX} cannot be read: {error.strerror or error}. Choose another --index."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{index / INDEX} must describe an index, and is damaged ({error}). Mend it: diptych index repair FOLDER, "
            "with --index if the index does not lie in the cache."
        ) from error


def write_about(index: Path, about: IndexAbout) -> None:
    """Write `index.json`. Only for whoever holds the lock of the index.

    Raises:
        DataError: it cannot be written.
    """
    data = {"format": INDEX_FORMAT, **asdict(about), "folder": text_of(str(about.folder)), "exclude": [*about.exclude]}
    write_json(index / INDEX, {**data, "sum": _sum(data)})


def _sum(data: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())


def command(verb: str, index: Path, about: IndexAbout | None = None) -> str:
    """A command of `diptych index` for an index, as a user can type it.

    Args:
        verb: what follows `diptych index`, e.g. "repair".
        index: its folder.
        about: what its `index.json` says, which is read when not given.
    """
    if about is None:
        try:
            about = read_about(index)
        except DataError:
            about = None
    folder = about.folder if about else None
    words = ["diptych", "index", *verb.split(), shlex.quote(shown(folder)) if folder else "FOLDER"]
    if folder is None or index != index_folder(folder):
        words += ["--index", shlex.quote(shown(index))]
    return " ".join(words)


def text_of(path: str) -> str:
    r"""A path as text that is UTF-8: a byte that is none becomes "//" and two digits, which no path below holds.

    >>> text_of("caf\udce9.jpg")
    'caf//e9.jpg'
    """
    return path if path.isascii() else re.sub("[\\udc80-\\udcff]", lambda match: f"//{ord(match[0]) & 255:02x}", path)


def path_of(text: str) -> str:
    """The path again."""
    if "//" not in text:
        return text
    return re.sub("//([89a-f][0-9a-f])", lambda match: chr(0xDC00 + int(match[1], 16)), text)
