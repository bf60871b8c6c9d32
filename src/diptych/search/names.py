"""Names of files and folders as people give them, found among those that an index holds."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from diptych.errors import DataError
from diptych.files import expanded, shown
from diptych.search.about import text_of
from diptych.search.store import Store


def names_of(store: Store, folder: Path, path: str | Path) -> Iterator[str]:
    """What a file may be called in the index of a folder, the likeliest first.

    Args:
        store: the index.
        folder: of the pictures, absolute.
        path: absolute, or below the folder.

    Raises:
        DataError: it does not lie in the folder.
    """
    full = Path(os.path.abspath(folder / expanded(path)))  # noqa: PTH100, `resolve` would follow a link
    # Links to folders on the way lead elsewhere, a link that is a picture itself does not.
    places = dict.fromkeys((full, full.parent.resolve() / full.name, full.resolve()))
    inside = [place.relative_to(folder).as_posix() for place in places if place.is_relative_to(folder)]
    if not inside:
        raise DataError(f"{shown(path)} must lie in {shown(folder)}, and does not.")
    yield from inside
    wanted = set(map(_form, inside))
    yield from (known for known in store.known() if _form(known) in wanted)


def folder_named(store: Store, folder: Path, name: str) -> str:
    """A subfolder as the index of a folder writes it.

    Args:
        store: the index.
        folder: of the pictures, absolute.
        name: absolute, or below the folder; with or without "./" and "/" at its end; empty is the folder itself.

    Raises:
        DataError: there is no such folder.
    """
    if not name.strip("/") and not name.startswith("/"):
        return ""
    full, below = (Path(os.path.abspath(folder / part)) for part in (expanded(name), name.strip("/")))  # noqa: PTH100
    places = dict.fromkeys((full, full.resolve(), below))
    inside = [place.relative_to(folder).as_posix() for place in places if place.is_relative_to(folder)]
    if "." in inside:
        return ""
    for one in inside:
        if store.paths_below(text_of(one)):
            return one
    wanted = set(map(_form, inside))
    for known in store.known():
        for i, letter in enumerate(known):
            if letter == "/" and _form(known[:i]) in wanted:
                return known[:i]
    for one in inside:
        if (folder / one).is_dir():
            return one  # without a picture
    raise DataError(f"{shown(name)} must be a folder in {shown(folder)}, and is none.")


def _form(name: str) -> str:
    """One of the several forms that a letter with a mark may have: macOS writes others than Linux."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
