"""What people keep of a library: searches, albums, pictures that are hidden. Nothing of it touches a picture.

It lies in `page.json` in the index's folder, which is written whole or not at all, and read anew when it changed.
"""

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diptych.errors import ConfigError, DataError
from diptych.files import waiting_lock, write_json
from diptych.search.about import path_of, text_of

FILE = "page.json"
_FORMAT = "diptych-page-1"
_LONGEST = 100  # characters of a name
_MOST = 1_000  # albums, and searches
_LINK = 4_000  # characters of a search's link


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept now; files by their paths below the library's folder."""

    saved: dict[str, str] = field(default_factory=dict)  # name to what stands behind the page's "?"
    albums: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of a file when it was put here; "" of one of copies


class Shelf:
    """The `page.json` of an index. Several servers may have it open; each change is made to what is there then.

    Args:
        folder: of the index.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._lock = threading.Lock()
        self._state: tuple[int, int] | None = None
        self._kept = Kept()

    def read(self) -> tuple[int, Kept]:
        """A number that is another one after a change, and what is kept.

        Raises:
            DataError: the file is damaged or cannot be read.
        """
        with self._lock:
            state = self._state_now()
            if state != self._state:
                self._kept, self._state = self._read(), state
            return hash(state), self._kept

    def save_search(self, name: str, link: str) -> None:
        """Keep a search under a name, in the place of one that has it; without a link it is forgotten.

        Raises:
            ConfigError: the name or the link cannot be used, or there are too many.
            DataError: it cannot be written.
        """
        name = _checked(name)
        if len(link) > _LINK:
            raise ConfigError(f"a search's link has at most {_LINK:,} characters. Got {len(link):,}.")

        def change(kept: Kept) -> Kept:
            saved = {one: other for one, other in kept.saved.items() if one != name}
            if link:
                saved[name] = link
            return replace(kept, saved=_few(saved, "searches"))

        self._change(change)

    def change_album(self, name: str, *, add: Mapping[str, str] | None = None, remove: Iterable[str] = ()) -> None:
        """Put files into an album, which is made when there is none, and take others out.

        Args:
            name: of the album.
            add: paths, and the SHA-256 by which each is found again where it is moved to.
            remove: paths.

        Raises:
            ConfigError: the name cannot be used, or there are too many.
            DataError: it cannot be written.
        """
        name = _checked(name)
        added, removed = add or {}, set(remove)

        def change(kept: Kept) -> Kept:
            files = dict.fromkeys((*kept.albums.get(name, ()), *added))
            albums = {**kept.albums, name: tuple(path for path in files if path not in removed)}
            return replace(kept, albums=_few(albums, "albums"), digests={**kept.digests, **added})

        self._change(change)

    def forget_album(self, name: str) -> None:
        """Forget an album; its pictures stay where they are."""
        self._change(
            lambda kept: replace(kept, albums={one: files for one, files in kept.albums.items() if one != name})
        )

    def change_hidden(
        self, *, hide: Mapping[str, str] | None = None, gone: Iterable[str] = (), show: Iterable[str] = ()
    ) -> None:
        """Let files not be shown any more, or again.

        Args:
            hide: paths, and the SHA-256 by which each is found again where it is moved to.
            gone: paths of files that went, until the index knows it: another with the same bytes is shown.
            show: paths.

        Raises:
            DataError: it cannot be written.
        """
        hidden, went, shown = hide or {}, set(gone), set(show)

        def change(kept: Kept) -> Kept:
            digests = {path: digest for path, digest in {**kept.digests, **hidden}.items() if path not in went}
            return replace(kept, hidden=(kept.hidden | hidden.keys() | went) - shown, digests=digests)

        self._change(change)

    def follow(self, moved: Mapping[str, str], forgotten: Iterable[str]) -> None:
        """Let what is kept of files go with them.

        Args:
            moved: paths as they were, and as they are now.
            forgotten: paths that need not be hidden any more.

        Raises:
            DataError: it cannot be written.
        """
        out = set(forgotten)

        def new(paths: Iterable[str]) -> Iterator[str]:
            return (moved.get(path, path) for path in paths)

        self._change(
            lambda kept: replace(
                kept,
                albums={name: tuple(dict.fromkeys(new(files))) for name, files in kept.albums.items()},
                hidden=frozenset(new(kept.hidden - out)),
                digests={moved.get(path, path): digest for path, digest in kept.digests.items()},
            )
        )

    def _change(self, change: Callable[[Kept], Kept]) -> None:
        try:
            with self._lock, waiting_lock(self._file.with_name(f".{FILE}.lock")):
                kept = change(self._read())
                known = sorted(files_of(kept) & set(kept.digests))
                data = {
                    "format": _FORMAT,
                    "saved": [{"name": name, "link": link} for name, link in kept.saved.items()],
                    "albums": [
                        {"name": name, "files": list(map(text_of, files))} for name, files in kept.albums.items()
                    ],
                    "hidden": sorted(map(text_of, kept.hidden)),
                    "sha256": {text_of(path): kept.digests[path] for path in known},
                }
                write_json(self._file, data)
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"{self._file.parent} cannot be written, so nothing can be kept: {why}.") from error

    def _state_now(self) -> tuple[int, int]:
        try:
            facts = self._file.stat()
        except FileNotFoundError:
            return 0, 0
        except OSError as error:
            raise DataError(f"{self._file} cannot be read: {error.strerror or error}.") from error
        return facts.st_mtime_ns, facts.st_ino

    def _read(self) -> Kept:
        try:
            data: Any = json.loads(self._file.read_text(encoding="utf-8"))
            if data["format"] != _FORMAT:
                raise ValueError(f"it is of the kind {data['format']!r}, not {_FORMAT!r}")
            return Kept(
                saved={str(one["name"]): str(one["link"]) for one in data["saved"]},
                albums={str(one["name"]): tuple(map(path_of, one["files"])) for one in data["albums"]},
                hidden=frozenset(map(path_of, data["hidden"])),
                digests={path_of(str(path)): str(digest) for path, digest in data.get("sha256", {}).items()},
            )
        except FileNotFoundError:
            return Kept()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{self._file} must hold what the page keeps, and is damaged: {error}.") from error


def files_of(kept: Kept) -> set[str]:
    """All files of which something is kept."""
    return {*kept.hidden, *itertools.chain(*kept.albums.values())}


def _checked(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise ConfigError(f"a name must have 1 to {_LONGEST} letters. Got {name[:40]!r}.")
    return name


def _few(named: dict[str, Any], what: str) -> dict[str, Any]:
    if len(named) > _MOST:
        raise ConfigError(f"at most {_MOST:,} {what} are kept. Remove one.")
    return named
