"""An index is brought in step with its folder: new, changed, moved and deleted files."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from diptych.data.ahead import batched, decoded_ahead, pixels_of
from diptych.data.walk import FoundFile, walk_folder
from diptych.embed import encode_fast
from diptych.errors import ConfigError
from diptych.files import shown
from diptych.search.about import text_of
from diptych.search.gone import Gone
from diptych.search.reading import Read, read_file, readers
from diptych.search.store import Known, Store
from diptych.search.writing import Entry, Writer
from diptych.weights.dual_encoder import DualEncoder

_COMPACT = 0.25  # share of removed rows from which they are cleared away
_COMPACT_ROWS = 1_000  # and at least so many


@dataclass(frozen=True)
class UpdateProgress:
    """How far an update is."""

    done: int
    total: int  # files that have to be opened
    seconds: float  # since the first of them

    @property
    def per_second(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / self.per_second if self.done else 0.0


@dataclass(frozen=True, kw_only=True)
class Update:
    """What an update found, in files."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    deleted: int = 0
    total: int = 0  # in the index now, without those that could not be read
    broken: dict[str, str] = field(default_factory=dict)  # path to why, of those that were opened now; only new faults
    notes: tuple[str, ...] = ()  # what the walk could not look at or read, a sentence each
    new_notes: tuple[str, ...] = ()  # those that the update before had not
    left_out: dict[str, int] = field(default_factory=dict)  # files and folders, by the rule that left them out
    kept: dict[str, int] = field(default_factory=dict)  # gone and not forgotten, as they may only be away: by why
    unseen: int = 0  # known, and now they or their folder cannot be looked at: not forgotten either
    complete: bool = True  # False after a stop: the next update goes on from here


@dataclass(frozen=True, kw_only=True)
class UpdateOptions:
    """How thorough an update is.

    Raises:
        ConfigError: batch_size is below 1.
    """

    batch_size: int = 64  # pictures a forward pass
    retry: bool = False  # open again what could not be read, whatever the cause was
    verify: bool = False  # read every file again, also where size and times are those known
    forget: bool = False  # forget what is gone, also where a disk may only be away
    exclude: tuple[str, ...] = ()  # lines of an ignore file, for the whole folder

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1. Got {self.batch_size}.")


