"""The libraries of a server, as its page uses them: views, what is kept, files as they are."""

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from diptych.data.endings import kind_of
from diptych.data.film_places import may_tell_places
from diptych.data.strip_location import without_location
from diptych.errors import DataError, DiptychError
from diptych.files import shown
from diptych.search.query import QueryPart
from diptych.serve.alike import Alike
from diptych.serve.asking import Asking, Sought
from diptych.serve.browse import Browser, LibraryView, ViewFilters
from diptych.serve.originals import Original, original_of, to_trash, zip_of
from diptych.serve.refusals import RefusedError
from diptych.serve.service import Service

_ZIP_SECONDS = 900.0  # that the address of a zip holds
_ZIPS = 64
_SPOTS = 2_000  # places of a map


class Libraries:
    """Several libraries of one model.

    Args:
        service: the model.
        browsers: the libraries, by their names.
        can_trash: whether pictures may be moved to the system's trash.
        is_local: whether only this machine reaches the server: whole paths are told, and folders opened.
        strip_location: whether files go out without the place where they were taken, which the browsers shall not
            tell either.
    """

    def __init__(
        self,
        service: Service,
        browsers: Sequence[Browser],
        *,
        can_trash: bool = False,
        is_local: bool = False,
        strip_location: bool = False,
    ) -> None:
        self.browsers = list(browsers)
        self.can_trash = can_trash
        self.is_local = is_local
        self._strip_location = strip_location
        self.asking = Asking(service)
        self._service = service
        self._alike = {browser.name: Alike(browser) for browser in browsers}
        self._zips: dict[str, tuple[float, Browser, list[tuple[str, Path]]]] = {}

    def named(self, name: str) -> Browser:
        """A library; the first for an empty name.

        Raises:
            RefusedError: there is none of this name.
        """
        if not self.browsers:
            raise RefusedError(404, "this server has no library. Start it with --library FOLDER.", "no_library")
        found = next((browser for browser in self.browsers if name in ("", browser.name)), None)
        if found is None:
            names = ", ".join(browser.name for browser in self.browsers)
            raise RefusedError(404, f"{name[:100]} is no library here. There is {names}.", "library_not_found")
        return found

    def of_picture(self, id_: str) -> Browser:
        """The library of a picture.

        Raises:
            RefusedError: there is no such picture.
        """
        first = self.named("")
        return next((browser for browser in self.browsers if browser.gallery.knows(id_)), first)

    # Views

    async def view(self, name: str, asked: ViewFilters, sought: Sought) -> tuple[LibraryView, Sequence[Any]]:
        """The pictures of a view, and texts of its question of which the model does not know all words."""
        browser = self.named(name)
        if not sought:
            return await self._service.in_library(browser.view, asked, None, None), ()
        wanted = await self.asking.wanted(browser, sought)
        view = await self._service.in_library(browser.view, asked, sought, wanted.features, wanted.leave_out)
        return view, wanted.unread

    async def read_query(self, name: str, query: str) -> tuple[list[tuple[QueryPart, list[str]]], str]:
        """The parts of a query with the words of each that the model does not know; or why it is none."""
        if not query.strip():
            return [], ""
        try:
            terms = await self.asking.terms(self.named(name), query)
        except RefusedError:
            raise
        except DiptychError as error:
            return [], str(error)
        unknown = [[] if term.is_picture else await self.asking.unknown_words(term.item) for term in terms]
        return list(zip(terms, unknown, strict=True)), ""

    async def spots(self, name: str, view: LibraryView) -> list[tuple[float, float, int, str]]:
        """Where the pictures of a view were taken; see `Browser.spots`."""
        return await self._service.in_library(self.named(name).spots, view, _SPOTS)

    def groups(self, name: str, threshold: float, start: int, count: int) -> tuple[int, list[list[dict[str, Any]]]]:
        """How many groups look the same, and some of them; -1 while they are looked for."""
        alike = self._alike[self.named(name).name]
        groups = alike.groups(threshold)
        if groups is None:
            return -1, []
        told = [alike.told(group) for group in groups[start : start + count]]
        return len(groups), [group for group in told if len(group) > 1]

    # Files

    def original(self, id_: str, asked: str, *, as_file: bool) -> Original:
        """A file as it is, or a part of it."""
        browser = self.of_picture(id_)
        path = browser.gallery.original(id_)
        try:
            return original_of(path, asked, as_file=as_file, data=self._stripped(browser, path))
        except OSError as error:
            raise RefusedError(404, f"the picture cannot be read: {error.strerror or error}.", "not_found") from error

    def paths(self, name: str, ids: Sequence[str], album: str) -> list[str]:
        """Paths of pictures, or of an album: whole for who sits at this machine."""
        browser = self.named(name)
        below = self._album(browser, album) if album else browser.paths_of(ids)
        return [shown(browser.library.folder / path) if self.is_local else shown(path) for path in below]

    def make_zip(self, name: str, ids: Sequence[str], album: str) -> str:
        """A token by which pictures, or an album, can be fetched as one zip."""
        browser = self.named(name)
        ids = ids or [browser.gallery.id_of(browser.library.folder / path) for path in self._album(browser, album)]
        files = []
        for id_ in filter(browser.gallery.knows, ids):
            path = browser.gallery.path_of(id_)
            # One that is gone is named in the zip; one that leads elsewhere is refused.
            files.append(browser.gallery.original(id_) if os.path.lexists(path) else path)
        named = [(shown(path.relative_to(browser.library.folder)), path) for path in files]
        now = time.monotonic()
        self._zips = {token: kept for token, kept in self._zips.items() if kept[0] > now}
        while len(self._zips) >= _ZIPS:
            del self._zips[next(iter(self._zips))]
        token = secrets.token_urlsafe(18)
        self._zips[token] = (now + _ZIP_SECONDS, browser, named)
        return token

    def zip(self, token: str) -> Iterator[bytes]:
        """The zip of a token, block by block.

        Raises:
            RefusedError: there is none, or its time is over.
        """
        until, browser, files = self._zips.get(token, (0.0, None, []))
        if browser is None or until < time.monotonic():
            raise RefusedError(404, "this zip is no longer here. Choose the pictures again.", "not_found")
        return zip_of(files, lambda path: self._stripped(browser, path))

    def _stripped(self, browser: Browser, path: Path) -> bytes | None:
        """What goes out in the place of a file, when no place shall; None is the file as it is."""
        if not self._strip_location:
            return None
        with path.open("rb") as file:
            if file.read(2) == b"\xff\xd8":
                file.seek(0)
                return without_location(file.read())
            is_told = browser.has_place(path) or (kind_of(path.name).what == "video" and may_tell_places(file))
        if is_told:
            sentence = f"{shown(path.name)} may tell where it was taken, and that is not taken out of such a file."
            raise RefusedError(403, sentence, "has_location")
        return None

    def trash(self, name: str, ids: Sequence[str]) -> tuple[int, list[str]]:
        """Move pictures to the system's trash; how many went, and why others did not. The next update forgets them.

        Raises:
            RefusedError: the server was not started so.
        """
        if not self.can_trash:
            raise RefusedError(403, "pictures stay where they are: the server needs --allow-trash.", "not_allowed")
        browser = self.named(name)
        faults, gone = [], []
        for id_ in ids:
            try:
                path = browser.gallery.original(id_)
                to_trash(path)
                gone.append(path.relative_to(browser.library.folder).as_posix())
            except DataError as error:
                faults.append(str(error))
            except RefusedError as error:
                faults.append(str(error))
        browser.shelf.change_hidden(gone=gone)  # until the index is brought in step
        return len(gone), faults

    def reveal(self, id_: str) -> None:
        """Open the folder of a picture in this machine's file manager.

        Raises:
            RefusedError: others can reach the server, or there is no file manager.
        """
        if not self.is_local:
            raise RefusedError(403, "folders are opened only where no other machine reaches the server.", "not_allowed")
        path = self.of_picture(id_).gallery.original(id_)
        commands = {"darwin": ["open", "-R", str(path)], "win32": ["explorer", f"/select,{path}"]}
        command = commands.get(sys.platform, ["xdg-open", str(path.parent)])
        try:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError as error:
            sentence = f"{command[0]} cannot be started, so the folder stays closed: {error.strerror or error}."
            raise RefusedError(404, sentence, "no_file_manager") from error

    def _album(self, browser: Browser, name: str) -> Sequence[str]:
        _, kept = browser.shelf.read()
        if name not in kept.albums:
            raise RefusedError(404, f"{name[:100]!r} must be an album of {browser.name}.", "album_not_found")
        return kept.albums[name]


async def read_on(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The blocks, each read beside the event loop."""
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        if block:
            yield block
