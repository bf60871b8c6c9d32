"""Labelled sets out of another: some of its pictures, or each of them changed as it is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diptych.sets.labelled import LabelledImages

Change = Callable[[Image.Image, int], Image.Image]  # a picture and its position in the set, to what is shown


@dataclass(frozen=True, eq=False, kw_only=True)
class ChangedImages(LabelledImages):
    """Pictures of another set, as they are or changed."""

    whole: LabelledImages
    rows: tuple[int, ...]  # N positions in the other set
    change: Change

    def image_bytes(self, index: int) -> bytes:
        """The file of the picture that is changed."""
        return self.whole.image_bytes(self.rows[index])

    def open(self, index: int) -> Image.Image:
        """One picture, RGB, as it is shown.

        Raises:
            ImageError: the picture that is changed cannot be read.
        """
        return self.change(self.whole.open(self.rows[index]), index)


def changed(data: LabelledImages, change: Change) -> ChangedImages:
    """A set with each of its pictures changed; `change` is called on several threads."""
    return _made(data, range(len(data)), data.classnames, data.targets, change)


def chosen(data: LabelledImages, rows: Sequence[int]) -> ChangedImages:
    """Some pictures of a set, by their positions, in that order; it keeps all its classes."""
    return _made(data, rows, data.classnames, data.targets[list(rows)], _as_it_is)


def draw_pictures(data: LabelledImages, count: int, *, seed: int = 0) -> tuple[LabelledImages, tuple[int, ...]]:
    """Some pictures of a set, drawn evenly, in the set's order; classes without one of them are left out.

    Args:
        data: of which `count` are drawn, or all where there are fewer.
        count: pictures, 1 or more.
        seed: of the draw.

    Returns:
        The drawn set, and for each of its classes the number that it has in `data`.
    """
    assert count >= 1
    rows = np.sort(np.random.default_rng(seed).choice(len(data), size=min(count, len(data)), replace=False))
    classes, targets = np.unique(data.targets[rows], return_inverse=True)
    names = tuple(data.classnames[number] for number in classes)
    return _made(data, rows.tolist(), names, targets.astype(np.int64), _as_it_is), tuple(classes.tolist())


def _as_it_is(picture: Image.Image, _index: int) -> Image.Image:
    return picture


def _made(
    data: LabelledImages, rows: Sequence[int], classnames: tuple[str, ...], targets: np.ndarray, change: Change
) -> ChangedImages:
    return ChangedImages(
        name=data.name,
        split=data.split,
        classnames=classnames,
        naming=data.naming,
        templates=data.templates,
        keys=tuple(data.keys[row] for row in rows),
        targets=targets,
        _sources=(),
        whole=data,
        rows=tuple(rows),
        change=change,
    )