def update_index(
    folder: Path,
    writer: Writer,
    bundle: DualEncoder,
    options: UpdateOptions,
    *,
    on_progress: Callable[[UpdateProgress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Update:
    """Bring one part of an index in step with a folder.

    What is gone from the folder is forgotten, unless it may only be away: then it stays in the index, and `kept` says
    so. A disk that is not mounted, a share that does not answer or a mistaken command shall not cost what took hours.

    Args:
        folder: of pictures.
        writer: of the part.
        bundle: the model of this part.
        options: how thorough it is.
        on_progress: called after each batch.
        should_stop: asked after each batch; True ends the update in good order.

    Raises:
        DataError: the folder cannot be listed, or all that is known of it is gone; or the index cannot be written.
    """
    known = writer.store.known()
    walk = walk_folder(folder, exclude=options.exclude)
    gone = Gone(folder, walk, known, writer.store.note("mounts") or [])
    gone.refuse_all(forget=options.forget)
    tried = readers(bundle.preprocess)
    waiting = [found for path, found in walk.files.items() if _is_due(found, known.get(path), tried, options)]
    tally = _Tally(known, writer.store.faults())
    start, done = time.perf_counter(), 0
    digests = writer.store.digests({found.size for found in waiting})
    read = functools.partial(read_file, folder, preprocess=bundle.preprocess, known=digests)
    with decoded_ahead(read, waiting, options.batch_size, pixels=_pixels) as reads:
        for batch in batched(reads, options.batch_size):
            placed = _placed(folder, bundle, writer.store, tally.of_use(batch), gone.waiting, tried)
            writer.write(placed.entries, placed.moved)
            writer.touch(placed.same)
            tally.count(placed)
            done += len(batch)
            if on_progress:
                on_progress(UpdateProgress(done, len(waiting), time.perf_counter() - start))
            if should_stop() and done < len(waiting):
                break
    # Last: a file that moved is not forgotten before it is found again.
    complete = done == len(waiting)
    deleted = gone.to_forget(forget=options.forget) if complete else []
    if deleted:
        writer.forget(deleted)
    before, notes = writer.store.note("walk") or {}, tuple(walk.notes())
    left_out = walk.count_left_out()
    if complete:
        unread = dict(Counter(walk.unread.values()).most_common())
        writer.note("walk", {"notes": [*map(shown, notes)], "unread": unread, "left out": left_out})
        writer.note("mounts", sorted(map(text_of, gone.mounts())))
    status = writer.store.status()
    return Update(
        **tally.counts,
        deleted=len(deleted),
        total=status["files"] - status["unreadable files"],
        broken=tally.broken,
        notes=notes,
        new_notes=tuple(note for note in notes if shown(note) not in before.get("notes", ())),
        left_out=left_out,
        kept=gone.kept,
        unseen=gone.unseen,
        complete=complete,
    )


def _is_due(found: FoundFile, known: Known | None, tried: str, options: UpdateOptions) -> bool:
    """Whether a file has to be opened."""
    if known is None or (known.size, known.modified, known.changed) != found[1:]:
        return True
    if known.has_rows:
        return options.verify
    return options.retry or options.verify or known.tried != tried


class _Tally:
    """What an update did, file by file."""

    def __init__(self, known: dict[str, Known], faults: dict[str, str]) -> None:
        self._known, self._faults = known, faults
        self.counts = {"added": 0, "changed": 0, "moved": 0}
        self.broken: dict[str, str] = {}

    def of_use(self, batch: Sequence[Read]) -> list[Read]:
        """Those that tell more than is known: what was read once is not lost to a fault that may pass."""
        for read in batch:
            if read.fault is not None and shown(read.fault) != self._faults.get(read.found.path):
                self.broken[read.found.path] = read.fault
        return [read for read in batch if not (read.may_pass and self._has_rows(read.found.path))]

    def count(self, placed: "_Placed") -> None:
        """Add a batch."""
        self.counts["moved"] += len(placed.moved)
        for entry in placed.entries:
            self.counts["changed" if entry.path in self._known else "added"] += entry.fault is None or (
                entry.path in self._known and self._has_rows(entry.path)
            )

    def _has_rows(self, path: str) -> bool:
        return path in self._known and self._known[path].has_rows


class _Placed(NamedTuple):
    """Where the files of a batch go."""

    moved: dict[int, Entry]  # a vanished file under another name, by the number of that
    entries: list[Entry]
    same: list[Entry]  # content is what it was


def _placed(
    folder: Path, bundle: DualEncoder, store: Store, batch: Sequence[Read], gone: dict[int, str], tried: str
) -> _Placed:
    """What becomes of a batch. What is found again is taken out of `gone`."""
    placed = _Placed({}, [], [])
    encode: list[Read] = []
    copies = store.copies_of({read.digest for read in batch if read.digest and read.fault is None})
    for read in batch:
        number = copies.get(read.digest) if read.digest else None
        if read.fault is not None:
            placed.entries.append(_entry(read, tried))
        elif read.digest and store.digest_of(read.found.path) == read.digest:
            placed.same.append(_entry(read))
        elif number is not None and number in gone:
            placed.moved[number] = _entry(read)
            del gone[number]
        elif number is not None:
            features, times, facts = store.frames_of(number)
            placed.entries.append(replace(_entry(read), facts=facts, features=features, times=times))
        elif read.pixels:
            encode.append(read)
        else:  # it was a copy of what is no longer there
            again = read_file(folder, read.found, bundle.preprocess)
            placed.entries.extend([_entry(again, tried)] if again.fault is not None else [])
            encode += [again] if again.fault is None else []
    features = encode_fast(bundle, [frame for read in encode for frame in read.pixels])
    start = 0
    for read in encode:
        rows = features[start : start + len(read.pixels)]
        placed.entries.append(replace(_entry(read), features=rows, times=read.times))
        start += len(rows)
    return placed


def tidy(writer: Writer) -> None:
    """Clear removed rows away when they are many."""
    status = writer.store.status()
    removed = status["removed rows"]
    if removed >= _COMPACT_ROWS and removed > _COMPACT * (removed + status["rows"]):
        writer.compact()


def _pixels(read: Read) -> int:
    return sum(map(pixels_of, read.pixels))


def _entry(read: Read, tried: str | None = None) -> Entry:
    return Entry(
        path=read.found.path,
        size=read.found.size,
        modified=read.found.modified,
        changed=read.found.changed,
        digest=read.digest,
        facts=read.facts,
        fault=read.fault,
        cause=read.cause,
        tried=None if read.may_pass else tried,
    )
