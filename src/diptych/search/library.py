"""A folder of pictures kept in step with an index of it; ask by words, by picture, or both.

The index of a folder lies in the user's cache unless told otherwise. It holds one part for each model, `MODEL/`, and
`index.json`, which names the one that answers. A change of model fills a new part while the old one answers.
"""

import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.data.images import ImageSource
from diptych.data.notebook import progress
from diptych.errors import ConfigError, DataError
from diptych.files import expanded
from diptych.search.about import IndexAbout, command, read_about
from diptych.search.ann import APPROXIMATE_FROM, ApproximateScanner
from diptych.search.catalogue import Catalogue
from diptych.search.database import DATABASE
from diptych.search.duplicates import alike, best_first
from diptych.search.filters import Filters
from diptych.search.index import Scanner
from diptych.search.index_folder import place_of, status_of
from diptych.search.moving import adopted, moved_along
from diptych.search.names import folder_named, names_of
from diptych.search.query import Query
from diptych.search.ranking import by_file, hit_of, rows_of
from diptych.search.reading import THUMBNAIL, thumbnail_of
from diptych.search.results import Hit, Results
from diptych.search.store import Snapshot, Store
from diptych.search.update import Update, UpdateOptions, UpdateProgress, tidy, update_index
from diptych.search.writing import Writer
from diptych.weights.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from diptych.where import HeatMaps


