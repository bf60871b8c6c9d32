"""An index is brought in step with its folder: new, changed, moved and deleted files."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diptych.data.ahead import batched, decoded_ahead, pixels_of
from diptych.embed import encode_fast
from diptych.errors import ConfigError, DataError
from diptych.search.index_folder import describe_index, read_about
from diptych.search.reading import Read, find_files, read_file
from diptych.search.store import Store
from diptych.search.writing import Entry, Writer
from diptych.weights.bundle import Bundle

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
    broken: dict[str, str] = field(default_factory=dict)  # path to why, of those that were opened now
    complete: bool = True  # False after a stop: the next update goes on from here


def update_index(
    folder: Path,
    part: Path,
    bundle: Bundle,
    *,
    batch_size: int = 64,
    on_progress: Callable[[UpdateProgress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Update:
    """Bring one part of an index in step with a folder; when all is done, that part answers.

    Args:
        folder: of pictures.
        part: the folder of the part, within that of the index.
        bundle: the model of this part.
        batch_size: pictures a forward pass.
        on_progress: called after each batch.
        should_stop: asked after each batch; True ends the update in good order.

    Raises:
        ConfigError: another process updates this index.
        DataError: the index cannot be written.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1. Got {batch_size}.")
    index = part.parent
    if not os.access(index, os.W_OK):
        raise DataError(f"{index} cannot be written, so the index stays as it is. Choose another --index.")
    with Writer(part, bundle.model.config.embed_dim) as writer:
        update = _updated(folder, bundle, writer, batch_size, on_progress, should_stop)
        if update.complete:
            about = read_about(index)
            if about is None or about["part"] != part.name:
                writer.answer(describe_index(folder, bundle.fingerprint(), part.name, bundle))
            _tidy(writer)
    return update


def _updated(
    folder: Path,
    bundle: Bundle,
    writer: Writer,
    batch_size: int,
    on_progress: Callable[[UpdateProgress], None] | None,
    should_stop: Callable[[], bool],
) -> Update:
    known = writer.store.known()
    there = {found.path: found for found in find_files(folder)}
    waiting = [
        found
        for path, found in there.items()
        if path not in known or (known[path].size, known[path].modified) != (found.size, found.modified)
    ]
    added = changed = moved = 0
    broken: dict[str, str] = {}
    gone = {known[path].id: path for path in known.keys() - there.keys()}
    start, done = time.perf_counter(), 0
    digests = writer.store.digests({found.size for found in waiting})
    read = functools.partial(read_file, folder, preprocess=bundle.preprocess, known=digests)
    with decoded_ahead(read, waiting, batch_size, pixels=_pixels) as reads:
        for batch in batched(reads, batch_size):
            elsewhere, entries = _placed(folder, bundle, writer.store, batch, gone)
            writer.write(entries, elsewhere)
            broken |= {read.found.path: read.fault for read in batch if read.fault is not None}
            changed += sum(entry.path in known for entry in entries)
            added += sum(entry.path not in known for entry in entries)
            moved += len(elsewhere)
            done += len(batch)
            if on_progress:
                on_progress(UpdateProgress(done, len(waiting), time.perf_counter() - start))
            if should_stop() and done < len(waiting):
                break
    # Last: a file that moved is not forgotten before it is found again.
    complete = done == len(waiting)
    if complete and gone:
        writer.forget(gone.values())
    status = writer.store.status()
    return Update(
        added=added,
        changed=changed,
        moved=moved,
        deleted=len(gone) if complete else 0,
        total=status["files"] - status["unreadable files"],
        broken=broken,
        complete=complete,
    )


def _placed(
    folder: Path, bundle: Bundle, store: Store, batch: Sequence[Read], gone: dict[int, str]
) -> tuple[dict[int, Entry], list[Entry]]:
    """Entries of a batch: those that are a vanished file under another name, and the others with their features.

    What is found again is taken out of `gone`.
    """
    moved: dict[int, Entry] = {}
    entries: list[Entry] = []
    encode: list[Read] = []
    copies = store.copies_of({read.digest for read in batch if read.digest and read.fault is None})
    for read in batch:
        number = copies.get(read.digest) if read.digest else None
        if read.fault is not None:
            entries.append(_entry(read))
        elif number is not None and number in gone:
            moved[number] = _entry(read)
            del gone[number]
        elif number is not None:
            features, times, facts = store.frames_of(number)
            entries.append(replace(_entry(read), facts=facts, features=features, times=times))
        elif read.pixels:
            encode.append(read)
        else:  # it was a copy of what is no longer there
            again = read_file(folder, read.found, bundle.preprocess)
            entries += [_entry(again)] if again.fault is not None else []
            encode += [again] if again.fault is None else []
    features = encode_fast(bundle, [frame for read in encode for frame in read.pixels])
    start = 0
    for read in encode:
        rows = features[start : start + len(read.pixels)]
        entries.append(replace(_entry(read), features=rows, times=read.times))
        start += len(rows)
    return moved, entries


def _tidy(writer: Writer) -> None:
    status = writer.store.status()
    removed = status["removed rows"]
    if removed >= _COMPACT_ROWS and removed > _COMPACT * (removed + status["rows"]):
        writer.compact()


def _pixels(read: Read) -> int:
    return sum(map(pixels_of, read.pixels))


def _entry(read: Read) -> Entry:
    return Entry(
        path=read.found.path,
        size=read.found.size,
        modified=read.found.modified,
        digest=read.digest,
        facts=read.facts,
        fault=read.fault,
    )
