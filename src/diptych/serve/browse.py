"""What there is to see of a library: which pictures a view shows in which order, and how they are spread."""

import bisect
import contextlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diptych.errors import ConfigError, DataError
from diptych.files import shown
from diptych.search.catalogue import Catalogue
from diptych.search.results import Results
from diptych.serve.derived import Derived
from diptych.serve.gallery import Gallery
from diptych.serve.refusals import RefusedError
from diptych.serve.shelf import Kept, Shelf, files_of
from diptych.serve.thumbnails import Thumbnails

BEST = 2_000  # pictures that a search finds, in the order of their scores
_VIEWS = 32  # orders of views that are kept


class Browsable(Protocol):
    """What the page needs of `diptych.search.library.Library`. Safe to call from several threads."""

    @property
    def folder(self) -> Path: ...
    @property
    def index_folder(self) -> Path: ...

    def catalogue(self) -> tuple[int, Catalogue]: ...

    def digests(self) -> dict[str, bytes]: ...  # SHA-256 by path below the folder

    def ranked(
        self, features: np.ndarray, *, count: int, among: np.ndarray | None, leave_out: int | None
    ) -> dict[int, tuple[float, float | None]]: ...

    def features_of(self, number: int) -> np.ndarray: ...  # [D]

    def duplicates(self, *, threshold: float) -> Sequence[Results]: ...


@dataclass(frozen=True, kw_only=True)
class ViewFilters:
    """Which pictures a view shows, beside what it looks for."""

    folder: str = ""  # below the library's own
    camera: str | None = None  # as `Catalogue.cameras` has it; "" is none that is told
    country: str | None = None
    after: str = ""  # a day: of it or later
    before: str = ""  # a day: earlier than it
    kind: str = ""  # "picture" or "video"
    min_side: int = 0  # px, of the longer side
    area: tuple[float, float, float, float] | None = None  # south, west, north, east in degrees
    album: str | None = None
    hidden: bool = False  # those that are hidden, instead of the others
    oldest_first: bool = False
    by_date: bool = False  # also of a search, whose pictures are else by their score


@dataclass(frozen=True, eq=False)
class LibraryView:
    """Pictures in the order that they are shown in; rows of the catalogue of a version."""

    version: int
    catalogue: Catalogue
    rows: np.ndarray  # [M] int64
    scores: dict[int, tuple[float, float | None]] = field(default_factory=dict)  # by row: cosine, second of a video
    is_dated: bool = True  # ordered by date


