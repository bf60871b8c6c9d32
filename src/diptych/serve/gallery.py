"""The pictures that a server can search, and what clients get to see of them: ids and small copies, never a path.

An id stands for a file of the library, the same after a restart, so that it may stand in a link; it leads to no other
file. What is shown is drawn anew from the pixels.
"""

import base64
import contextlib
import datetime
import hashlib
import io
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from diptych.errors import DataError, TextError
from diptych.files import shown
from diptych.search.filters import Filters
from diptych.serve.refusals import RefusedError
from diptych.serve.thumbnails import Thumbnails

if TYPE_CHECKING:
    from diptych.where import HeatMaps

THUMBNAIL, LARGE = 320, 1600  # px, the longer side
_MOST_IDS = 100_000
_CACHE_BYTES = 32 * 2**20


class Row(Protocol):
    """One file that was found."""

    @property
    def path(self) -> Path: ...  # absolute
    @property
    def score(self) -> float: ...  # cosine
    @property
    def width(self) -> int: ...  # px, upright; 0 when not known
    @property
    def height(self) -> int: ...
    @property
    def date(self) -> datetime.datetime | None: ...  # when it was taken
    @property
    def camera(self) -> str: ...
    @property
    def time(self) -> float | None: ...  # s into a video


class Searchable(Protocol):
    """What the server needs of `diptych.search.library.Library`. Safe to call from several threads."""

    @property
    def folder(self) -> Path: ...

    def __len__(self) -> int: ...

    def nearest(
        self, features: np.ndarray, *, count: int, filters: Filters | None
    ) -> Sequence[Row]: ...  # [D], unit length

    def like(
        self, path: Path, *, count: int, filters: Filters | None
    ) -> Sequence[Row]: ...  # without the picture itself

    def thumbnail(
        self, path: Path, *, side: int, seconds: float | None = None
    ) -> bytes: ...  # a JPEG; DataError outside of the folder

    def why(self, path: Path, text: str) -> "HeatMaps": ...  # DataError outside of the folder