class Library:
    """A folder of pictures and its index. Made by `Library.open`."""

    def __init__(self, folder: Path, index: Path, bundle: DualEncoder, about: IndexAbout, *, answering: str) -> None:
        self.folder = folder
        self.index_folder = index  # where the index lies
        self.bundle = bundle
        self._about = about
        self._part = about.part  # the one that `update` fills
        self._answering = answering  # the one that searches read; differs while the model is being changed
        self._store = Store(index / about.part, bundle.embed_dim)
        self._lock = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._version = -1
        self._scanner: Scanner | None = None
        self._catalogue: tuple[int, Catalogue] | None = None  # of which version

    @classmethod
    def open(
        cls,
        folder: str | Path,
        bundle: DualEncoder,
        *,
        index: str | Path | None = None,
        reindex: bool = False,
        model: str = "",
    ) -> "Library":
        """Open the library of a folder, which is made when there is none; `update` fills it.

        An index that was made of the same pictures under another path is taken: where the folder was renamed or mounted
        elsewhere it moves with it, where it was copied it is copied.

        Args:
            folder: of pictures.
            bundle: the model that encodes pictures and queries.
            index: where the index lies; by default `index_folder(folder)`.
            reindex: let another model take the index over: `update` encodes all pictures with it.
            model: what `load` makes this model from; the index notes it.

        Raises:
            ConfigError: the index is of another model, or of another folder.
            DataError: there is no such folder, or the index is damaged or of another version.
        """
        folder, place = place_of(Path(folder), Path(index) if index is not None else None)
        if not folder.is_dir():
            raise DataError(f"{folder} must be a folder of pictures, and is none.")
        dimensions, fingerprint = bundle.embed_dim, bundle.fingerprint()
        part = fingerprint[:16]
        mine = IndexAbout(folder=folder, fingerprint=fingerprint, part=part, dimensions=dimensions, model=model)
        about = read_about(place) or (adopted(folder, place, fingerprint) if index is None else None)
        if about is None:
            with Writer(place / part, dimensions) as writer:
                if (about := read_about(place)) is None:  # nobody was faster
                    about = mine
                    writer.answer(about)
        if about.folder != folder:
            about = moved_along(place, about, folder)
        if about.fingerprint != fingerprint and not reindex:
            raise ConfigError(
                f"{place} was made with another model ({about.model or about.fingerprint[:12]}), and features of two "
                "models cannot be compared. Leave --model out to use that one, or encode the pictures anew: "
                f"{command('update', place, about)}{f' --model {shlex.quote(model)}' if model else ''} --reindex."
            )
        if not (place / part / DATABASE).is_file():  # a change of model begins
            Writer(place / part, dimensions).close()
        return cls(folder, place, bundle, replace(mine, exclude=about.exclude), answering=about.part)

    def close(self) -> None:
        """Let go of the index."""
        self._store.close()

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Pictures and video frames that can be found."""
        with self._lock:
            return int((self._refreshed().files >= 0).sum())

    # Keeping step

    def update(
        self,
        *,
        batch_size: int = 64,
        retry: bool = False,
        verify: bool = False,
        forget: bool = False,
        exclude: Sequence[str] | None = None,
        on_progress: Callable[[UpdateProgress], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Update:
        """Bring the index in step with the folder: new, changed, moved and deleted files.

        What is done is kept batch by batch, so that a process that is killed loses the batch in hand and no more.

        Args:
            batch_size: pictures a forward pass.
            retry: open again what could not be read, whatever the cause was.
            verify: read every file again, also where size and times are those known.
            forget: forget what is gone, also where its disk may only be away.
            exclude: lines as of an ignore file, from now on; by default those of the last time.
            on_progress: called after each batch; by default a notebook shows a bar.
            should_stop: asked after each batch; True ends the update in good order.

        Raises:
            ConfigError: another process updates this index.
            DataError: the index cannot be written, the folder cannot be listed, or all that is known of it is gone.
        """
        about = self._about if exclude is None else replace(self._about, exclude=tuple(exclude))
        options = UpdateOptions(batch_size=batch_size, retry=retry, verify=verify, forget=forget, exclude=about.exclude)
        if not os.access(self.index_folder, os.W_OK):
            raise DataError(
                f"{self.index_folder} cannot be written, so the index stays as it is. Choose another --index."
            )
        with progress("indexing") as advance, Writer(self.index_folder / self._part, about.dimensions) as writer:
            there = read_about(self.index_folder)
            if there is not None and there.exclude != about.exclude:
                writer.answer(replace(there, exclude=about.exclude))  # first: an update that is stopped goes on with it
            update = update_index(
                self.folder,
                writer,
                self.bundle,
                options,
                on_progress=on_progress or (lambda now: advance(now.done, now.total)),
                should_stop=should_stop,
            )
            if update.complete:
                there = read_about(self.index_folder)
                about = replace(about, model=about.model or (there.model if there else ""))
                if there != about:
                    writer.answer(about)
                self._about, self._answering = about, self._part
                tidy(writer)
        return update

    # Asking

    def search(self, query: Query | ImageSource, *, count: int | None = 20, filters: Filters | None = None) -> Results:
        """The files that fit a query best.

        Args:
            query: a `Query`, words that `Query.parse` reads, or a picture: a path, a Pillow image, pixels.
            count: at most so many; None is all.
            filters: which files may answer.

        Raises:
            ConfigError: the query is not valid, or the index is still being made with the model that asks.
            DataError: a picture of the query does not exist, or cannot be read.
        """
        title = query if isinstance(query, str) else ""
        return self.nearest(Query.of(query).features(self.bundle), count=count, filters=filters, title=title)

    def like(self, path: str | Path, *, count: int | None = 20, filters: Filters | None = None) -> Results:
        """The files most like one of the folder, which is not among them itself; it is not encoded again.

        Args:
            path: absolute, or below the folder; links and other Unicode forms of the name are followed.
            count: at most so many; None is all.
            filters: which files may answer.

        Raises:
            DataError: the file is not in the index.
        """
        with self._lock:
            if (number := self._number_of(path)) is None:
                raise DataError(
                    f"{path} must be a picture in the index of {self.folder}, and is not. Update the index."
                )
            features = self.features_of(number)
        return self.nearest(features, count=count, filters=filters, title=f"like {path}", leave_out=number)

    def nearest(
        self,
        features: np.ndarray,
        *,
        count: int | None = 20,
        filters: Filters | None = None,
        title: str = "",
        leave_out: int | None = None,
    ) -> Results:
        """The files nearest to [D] features of unit length; `leave_out` is the number of a file that may not answer."""
        with self._lock:
            best = self.ranked(features, count=count, among=self._matching(filters), leave_out=leave_out)
            entries = self._store.entries(best)
        rows = []
        for number, (score, seconds) in best.items():
            if number in entries:  # else it was removed since
                path, facts = entries[number]
                rows.append(hit_of(self.folder / path, score, facts, seconds))
        return Results(tuple(rows), title, self.thumbnail)

    def ranked(
        self, features: np.ndarray, *, count: int | None, among: np.ndarray | None = None, leave_out: int | None = None
    ) -> dict[int, tuple[float, float | None]]:
        """The same files as their numbers in the index, best first, with score and second into a video.

        Args:
            features: [D] of unit length.
            count: at most so many; None is all.
            among: [M] the numbers of the files that may answer; None is all.
            leave_out: the number of one that may not.
        """
        if count is not None and count < 1:
            raise ConfigError(f"count must be at least 1. Got {count}.")
        if self._part != self._answering:
            raise ConfigError(
                f"{self.index_folder} is still being made with this model: until `update` is through, the old one "
                "answers."
            )
        with self._lock:
            snapshot = self._refreshed()
            assert self._scanner is not None
            allowed = rows_of(snapshot, among, leave_out)
            wanted = max(1, len(snapshot.files)) if count is None else count
            return by_file(snapshot, self._scanner, features.astype(np.float32), wanted, allowed)

    def features_of(self, number: int) -> np.ndarray:
        """[D] of unit length, of a file by its number in the index; of a video the mean of its frames.

        Raises:
            DataError: there is no such file.
        """
        with self._lock:
            snapshot = self._refreshed()
            rows = np.flatnonzero(snapshot.files == number)
            if not len(rows):
                raise DataError(f"file {number} must be in the index of {self.folder}, and is not.")
            mean = np.array(snapshot.features[rows]).mean(axis=0)
        return mean / np.linalg.norm(mean)

    def catalogue(self) -> tuple[int, Catalogue]:
        """Facts of all files, and a number that is another one when the index has changed."""
        with self._lock:
            version = self._store.version()
            if self._catalogue is None or self._catalogue[0] != version:
                self._catalogue = (version, Catalogue.of(self._store.facts_of_all()))
            return self._catalogue

    def digests(self) -> dict[str, bytes]:
        """The SHA-256 of each file, by its path below the folder."""
        return self._store.digests_by_path()

    def latest(self, *, count: int | None = 20, filters: Filters | None = None) -> Results:
        """The files that pass the filters, whatever they show: the latest first, what tells no date last.

        Args:
            count: at most so many; None is all.
            filters: which files may answer.

        Returns:
            Rows whose scores are 0, as nothing was compared.
        """
        with self._lock:
            snapshot, entries = self._store.listing()
            among = self._matching(filters)
        numbers = set(snapshot.files[snapshot.files >= 0].tolist())
        if among is not None:
            numbers.intersection_update(among.tolist())
        found = [entries[number] for number in sorted(numbers) if number in entries]
        rows = tuple(hit_of(self.folder / path, 0.0, facts, None) for path, facts in found)
        return Results(rows, "", self.thumbnail).by_date()[:count]

    def facts(self, path: str | Path) -> Hit:
        """What is known of one file of the index; its score is 0.

        Args:
            path: absolute, or below the folder; links and other Unicode forms of the name are followed.

        Raises:
            DataError: the file is not in the index.
        """
        with self._lock:
            number = self._number_of(path)
            entries = self._store.entries([] if number is None else [number])
        if number not in entries:
            raise DataError(f"{path} must be a picture in the index of {self.folder}, and is not. Update the index.")
        name, facts = entries[number]
        return hit_of(self.folder / name, 0.0, facts, None)

    def duplicates(self, *, threshold: float = 0.97, filters: Filters | None = None) -> list[Results]:
        """Groups of files that are alike, those with the most first; scores are cosines with the first of a group.

        Files belong together when a chain of pairs at or above the threshold joins them. The first of a group is its
        best copy: of most pixels, then of most bytes. Links and hard links are further names of one file, not copies.

        Args:
            threshold: smallest cosine of a pair.
            filters: which files are compared.

        Raises:
            ConfigError: the threshold is not above 0 and at most 1.
        """
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold must be above 0 and at most 1. Got {threshold}.")
        with self._lock:
            snapshot = self._refreshed()
            among = rows_of(snapshot, self._matching(filters), None)
        rows = np.flatnonzero(among) if among is not None else np.arange(len(snapshot.files))
        rows = rows[np.isnan(snapshot.times[rows])]  # frames of one video are alike by nature
        groups = [self._group(snapshot, group) for group in alike(snapshot.features, threshold, rows)]
        return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)

    def _group(self, snapshot: Snapshot, rows: np.ndarray) -> Results:
        with self._lock:
            entries = self._store.entries(snapshot.files[rows].tolist())
        found, features = [], {}
        for row, number in zip(rows.tolist(), snapshot.files[rows].tolist(), strict=True):
            if number in entries:
                path, facts = entries[number]
                found.append(hit_of(self.folder / path, 1.0, facts, None))
                features[self.folder / path] = snapshot.features[row]
        copies = best_first(found)
        scored = [replace(copy, score=float(features[copy.path] @ features[copies[0].path])) for copy in copies]
        return Results(tuple(scored), "alike", self.thumbnail)

    def thumbnail(self, path: str | Path, *, side: int = THUMBNAIL, seconds: float | None = None) -> bytes:
        """A small JPEG of a file of the folder.

        Args:
            path: absolute, or below the folder.
            side: px, at most, of the longer side.
            seconds: into a video; None is its middle.

        Raises:
            DataError: the file is not in the folder, is gone or cannot be read.
        """
        return thumbnail_of(self._inside(path), side=side, seconds=seconds)

    def _inside(self, path: str | Path) -> Path:
        absolute = (self.folder / expanded(path)).resolve()
        if not absolute.is_relative_to(self.folder):
            raise DataError(f"{path} must lie in {self.folder}, and does not.")
        return absolute

    def why(self, path: str | Path, text: str) -> "HeatMaps":
        """Which part of a picture speaks for some words, such as those that it was found by. It is encoded for that.

        Args:
            path: absolute, or below the folder.
            text: the words.

        Raises:
            ConfigError: the model's image tower has no grid.
            DataError: the file is not in the folder, is gone, or is no picture that can be read.
            TextError: the model reads nothing of the text, or it is too long.
        """
        from diptych.where import Locator  # needs torch, and searching does not

        inside = self._inside(path)
        return Locator(self.bundle.part_for(inside).in_torch(), [text])(inside)

    # Upkeep

    def status(self) -> dict[str, Any]:
        """Of which folder and model it is, where the index lies, and counts."""
        return status_of(read_about(self.index_folder) or self._about, self._store)

    def command(self, verb: str) -> str:
        """A command of `diptych index` for this library, as a user can type it."""
        return command(verb, self.index_folder, self._about)

    def faults(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        return self._store.faults()

    def check(self) -> list[str]:
        """What is wrong with the index, one sentence each; nothing when it is whole."""
        return self._store.check()

    def compact(self) -> int:
        """Clear removed rows away; how many there were. `update` does so by itself from a quarter on."""
        with Writer(self.index_folder / self._part, self.bundle.embed_dim) as writer:
            return writer.compact()

    def rows(self) -> Iterator[tuple[str, float | None, np.ndarray]]:
        """Path below the folder, second of a video, and features [D] of each row."""
        with self._lock:
            snapshot, entries = self._store.listing()
        for row in np.flatnonzero(snapshot.files >= 0):
            seconds = float(snapshot.times[row])
            path = entries[int(snapshot.files[row])][0]
            yield path, None if np.isnan(seconds) else seconds, np.array(snapshot.features[row])

    def _refreshed(self) -> Snapshot:
        """The rows of the last transaction; read again when it is a new one."""
        version = self._store.version()
        if self._snapshot is None or version != self._version:
            old, self._snapshot = self._snapshot, self._store.snapshot()
            self._version = version
            if self._scanner is not None and old is not None and old.file == self._snapshot.file:
                self._scanner.extend(self._snapshot.features)
            else:
                features = self._snapshot.features
                self._scanner = (Scanner if len(features) < APPROXIMATE_FROM else ApproximateScanner)(features)
        return self._snapshot

    def _matching(self, filters: Filters | None) -> np.ndarray | None:
        if filters is None:
            return None
        return self._store.matching(replace(filters, folder=folder_named(self._store, self.folder, filters.folder)))

    def _number_of(self, path: str | Path) -> int | None:
        return next(filter(None, map(self._store.file_of, names_of(self._store, self.folder, path))), None)