class Browser:
    """A library as a page shows it.

    Args:
        library: the pictures and their index.
        name: what people call it.
        thumbnail_bytes: of small pictures that are kept on disk.
        tells_places: whether it is told where pictures were taken.
    """

    def __init__(self, library: Any, *, name: str, thumbnail_bytes: int = 2**30, tells_places: bool = True) -> None:
        self.library: Browsable = library
        self._tells_places = tells_places
        self.name = name
        self.shelf = Shelf(library.index_folder)
        thumbnails = Thumbnails(library.index_folder / "thumbnails", most=thumbnail_bytes)
        self.gallery = Gallery(library, thumbnails=thumbnails, look_up=self._look_up, tells_places=tells_places)
        self._lock = threading.Lock()
        self._views: OrderedDict[object, LibraryView] = OrderedDict()
        self._of_version: tuple[int, Derived] | None = None
        self._followed: int | None = None  # the version
        self._is_there = True
        self._looking: threading.Thread | None = None
        self._placeless: tuple[int, Catalogue] | None = None
        self._spreads: OrderedDict[tuple[int, int], tuple[LibraryView, dict[str, Any]]] = OrderedDict()

    def warm(self) -> None:
        """Have ready what the first page asks for."""
        asked = ViewFilters()
        view = self.view(asked, None, None)
        self.spread(view, asked)
        self.facts(view, 0, 1)

    def state(self) -> tuple[int, int, bool]:
        """A number that is another one after a change, how many files it has, and whether their folder was there last.

        It is looked at beside all other work: a disk that hangs is waited for by nobody.
        """
        version, catalogue = self.catalogue()
        with self._lock:
            if self._looking is None or not self._looking.is_alive():
                self._looking = threading.Thread(target=self._look, name="diptych-look", daemon=True)
                self._looking.start()
        return version, len(catalogue), self._is_there

    def _look(self) -> None:
        self._is_there = self.library.folder.is_dir()

    def catalogue(self) -> tuple[int, Catalogue]:
        """Facts of all files as they may be told, and a number that is another one when the index has changed."""
        version, catalogue = self.library.catalogue()
        if self._tells_places:
            return version, catalogue
        with self._lock:
            if self._placeless is None or self._placeless[0] != version:
                self._placeless = (version, replace(catalogue, places=np.full_like(catalogue.places, np.nan)))
            return self._placeless

    def has_place(self, path: Path) -> bool:
        """Whether the index knows where a file was taken, told or not."""
        _, catalogue = self.library.catalogue()
        name = path.relative_to(self.library.folder).as_posix()
        row = bisect.bisect_left(catalogue.paths, name)
        is_known = row < len(catalogue) and catalogue.paths[row] == name
        return is_known and bool(np.isfinite(catalogue.places[row, 0]))

    # Files

    def row_of(self, id_: str) -> int:
        """The row of a picture in the catalogue.

        Raises:
            RefusedError: there is none.
        """
        _, catalogue = self.catalogue()
        path = self.gallery.path_of(id_).relative_to(self.library.folder).as_posix()
        row = self._derived().row_by_path.get(path)
        if row is None or row >= len(catalogue):
            raise RefusedError(404, f"{id_[:40]!r} must be the id of a picture of the library.", "not_found")
        return row

    def number_of(self, id_: str) -> int:
        """The number of a picture in the index."""
        return int(self.catalogue()[1].numbers[self.row_of(id_)])

    def named(self, name: str) -> int | None:
        """The number of the picture that a query names: by its path below the folder, or by the end of it."""
        derived = self._derived()
        row = derived.row_by_path.get(name)
        if row is None:
            row = derived.row_by_end.get(name.rpartition("/")[2].casefold())
            if row is None or not f"/{derived.catalogue.paths[row]}".casefold().endswith(f"/{name.casefold()}"):
                return None
        return int(derived.catalogue.numbers[row])

    def paths_of(self, ids: Sequence[str]) -> list[str]:
        """Paths below the folder."""
        return [self.gallery.path_of(id_).relative_to(self.library.folder).as_posix() for id_ in ids]

    def known_by(self, ids: Sequence[str]) -> dict[str, str]:
        """Paths below the folder, each with the SHA-256 by which it is found when it was moved; "" of one of copies."""
        paths = self.paths_of(ids)
        single = _single(self.library.digests()) if paths else {}
        digests = {path: digest for digest, path in single.items()}
        return {path: digests.get(path, "") for path in paths}

    def how_many(self, paths: Sequence[str] | frozenset[str]) -> int:
        """Of some files, those that are in the library now."""
        return int(self._derived().among(paths).sum())

    def _follow(self) -> None:
        """What is kept of files goes with those that were moved, once for each version of the index."""
        version, _ = self.catalogue()
        with self._lock:
            if self._followed == version:
                return
            self._followed = version
        _, kept = self.shelf.read()
        here = self._derived().row_by_path
        gone = [path for path in files_of(kept) if path not in here]
        single = _single(self.library.digests()) if gone else {}
        moved = {path: single[kept.digests[path]] for path in gone if kept.digests.get(path) in single}
        forgotten = [path for path in gone if path in kept.hidden and path not in kept.digests]
        if moved or forgotten:
            with contextlib.suppress(DataError):  # who may not write it sees it as it was
                self.shelf.follow(moved, forgotten)

    def _look_up(self, id_: str) -> Path | None:
        return self._derived().path_by_id.get(id_)

    # Views

    def view(
        self, asked: ViewFilters, key: object, features: np.ndarray | None, leave_out: int | None = None
    ) -> LibraryView:
        """The pictures that pass, ordered.

        Args:
            asked: which pass, and the order.
            key: what is looked for, as something that tells it from others.
            features: [D] of it, unit length; None looks for nothing: all that pass are shown, by date.
            leave_out: the number of a picture that is not shown.
        """
        version, catalogue = self.catalogue()
        self._follow()
        shelved, _ = self.shelf.read()
        with self._lock:
            known = self._views.get((asked, key, version, shelved))
            if known is not None:
                self._views.move_to_end((asked, key, version, shelved))
                return known
        passing = np.flatnonzero(self._mask(asked, catalogue))
        if features is None:
            view = LibraryView(version, catalogue, catalogue.by_date(passing, oldest_first=asked.oldest_first))
        else:
            view = self._found(asked, version, catalogue, passing, features, leave_out)
        with self._lock:
            self._views[asked, key, version, shelved] = view
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return view

    def _found(
        self,
        asked: ViewFilters,
        version: int,
        catalogue: Catalogue,
        passing: np.ndarray,
        features: np.ndarray,
        leave_out: int | None,
    ) -> LibraryView:
        among = None if len(passing) == len(catalogue) else catalogue.numbers[passing]
        best = self.library.ranked(features, count=BEST, among=among, leave_out=leave_out)
        order = np.argsort(catalogue.numbers)
        numbers = np.fromiter(best, np.int64, len(best))
        places = np.searchsorted(catalogue.numbers, numbers, sorter=order)
        is_there = places < len(order)  # else it came in since
        rows = order[places[is_there]]
        is_same = catalogue.numbers[rows] == numbers[is_there]
        rows, numbers = rows[is_same], numbers[is_there][is_same]
        scores = {int(row): best[int(number)] for row, number in zip(rows, numbers, strict=True)}
        if asked.by_date:
            rows = catalogue.by_date(rows, oldest_first=asked.oldest_first)
        return LibraryView(version, catalogue, rows, scores, is_dated=asked.by_date)

    def _mask(self, asked: ViewFilters, catalogue: Catalogue) -> np.ndarray:
        """[N] bool, which pictures pass."""
        passes = catalogue.in_folder(asked.folder.strip("/"))
        if asked.camera is not None:
            codes = [i for i, name in enumerate(catalogue.cameras) if name == asked.camera]
            passes &= np.isin(catalogue.camera, codes)
        if asked.country is not None:
            passes &= self._derived().in_country(asked.country)
        if asked.after:
            passes &= catalogue.when >= _day(asked.after)
        if asked.before:
            passes &= catalogue.when < _day(asked.before)
        if asked.kind:
            passes &= catalogue.is_video == (asked.kind == "video")
        if asked.min_side:
            passes &= catalogue.sides.max(axis=1) >= asked.min_side
        if asked.area is not None:
            passes &= catalogue.in_area(*asked.area)
        _, kept = self.shelf.read()
        if asked.album is not None:
            passes &= self._derived().among(kept.albums.get(asked.album, ()))
        hidden = self._derived().among(kept.hidden)
        return passes & (hidden if asked.hidden else ~hidden)

    # What is told of a view

    def facts(self, view: LibraryView, start: int, count: int) -> list[dict[str, Any]]:
        """Facts of some of its pictures, in order."""
        rows = view.rows[start : start + count].tolist()
        return [self.facts_of_row(view.catalogue, row, *view.scores.get(row, (None, None))) for row in rows]

    def facts_of(self, id_: str) -> dict[str, Any]:
        """Facts of one picture, whatever view it is in."""
        return self.facts_of_row(self.catalogue()[1], self.row_of(id_))

    def placed(self, view: LibraryView, id_: str) -> tuple[int, dict[str, Any]] | None:
        """The place of a picture in a view, -1 when it is not in it, and its facts; None where there is none."""
        try:
            row = self.row_of(id_)
        except RefusedError:
            return None
        places = np.flatnonzero(view.rows == row)
        facts = self.facts_of_row(view.catalogue, row, *view.scores.get(row, (None, None)))
        return (int(places[0]) if len(places) else -1), facts

    def facts_of_row(
        self, catalogue: Catalogue, row: int, score: float | None = None, seconds: float | None = None
    ) -> dict[str, Any]:
        """Facts of one picture."""
        path = catalogue.paths[row]
        id_ = self.gallery.id_of(self.library.folder / path)
        latitude, longitude = catalogue.places[row].tolist()
        return {
            "id": id_,
            "name": shown(path),
            "score": score,
            "width": int(catalogue.sides[row, 0]),
            "height": int(catalogue.sides[row, 1]),
            "when": str(catalogue.when[row]).replace("T", " "),
            "is_taken": bool(catalogue.is_taken[row]),
            "camera": catalogue.cameras[catalogue.camera[row]] or None,
            "place": None if latitude != latitude else [latitude, longitude],
            "country": self._derived().country_of(row),
            "bytes": int(catalogue.bytes[row]),
            "is_video": bool(catalogue.is_video[row]),
            "time": seconds,
            "thumbnail": f"/library/{id_}/thumbnail" + ("" if seconds is None else f"?time={seconds:g}"),
            "picture": f"/library/{id_}/picture" + ("" if seconds is None else f"?time={seconds:g}"),
            "original": f"/library/{id_}/original",
        }

    def spread(self, view: LibraryView, asked: ViewFilters) -> dict[str, Any]:
        """How many of a view are of each folder, camera, country, year and kind, and when they were taken."""
        shelved, kept = self.shelf.read()
        key = (id(view), shelved)  # views are few, and the one here keeps its number
        with self._lock:
            if key in self._spreads:
                return self._spreads[key][1]
        spread = self._counted(view, asked, kept)
        with self._lock:
            self._spreads[key] = (view, spread)
            while len(self._spreads) > _VIEWS:
                self._spreads.popitem(last=False)
        return spread

    def _counted(self, view: LibraryView, asked: ViewFilters, kept: Kept) -> dict[str, Any]:
        catalogue, rows = view.catalogue, view.rows
        videos = int(catalogue.is_video[rows].sum())
        derived = self._derived()
        in_view = np.zeros(len(catalogue), bool)
        in_view[rows] = True
        return {
            "months": catalogue.months(rows) if view.is_dated else [],
            "folders": [(shown(name), n) for name, n in catalogue.count_folders(rows, asked.folder.strip("/"))],
            "cameras": catalogue.count_cameras(rows),
            "years": catalogue.count_years(rows),
            "countries": derived.count_countries(rows),
            "kinds": [(kind, n) for kind, n in (("picture", len(rows) - videos), ("video", videos)) if n],
            "albums": [(name, int((in_view & derived.among(files)).sum())) for name, files in kept.albums.items()],
            "placed": int(np.isfinite(catalogue.places[rows, 0]).sum()),
        }

    def spots(self, view: LibraryView, most: int) -> list[tuple[float, float, int, str]]:
        """Where its pictures were taken: latitude, longitude, how many, and the id of one; near ones are joined."""
        catalogue = view.catalogue
        rows = view.rows[np.isfinite(catalogue.places[view.rows, 0])]
        places = catalogue.places[rows]
        cell = 0.001  # degrees
        while True:
            cells, first, which, counts = np.unique(
                np.floor(places / cell), axis=0, return_index=True, return_inverse=True, return_counts=True
            )
            if len(cells) <= most:
                break
            cell *= 2
        means = np.stack([np.bincount(which.ravel(), places[:, i], len(cells)) / counts for i in (0, 1)], axis=1)
        ids = [self.gallery.id_of(self.library.folder / str(catalogue.paths[row])) for row in rows[first].tolist()]
        told = zip(means.tolist(), counts.tolist(), ids, strict=True)
        return [(latitude, longitude, count, id_) for (latitude, longitude), count, id_ in told]

    def _derived(self) -> Derived:
        version, catalogue = self.catalogue()
        with self._lock:
            if self._of_version is None or self._of_version[0] != version:
                self._of_version = (version, Derived(catalogue, self.library.folder))
            return self._of_version[1]


def _single(digests: dict[str, bytes]) -> dict[str, str]:
    """Digests of which there is one file, and its path."""
    counts = Counter(digests.values())
    return {digest.hex(): path for path, digest in digests.items() if counts[digest] == 1}


def _day(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "s")
    except ValueError:
        raise ConfigError(f"a day must be like 2023-06-30, 2023-06 or 2023. Got {text[:20]!r}.") from None
