"""What is damaged goes out of an index, so that an update encodes it anew; the rest stays."""

import shutil
from pathlib import Path

from diptych.errors import ConfigError, DataError
from diptych.files import folder_lock
from diptych.search.about import INDEX, read_about
from diptych.search.index_folder import place_of
from diptych.search.store import Store
from diptych.search.writing import Writer


def repair_index(folder: Path, fingerprint: str, dimensions: int, index: Path | None = None) -> list[str]:
    """Take out of the index of a folder what is damaged.

    Args:
        folder: of the pictures.
        fingerprint: of the model of the index.
        dimensions: D.
        index: where the index lies, if not in the cache.

    Returns:
        A sentence for each thing that was taken out; none when all is whole.

    Raises:
        ConfigError: another process works in it, or it holds the features of another model.
        DataError: there is no index, or it cannot be written.
    """
    folder, place = place_of(folder, index)
    if not (place / INDEX).exists() and not any(place.glob("*/files.sqlite")):
        raise DataError(f"{folder} must have an index to be mended, and none is in {place}.")
    done: list[str] = []
    part = place / fingerprint[:16]
    try:
        about = read_about(place)
    except DataError:
        if not part.is_dir():
            raise ConfigError(
                f"{place / INDEX} is damaged, and the features beside it are of another model. Name it with --model."
            ) from None
        with folder_lock(place):
            (place / INDEX).unlink()
        done.append(f"{INDEX} was damaged, and is written anew.")
        about = None
    if about is not None:
        part, dimensions = place / about.part, about.dimensions
    try:
        with Writer(part, dimensions) as writer:
            if wrong := writer.store.broken_database():
                raise DataError(wrong)
            blocks = writer.store.damaged_blocks()
            paths = writer.store.files_in(blocks)
            writer.forget(paths)
            writer.take_as_it_is(blocks)
            if paths:
                done.append(f"{len(paths):,} files had damaged features.")
            if pruned := writer.prune():
                done.append(f"{pruned:,} entries had lost their counterpart.")
    except DataError as error:
        if not _is_damage(part, dimensions):
            raise
        with folder_lock(place):
            shutil.rmtree(part)
        done.append(f"All features go, as what tells them apart is damaged: {error}")
    return done


def _is_damage(part: Path, dimensions: int) -> bool:
    """Whether a part cannot be read, rather than not be written."""
    try:
        store = Store(part, dimensions)
        wrong = bool(store.check())
        store.close()
    except DataError:
        return part.is_dir()
    return wrong
