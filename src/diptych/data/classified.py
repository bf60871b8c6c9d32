"""What a classifier says of pictures: labels with their probabilities, best first; in a notebook pictures with bars."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np

from diptych.data.images import ImageSource, open_image
from diptych.data.notebook import MOST, bars, figure, grid, jpeg_of
from diptych.files import shown

_SIDE = 200  # px, of a picture in a notebook
_BARS = 5  # labels that are shown of each


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifiedPicture:
    """One picture's labels, best first."""

    picture: ImageSource = field(repr=False)
    labels: tuple[str, ...]  # C
    probabilities: tuple[float, ...]  # C of them

    @property
    def label(self) -> str:
        """The best."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """Of the best."""
        return self.probabilities[0]

    def _repr_html_(self) -> str:
        return grid([self._figure()])

    def _figure(self) -> str:
        name = shown(self.picture) if isinstance(self.picture, str | Path) else ""
        best = list(zip(self.labels, self.probabilities, strict=True))[:_BARS]

        def make_jpeg() -> bytes:
            return jpeg_of(open_image(self.picture, at_least=_SIDE), _SIDE)

        return figure(make_jpeg, Path(name).name, title=name, side=_SIDE, below=bars(best))


@dataclass(frozen=True, eq=False)
class ClassifiedPictures(Sequence[ClassifiedPicture]):
    """Those of several pictures, in their order."""

    rows: tuple[ClassifiedPicture, ...]

    @classmethod
    def of(
        cls, pictures: Sequence[ImageSource], labels: Sequence[str], probabilities: np.ndarray
    ) -> "ClassifiedPictures":
        """From what a classifier gives.

        Args:
            pictures: N.
            labels: C.
            probabilities: [N, C].
        """
        rows = []
        for picture, shares in zip(pictures, probabilities, strict=True):
            order = np.argsort(-shares, kind="stable")
            best = tuple(labels[int(number)] for number in order)
            rows.append(ClassifiedPicture(picture=picture, labels=best, probabilities=tuple(shares[order].tolist())))
        return cls(tuple(rows))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> ClassifiedPicture: ...
    @overload
    def __getitem__(self, index: slice) -> "ClassifiedPictures": ...
    def __getitem__(self, index: int | slice) -> "ClassifiedPicture | ClassifiedPictures":
        return ClassifiedPictures(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __iter__(self) -> Iterator[ClassifiedPicture]:
        return iter(self.rows)

    def _repr_html_(self) -> str:
        """Pictures with bars, self-contained: nothing is loaded from elsewhere."""
        return grid([row._figure() for row in self.rows[:MOST]], left_out=max(0, len(self) - MOST))
