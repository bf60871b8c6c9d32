"""Indexes as a whole: one follows its pictures to another path; which there are; one is removed."""

import contextlib
import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from diptych.errors import ConfigError, DataError
from diptych.files import atomic_folder, expanded, folder_lock, remove_folder
from diptych.search.about import INDEX, IndexAbout, index_folder, indexes_root, read_about, write_about
from diptych.search.index_folder import place_of
from diptych.search.store import Store

_SAMPLE = 64  # files that are looked for in another folder, by name and size
_READ = 3  # of these that are read
_READ_BYTES = 64 * 2**20  # of a file that is read, at most


@dataclass(frozen=True, kw_only=True)
class KeptIndex:
    """One index of the cache."""

    index: Path
    folder: Path | None  # of the pictures; None when the index does not tell
    is_there: bool  # the folder
    model: str = ""
    files: int = 0
    bytes: int = 0
    fault: str = ""  # why it cannot be opened


def list_indexes() -> list[KeptIndex]:
    """The indexes in the cache, by the folder they are of."""
    found = []
    for index in _in_cache():
        size = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
        folder: Path | None = None
        try:
            about = read_about(index)
            assert about is not None
            folder = about.folder
            with contextlib.closing(Store(index / about.part, about.dimensions)) as store:
                files = store.status()["files"]
            one = KeptIndex(
                index=index, folder=folder, is_there=folder.is_dir(), model=about.model, files=files, bytes=size
            )
        except DataError as error:
            one = KeptIndex(
                index=index, folder=folder, is_there=bool(folder and folder.is_dir()), bytes=size, fault=str(error)
            )
        found.append(one)
    return sorted(found, key=lambda one: str(one.folder))


def remove_index(folder: Path, index: Path | None = None) -> Path:
    """Remove the index of a folder, which need not be there any more; where it lay.

    Raises:
        ConfigError: another process works in it.
        DataError: there is none.
    """
    folder, place = place_of(folder, index)
    if not (place / INDEX).is_file():
        raise DataError(f"{folder} must have an index to be removed, and none is in {place}. See diptych index list.")
    with folder_lock(place):
        remove_folder(place)
    return place


def move_index(old: Path, new: Path, index: Path | None = None) -> Path:
    """Tell an index that its pictures lie under another path now; nothing is encoded again.

    Args:
        old: the path they had.
        new: the path that they have.
        index: where the index lies, if not in the cache; it stays there.

    Returns:
        Where the index lies now.

    Raises:
        ConfigError: the index is of another folder than `old`, or `new` has one already.
        DataError: there is no index, or no folder `new`.
    """
    old, place = place_of(old, index)
    new = expanded(new).resolve()
    about = read_about(place)
    if about is None:
        raise DataError(f"{old} must have an index to be moved, and none is in {place}. See diptych index list.")
    if about.folder != old:
        raise ConfigError(f"{place} is the index of {about.folder}, not of {old}. Name that folder first.")
    if not new.is_dir():
        raise DataError(f"{new} must be a folder of pictures, and is none.")
    goal = place if index is not None else index_folder(new)
    if goal != place and (goal / INDEX).exists():
        raise ConfigError(f"{new} must have no index yet, and one is in {goal}. Remove it: diptych index remove {new}.")
    _bring(place, goal, replace(about, folder=new))
    return goal


def same_pictures(folder: Path) -> Path | None:
    """The index in the cache that was made of the pictures of a folder when they lay, or as they lie, elsewhere.

    One whose own folder is gone goes before one whose folder is still there.
    """
    copied = None
    for index in _in_cache():
        with contextlib.suppress(DataError):
            about = read_about(index)
            if about is None or about.folder == folder or not _holds(folder, index, about):
                continue
            if not _holds(about.folder, index, about):
                return index
            copied = copied or index
    return copied


def adopted(folder: Path, place: Path, fingerprint: str) -> IndexAbout | None:
    """Bring the index of the same pictures under another path to where that of a folder lies by default.

    Args:
        folder: of pictures, without an index.
        place: where its index is to lie.
        fingerprint: of the model that the index must be of.

    Returns:
        What it says now; None when there is none, or it cannot be brought there.
    """
    index = same_pictures(folder)
    about = read_about(index) if index else None
    if index is None or about is None or about.fingerprint != fingerprint:
        return None
    now = replace(about, folder=folder)
    try:
        if _holds(about.folder, index, about):
            with (
                atomic_folder(place) as aside,
                contextlib.closing(Store(index / about.part, about.dimensions)) as store,
            ):
                store.copy_to(aside / about.part)
                write_about(aside, now)
        else:
            _bring(index, place, now)
    except (ConfigError, DataError, OSError):  # it is used by another process, or may not be written
        return None
    return now


def moved_along(index: Path, about: IndexAbout, folder: Path) -> IndexAbout:
    """An index whose pictures are found under another path is told so.

    Raises:
        ConfigError: it is of other pictures.
    """
    if not _holds(folder, index, about):
        raise ConfigError(
            f"{index} is the index of {about.folder}, not of {folder}. Choose another --index. If the pictures were "
            f"moved: diptych index move {about.folder} {folder} --index {index}."
        )
    now = replace(about, folder=folder)
    with contextlib.suppress(ConfigError, DataError):  # one that may not be written answers as well
        _bring(index, index, now)
    return now


def _in_cache() -> list[Path]:
    return sorted(file.parent for file in indexes_root().glob(f"*/{INDEX}"))


def _bring(index: Path, goal: Path, about: IndexAbout) -> None:
    with folder_lock(index):
        write_about(index, about)
        if goal != index:
            try:
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(goal, ignore_errors=True)  # without an index.json it is what a killed process began
                index.rename(goal)
            except OSError as error:
                raise DataError(f"{index} could not be moved to {goal}: {error.strerror}.") from error


def _holds(folder: Path, index: Path, about: IndexAbout) -> bool:
    """Whether most files of an index are in a folder: by name and size, and a few by their bytes."""
    if not folder.is_dir():
        return False
    with contextlib.closing(Store(index / about.part, about.dimensions)) as store:
        known = [(path, one.size) for path, one in store.known().items() if one.has_rows]
        sample = known[:: max(1, len(known) // _SAMPLE)]
        alike = [(path, size) for path, size in sample if _size(folder / path) == size]
        if not sample or 2 * len(alike) <= len(sample):
            return False
        short = [path for path, size in alike if size <= _READ_BYTES]
        few = short[:: max(1, len(short) // _READ)][:_READ]
        return all(_digest(folder / path) == store.digest_of(path) for path in few)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
