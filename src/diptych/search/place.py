"""Where the index of a folder lies, and what its `index.json` says."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from diptych.errors import DataError
from diptych.search.store import Store
from diptych.weights.bundle import Bundle

INDEX = "index.json"
FORMAT = "diptych-index-1"


def index_place(folder: Path) -> Path:
    """Where the index of a folder lies by default: in the user's cache, never among the pictures."""
    root = os.environ.get("DIPTYCH_INDEXES") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diptych/indexes"
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in folder.name)[:40] or "root"
    return Path(root).expanduser() / f"{name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def read_about(place: Path) -> dict[str, Any] | None:
    """What `index.json` says; None when there is none.

    Raises:
        DataError: it is of a newer version, or damaged.
    """
    try:
        about = json.loads((place / INDEX).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise DataError(f"{place} is an index of the kind {about['format']!r}, not {FORMAT!r}. Update diptych.")
        if not isinstance(about["dimensions"], int):
            raise TypeError("dimensions is no number")
        if not all(isinstance(about[key], str) for key in ("folder", "fingerprint", "part", "model")):
            raise TypeError("a value is no text")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place / INDEX} must describe an index, and is damaged ({error}). Remove {place}.") from error
    return about


def describe_index(folder: Path, fingerprint: str, part: str, bundle: Bundle) -> dict[str, Any]:
    """The content of `index.json`."""
    return {
        "format": FORMAT,
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
    place = index.expanduser().resolve() if index is not None else index_place(folder)
    about = read_about(place)
    if about is None:
        raise DataError(f"{folder} must have an index, and none is in {place}. Make it: diptych index update {folder}.")
    return about, Store(place / about["part"], about["dimensions"])
