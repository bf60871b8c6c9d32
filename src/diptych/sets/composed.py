"""Scenes composed of labelled pictures, side by side on one canvas: where each thing is, is known.

Nothing is drawn but which pictures: a scene is rows of squares, each the middle of a picture of another class.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from diptych.errors import DataError, ImageError
from diptych.sets.labelled import LabelledImages

COLUMNS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class ComposedScene:
    """Squares on a canvas, line by line, two to a line."""

    picture: Image.Image  # RGB
    keys: tuple[str, ...]  # of the pictures, one a square
    classes: tuple[int, ...]  # of the squares, all different

    def owners(self, h: int, w: int) -> np.ndarray:
        """[h, w] int64: the square that the middle of each cell of a grid over the canvas lies in."""
        rows = len(self.keys) // COLUMNS
        row = ((np.arange(h) + 0.5) * rows / h).astype(np.int64)
        column = ((np.arange(w) + 0.5) * COLUMNS / w).astype(np.int64)
        return row[:, None] * COLUMNS + column


@dataclass(frozen=True, kw_only=True, eq=False)
class ComposedScenes:
    """Scenes, and what could not be read for them."""

    scenes: tuple[ComposedScene, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)  # pictures, by cause


def compose(pictures: LabelledImages, count: int, *, squares: int, side: int, seed: int = 0) -> ComposedScenes:
    """Scenes of pictures whose classes differ; each class comes as often as any other, up to chance.

    Args:
        pictures: of at least as many classes as a scene has squares.
        count: scenes.
        squares: of a scene, a multiple of two.
        side: pixels of a square; the middle of a picture is made that large.
        seed: of the draw. The same seed gives the same scenes, whatever their size.

    Raises:
        DataError: there are too few classes with pictures, or `squares` is odd.
    """
    by_class = [np.flatnonzero(pictures.targets == number) for number in range(len(pictures.classnames))]
    there = np.array([number for number, rows in enumerate(by_class) if len(rows)])
    if squares < COLUMNS or squares % COLUMNS or len(there) < squares:
        raise DataError(
            f"a scene needs a multiple of {COLUMNS} squares and as many classes with pictures. "
            f"Got {squares} squares and {len(there)} classes of {pictures.name}."
        )
    random = np.random.default_rng([seed, squares])
    scenes: list[ComposedScene] = []
    skipped: dict[str, int] = {}
    for _ in range(count):
        classes = random.choice(there, squares, replace=False)
        rows = [int(random.choice(by_class[number])) for number in classes]
        try:
            drawn = list(_squares(pictures, rows, side))
        except ImageError as error:
            skipped[error.cause] = skipped.get(error.cause, 0) + 1
            continue
        canvas = Image.new("RGB", (COLUMNS * side, squares // COLUMNS * side))
        for number, square in enumerate(drawn):
            canvas.paste(square, (number % COLUMNS * side, number // COLUMNS * side))
        keys = tuple(pictures.keys[row] for row in rows)
        scenes.append(ComposedScene(picture=canvas, keys=keys, classes=tuple(map(int, classes))))
    if not scenes:
        raise DataError(f"no scene of {pictures.name} could be composed: its pictures cannot be read.")
    return ComposedScenes(scenes=tuple(scenes), skipped=skipped)


def _squares(pictures: LabelledImages, rows: list[int], side: int) -> Iterator[Image.Image]:
    for row in rows:
        picture = pictures.open(row)
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        box = (left, top, left + short, top + short)
        yield picture.resize((side, side), Image.Resampling.BICUBIC, box)
