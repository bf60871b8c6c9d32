"""Pictures with any number of classes, read at random: Pascal VOC's own layout.

`ImageSets/Main/CLASS_SPLIT.txt` with a line `PICTURE 1`, `PICTURE -1` or `PICTURE 0` (too difficult to count) for each
picture, and `JPEGImages/PICTURE.jpg`; in the folder itself, or below it as in `VOCdevkit/VOC2007/`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.data.prompts import read_lines
from diptych.errors import DataError
from diptych.sets.pictures import Pictures
from diptych.sets.webdataset import no_split


@dataclass(frozen=True, eq=False, kw_only=True)
class MultilabelImages(Pictures):
    """One split of a set in which a picture shows any number of classes."""

    classnames: tuple[str, ...]  # C of them
    targets: np.ndarray  # [N, C] bool, whether the picture shows the class
    counted: np.ndarray  # [N, C] bool; False where it is too difficult to count either way


def read_multilabel(folder: Path, *, split: str = "test") -> MultilabelImages:
    """Find the pictures of one split, with all their classes.

    Raises:
        DataError: the folder is of another layout, has no such split, or its lists differ in their pictures.
    """
    root = next((path.parents[1] for path in sorted(folder.rglob("ImageSets/Main"))), None)
    if root is None:
        raise DataError(f"{folder} must hold Pascal VOC's ImageSets/Main and JPEGImages. It does not.")
    lists = {
        path.stem.rpartition("_")[0]: path for path in sorted((root / "ImageSets" / "Main").glob(f"*_{split}.txt"))
    }
    if not lists:
        stems = (path.stem.rpartition("_")[2] for path in (root / "ImageSets" / "Main").glob("*_*.txt"))
        raise no_split(folder, split, set(stems))
    marks = [dict(_mark(line, path) for line in read_lines(path)) for path in lists.values()]
    keys = tuple(marks[0])
    for path, one in zip(lists.values(), marks, strict=True):
        if one.keys() != marks[0].keys():
            raise DataError(
                f"{path} must list the pictures of the other classes. It lists others: fetch the set again."
            )
    table = np.array([[one[key] for one in marks] for key in keys])  # [N, C]
    return MultilabelImages(
        name=folder.resolve().name,
        split=split,
        keys=keys,
        classnames=tuple(lists),
        targets=table == 1,
        counted=table != 0,
        _sources=tuple(root / "JPEGImages" / f"{key}.jpg" for key in keys),
    )


def _mark(line: str, path: Path) -> tuple[str, int]:
    key, _, mark = line.partition(" ")
    if mark.strip() not in ("1", "0", "-1"):
        raise DataError(f"{path} must give 1, 0 or -1 for each picture. Got {line[:80]!r}.")
    return key, int(mark)