class Gallery:
    """A library behind ids.

    Args:
        library: what is searched.
        thumbnails: where small pictures are kept on disk; without it they are in memory alone.
        look_up: gives the file of an id that was not given out since the start; None where there is none.
        tells_places: whether it may be asked which pictures were taken near a place.
    """

    def __init__(
        self,
        library: Searchable,
        *,
        thumbnails: Thumbnails | None = None,
        look_up: Callable[[str], Path | None] = lambda _: None,
        tells_places: bool = True,
    ) -> None:
        self._library = library
        self._thumbnails = thumbnails
        self._look_up = look_up
        self._tells_places = tells_places
        self._paths: OrderedDict[str, Path] = OrderedDict()  # by id, the one found last at the end
        self._ids: dict[Path, str] = {}
        self._drawn: OrderedDict[_Key, _Drawn] = OrderedDict()
        self._drawn_bytes = 0
        self._lock = threading.Lock()
        self.is_indexing = False  # told by whoever does it
        self.progress: tuple[int, int] | None = None  # files that were opened, of how many; while it is known

    def __len__(self) -> int:
        return len(self._library)

    def search(self, features: np.ndarray, count: int, filters: Filters | None) -> list[dict[str, Any]]:
        """Facts of the nearest pictures, best first.

        Args:
            features: [D], unit length.
            count: at most so many.
            filters: as the library takes them.

        Raises:
            RefusedError: they ask for a place, and none is told.
        """
        self._check(filters)
        return self._shown(self._library.nearest(features, count=count, filters=filters))

    def like(self, id_: str, count: int, filters: Filters | None) -> list[dict[str, Any]]:
        """The same of those most like a picture that was found.

        Raises:
            RefusedError: there is no such id, or the picture is gone.
        """
        self._check(filters)
        try:
            return self._shown(self._library.like(self.path_of(id_), count=count, filters=filters))
        except DataError as error:
            raise _gone(id_) from error

    def _check(self, filters: Filters | None) -> None:
        if filters and filters.near and not self._tells_places:
            sentence = "this server tells nobody where pictures were taken: leave the filter `near` out."
            raise RefusedError(403, sentence, "not_allowed", "filters.near")

    def draw(self, id_: str, side: int, seconds: float | None = None) -> bytes:
        """A JPEG of a picture of the library, at most `side` pixels wide and high.

        Args:
            id_: of the picture.
            side: px.
            seconds: into a video.

        Raises:
            RefusedError: there is no such id, or the file is gone, damaged, or a link out of the folder.
        """
        path = self.path_of(id_)
        key = (id_, side, seconds)
        try:
            state = self._state_of(path)
            with self._lock:
                drawn = self._drawn.get(key)
                if drawn and drawn.state == state:
                    self._drawn.move_to_end(key)
                    return drawn.jpeg
            drawn = _Drawn(state, self._jpeg(path, state, side, seconds))
        except (OSError, DataError) as error:
            self._forget(id_)
            raise _gone(id_) from error
        self._keep(key, drawn)
        return drawn.jpeg

    def _jpeg(self, path: Path, state: tuple[int, ...], side: int, seconds: float | None) -> bytes:
        in_time = {} if seconds is None else {"seconds": seconds}

        def make() -> bytes:
            return self._library.thumbnail(path, side=side, **in_time)

        if self._thumbnails is None or side > THUMBNAIL:
            return make()
        return self._thumbnails.get((os.fsencode(path), *state, side, seconds), make)

    def original(self, id_: str) -> Path:
        """The file of an id, to be read as it is.

        Raises:
            RefusedError: there is no such id, or the file is gone, or a link out of the folder.
        """
        path = self.path_of(id_)
        try:
            self._state_of(path)
        except (OSError, DataError) as error:
            raise _gone(id_) from error
        return path

    def _state_of(self, path: Path) -> tuple[int, ...]:
        state = _state(path)
        if state is None or not self._is_inside(path):
            raise DataError("what stands there now is no file of the folder")
        return state

    def why(self, id_: str, text: str, side: int) -> bytes:
        """A JPEG of a picture that was found, under the map of the part that speaks for some words.

        Raises:
            RefusedError: there is no such id, or the file is gone, damaged, no picture, or a link out of the folder.
            TextError: the model reads nothing of the text.
        """
        path = self.path_of(id_)
        try:
            self._state_of(path)
            maps = self._library.why(path, text)
        except TextError:
            raise
        except (OSError, DataError) as error:
            raise _gone(id_) from error
        overlay = maps.overlay()
        overlay.thumbnail((side, side))
        file = io.BytesIO()
        overlay.save(file, "JPEG", quality=85)
        return file.getvalue()

    def _keep(self, key: "_Key", drawn: "_Drawn") -> None:
        with self._lock:
            before = self._drawn.pop(key, None)
            self._drawn[key] = drawn
            self._drawn_bytes += len(drawn.jpeg) - (len(before.jpeg) if before else 0)
            while self._drawn_bytes > _CACHE_BYTES:
                self._drawn_bytes -= len(self._drawn.popitem(last=False)[1].jpeg)

    def _forget(self, id_: str) -> None:
        """A picture that is gone from the disk is gone from memory."""
        with self._lock:
            for key in [key for key in self._drawn if key[0] == id_]:
                self._drawn_bytes -= len(self._drawn.pop(key).jpeg)

    def _shown(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        # A link that leads out of the folder is not named either.
        return [self._facts(row) for row in rows if self._is_inside(row.path)]

    def _is_inside(self, path: Path) -> bool:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # RuntimeError: a link that leads to itself
            return path.resolve().is_relative_to(self._library.folder.resolve())
        return False

    def _facts(self, row: Row) -> dict[str, Any]:
        """What a client gets to know of a file."""
        id_ = self.id_of(row.path)
        return {
            "id": id_,
            "score": row.score,
            "name": shown(row.path.relative_to(self._library.folder)),
            "width": row.width,
            "height": row.height,
            "taken": row.date.isoformat(" ") if row.date else None,
            "camera": row.camera or None,
            "time": row.time,
            "thumbnail": f"/library/{id_}/thumbnail",
            "picture": f"/library/{id_}/picture",
        }

    def id_of(self, path: Path) -> str:
        """What clients call a file, absolute."""
        with self._lock:
            id_ = self._ids.setdefault(path, made_id(path))
            self._paths[id_] = path
            self._paths.move_to_end(id_)
            if len(self._paths) > _MOST_IDS:
                del self._ids[self._paths.popitem(last=False)[1]]
            return id_

    def knows(self, id_: str) -> bool:
        """Whether an id is of a file of this library."""
        with contextlib.suppress(RefusedError):
            self.path_of(id_)
            return True
        return False

    def path_of(self, id_: str) -> Path:
        """The file of an id; it may be gone.

        Raises:
            RefusedError: there is no such id.
        """
        with self._lock:
            path = self._paths.get(id_)
        path = path or self._look_up(id_)
        if path is None:
            raise _gone(id_)
        return path


def made_id(path: Path) -> str:
    """The id of an absolute path: 12 letters, by its BLAKE2."""
    return base64.urlsafe_b64encode(hashlib.blake2b(os.fsencode(path), digest_size=9).digest()).decode()


_Key = tuple[str, int, float | None]  # id, side, second


@dataclass(frozen=True)
class _Drawn:
    """A JPEG, and the file's state when it was drawn."""

    state: tuple[int, ...]
    jpeg: bytes


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None for what is no plain file, whose opening might never end."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _gone(id_: str) -> RefusedError:
    sentence = f"{id_[:40]!r} must be the id of a picture that was found, and leads to none. Search again."
    return RefusedError(404, sentence, "not_found")
