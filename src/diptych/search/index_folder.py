"""The folder of an index: where that of some pictures lies, what its `index.json` says, and what state it is in."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.errors import DataError
from diptych.search.store import Store
from diptych.weights.bundle import Bundle

INDEX = "index.json"
INDEX_FORMAT = "diptych-index-1"


def index_folder(folder: Path) -> Path:
    """Where the index of some pictures lies by default: in the user's cache, never among them."""
    root = os.environ.get("DIPTYCH_INDEXES") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diptych/indexes"
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in folder.name)[:40] or "root"
    return Path(root).expanduser() / f"{name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def read_about(index: Path) -> dict[str, Any] | None:
    """What `index.json` says; None when there is none.

    Raises:
        DataError: it is of a newer version, or damaged.
    """
    try:
        about = json.loads((index / INDEX).read_text(encoding="utf-8"))
        if about["format"] != INDEX_FORMAT:
            raise DataError(
                f"{index} is an index of the kind {about['format']!r}, not {INDEX_FORMAT!r}. Update diptych."
            )
        if not isinstance(about["dimensions"], int):
            raise TypeError("dimensions is no number")
        if not all(isinstance(about[key], str) for key in ("folder", "fingerprint", "part", "model")):
            raise TypeError("a value is no text")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{index / INDEX} must describe an index, and is damaged ({error}). Remove {index}.") from error
    return about


def describe_index(folder: Path, fingerprint: str, part: str, bundle: Bundle) -> dict[str, Any]:
    """The content of `index.json`."""
    return {
        "format": INDEX_FORMAT,
        "folder": str(folder),
        "fingerprint": fingerprint,
        "part": part,
        "dimensions": bundle.model.config.embed_dim,
        "model": bundle.about.source,
    }


def open_store(folder: Path, index: Path | None = None) -> tuple[dict[str, Any], Store]:
    """The index of a folder, without a model: its description and its rows.

    Raises:
        DataError: there is none, or it is damaged.
    """
    folder = folder.expanduser().resolve()
    index = index.expanduser().resolve() if index is not None else index_folder(folder)
    about = read_about(index)
    if about is None:
        raise DataError(f"{folder} must have an index, and none is in {index}. Make it: diptych index update {folder}.")
    return about, Store(index / about["part"], about["dimensions"])


def status_of(about: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Of which folder and model an index is, where it lies, and counts."""
    said = {key: about.get(key) for key in ("folder", "model", "fingerprint")}
    return {**said, "index": str(store.folder.parent), **store.status()}


def check_index(folder: Path, index: Path | None = None) -> int:
    """Look at the database of an index, at the rows of each file, and at every row.

    Returns:
        Rows, all of them whole.

    Raises:
        DataError: there is no index, or it is damaged.
    """
    _, store = open_store(folder, index)
    if wrong := store.check():
        raise DataError(f"{store.folder} is damaged: {' '.join(wrong)} Make it anew: remove it and search again.")
    return store.status()["rows"]
