"""The pictures of evaluation sets, for those who only want to know whether they are elsewhere: no label is needed."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diptych.curate.copies import Sketches, small_grey
from diptych.data.ahead import decoded_ahead, or_error
from diptych.errors import DataError, ImageError, ShardError
from diptych.files import expanded
from diptych.sets.captioned import read_retrieval
from diptych.sets.open import read_labelled
from diptych.sets.pictures import Pictures
from diptych.sets.webdataset import dataset_type, subfolders

_SPLITS = ("test", "validation")  # the latter is also valid, val and dev
_FOLDERS = ("test", "validation", "valid", "val", "dev")
_BATCH = 256


def evaluation_pictures(folder: Path) -> list[Pictures]:
    """What is measured in a folder: the splits test and validation of one set, or of each set in it.

    Raises:
        DataError: there is no set in it.
        ShardError: a shard is missing or damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of evaluation sets. There is no such folder.")
    names = [child.name for child in subfolders(folder)]
    sets = [folder] if any(name in _FOLDERS for name in names) else subfolders(folder)
    found = [pictures for one in sets for pictures in _splits_of(one)]
    if not found:
        found = _splits_of(folder)
    if not found:
        raise DataError(f"{folder} must hold evaluation sets (SET/test/0.tar, SET/test/CLASS/*.jpg). It has none.")
    return found


@functools.cache
def known_pictures(folders: tuple[str, ...]) -> tuple[tuple[str, ...], Sketches]:
    """All pictures of evaluation sets that can be read, once a process: their keys "SET/SPLIT/KEY", and sketches.

    Raises:
        DataError: there is no set in a folder.
        ShardError: a shard is missing or damaged.
    """
    keys: list[str] = []
    small: list[np.ndarray] = []
    for pictures in (one for folder in folders for one in evaluation_pictures(expanded(folder))):
        with decoded_ahead(or_error(_small_of(pictures)), range(len(pictures)), _BATCH) as ready:
            for key, picture in zip(pictures.keys, ready, strict=True):
                if not isinstance(picture, ImageError):
                    keys.append(f"{pictures.name}/{pictures.split}/{key}")
                    small.append(picture)
    return tuple(keys), Sketches.of(small, known=True)


def _small_of(pictures: Pictures) -> Callable[[int], np.ndarray]:
    def small(index: int) -> np.ndarray:
        return small_grey(pictures.image_bytes(index))

    return small


def _splits_of(folder: Path) -> list[Pictures]:
    read = read_retrieval if dataset_type(folder) == "retrieval" else read_labelled
    found: list[Pictures] = []
    for split in _SPLITS:
        try:
            found.append(read(folder, split=split))
        except ShardError:  # it is a set, and is damaged
            raise
        except DataError:  # no set, or it has no such split
            continue
    return found
