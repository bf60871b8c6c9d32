"""Training pictures that evaluation sets have as well are dropped, whatever was done to them on the way.

Source: CLIP, arXiv:2103.00020, section 5. What counts as a copy: `copies.py`.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from diptych.curate.copies import THRESHOLD, Sketches, best_scores, small_grey
from diptych.curate.evaluation_pictures import known_pictures
from diptych.data.ahead import decoded_ahead, or_error
from diptych.data.images import MAX_PIXELS
from diptych.errors import ConfigError, ImageError
from diptych.rows.columns import PICTURE
from diptych.rows.stage import Judged, Whole

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Decontaminate:
    """Drop each row whose picture is a copy of an evaluation picture; a picture that cannot be read is kept."""

    data: tuple[str, ...]  # folders of evaluation sets, or of one
    threshold: float = THRESHOLD  # score of the second look from which a picture is a copy
    max_pixels: int = MAX_PIXELS  # most that are decoded of a picture

    name: ClassVar[str] = "overlap"
    reads_pictures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("overlap.data must name a folder of evaluation sets. It names none.")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"overlap.threshold must lie between 0 and 1. Got {self.threshold}.")

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002
        keys, known = known_pictures(self.data)
        places, sketches = self._sketches(rows)
        nearest, scores = best_scores(sketches, known)
        is_copy = scores >= self.threshold
        keep = np.ones(len(rows), bool)
        keep[places[is_copy]] = False
        value: list[str | None] = [None] * len(rows)
        for place, row in zip(places[is_copy].tolist(), nearest[is_copy].tolist(), strict=True):
            value[place] = keys[row]
        return Judged.by(
            rows.drop_columns([PICTURE]),
            keep,
            "evaluation picture",
            value=pa.array(value, pa.string()),
            limit=f"score below {self.threshold:g}",
        )

    def _sketches(self, rows: pa.Table) -> tuple[np.ndarray, Sketches]:
        """Numbers of the rows whose pictures can be read, [N] int64, and their sketches."""

        def read(picture: pa.Scalar) -> np.ndarray:
            return small_grey(picture.as_py() or b"", max_pixels=self.max_pixels)

        places: list[int] = []
        small: list[np.ndarray] = []
        with decoded_ahead(or_error(read), rows[PICTURE], _BATCH) as ready:
            for place, picture in enumerate(ready):
                if not isinstance(picture, ImageError):
                    places.append(place)
                    small.append(picture)
        return np.array(places, np.int64), Sketches.of(small)
