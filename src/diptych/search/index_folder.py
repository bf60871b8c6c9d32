"""The index of a folder, without its model: opened, and what state it is in."""

from pathlib import Path
from typing import Any

from diptych.errors import DataError
from diptych.files import expanded, shown
from diptych.search.about import IndexAbout, command, index_folder, read_about
from diptych.search.store import Store


def place_of(folder: Path, index: Path | None = None) -> tuple[Path, Path]:
    """A folder of pictures and that of its index, absolute."""
    folder = expanded(folder).resolve()
    return folder, expanded(index).resolve() if index is not None else index_folder(folder)


def open_store(folder: Path, index: Path | None = None) -> tuple[IndexAbout, Store]:
    """The index of a folder, without a model: its description and its rows.

    Raises:
        DataError: there is none, or it is damaged.
    """
    folder, index = place_of(folder, index)
    about = read_about(index)
    if about is None:
        cure = command("update", index, IndexAbout(folder=folder, fingerprint="", part="", dimensions=0))
        raise DataError(f"{folder} must have an index, and none is in {index}. Make it: {cure}.")
    return about, Store(index / about.part, about.dimensions)


def status_of(about: IndexAbout, store: Store) -> dict[str, Any]:
    """Of which folder and model an index is, where it lies, and counts, faults by cause among them."""
    walk = store.note("walk") or {}
    return {
        "folder": shown(about.folder),
        "model": about.model,
        "fingerprint": about.fingerprint,
        "index": shown(store.folder.parent),
        **store.status(),
        "causes": store.causes(),
        "not read": walk.get("unread", {}),
        "left out": walk.get("left out", {}),
        "exclude": list(about.exclude),
        "notes": walk.get("notes", []),
    }


def check_index(folder: Path, index: Path | None = None) -> int:
    """Look at the database of an index, at the rows of each file, and at every row.

    Returns:
        Rows, all of them whole.

    Raises:
        DataError: there is no index, or it is damaged.
    """
    _, store = open_store(folder, index)
    if wrong := store.check():
        raise DataError(
            f"{store.folder} is damaged: {' '.join(wrong)} Mend it: {command('repair', store.folder.parent)}."
        )
    return store.status()["rows"]
