"""What a search found: rows for programs, a table's worth of facts, and a page of pictures in a notebook."""

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from diptych.data.notebook import MOST, figure, grid
from diptych.errors import DataError
from diptych.files import shown

_SIDE = 160  # px, of a thumbnail in a notebook
_NEVER = datetime.datetime.min


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One file that was found."""

    path: Path  # absolute
    score: float  # cosine with the query, -1 to 1
    width: int = 0  # px, upright; 0 when not known
    height: int = 0
    date: datetime.datetime | None = None  # when it was taken, by its EXIF; local time of the camera
    camera: str = ""  # maker and model
    place: tuple[float, float] | None = None  # latitude, longitude, degrees
    time: float | None = None  # s into a video, of the frame that fits best
    bytes: int = 0  # of the file, among duplicates; 0 when not known
    also: tuple[Path, ...] = ()  # further names of the same file, among duplicates: by links, or to hard links

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        return {
            "path": shown(self.path),
            "score": round(self.score, 6),
            "width": self.width,
            "height": self.height,
            "date": self.date.isoformat(sep=" ") if self.date else None,
            "camera": self.camera or None,
            "place": list(self.place) if self.place else None,
            "time": self.time,
            **({"bytes": self.bytes, "also": [shown(path) for path in self.also]} if self.bytes else {}),
        }


@dataclass(frozen=True, eq=False)
class Results(Sequence[Hit]):
    """Files that were found, best first. In a notebook it shows itself as pictures."""

    rows: tuple[Hit, ...]
    query: str = ""
    thumbnail: Callable[[Path], bytes] | None = field(default=None, repr=False)  # a JPEG of a file

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> "Results": ...
    def __getitem__(self, index: int | slice) -> "Hit | Results":
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return self.rows[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.rows)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, for `json.dumps`."""
        return [row.to_json() for row in self.rows]

    def from_score(self, least: float) -> "Results":
        """Those that score at least so much."""
        return replace(self, rows=tuple(row for row in self.rows if row.score >= least))

    def by_date(self) -> "Results":
        """The latest first; what tells no date comes last, best first."""
        dated = sorted((row for row in self.rows if row.date), key=lambda row: row.date or _NEVER, reverse=True)
        return replace(self, rows=(*dated, *(row for row in self.rows if not row.date)))

    def _repr_html_(self) -> str:
        """Pictures with names and scores, self-contained: nothing is loaded from elsewhere."""
        title = f"{self.query}: {len(self):,} found" if self.query else f"{len(self):,} found"
        return grid([self._figure(row) for row in self.rows[:MOST]], title=title, left_out=max(0, len(self) - MOST))

    def _figure(self, row: Hit) -> str:
        seconds = "" if row.time is None else f" at {row.time:.0f} s"

        def make_jpeg() -> bytes:
            if self.thumbnail is None:
                raise DataError("nothing gives pictures of these results.")
            return self.thumbnail(row.path)

        caption = f"{row.score:.3f} {shown(row.path.name)}{seconds}"
        return figure(make_jpeg, caption, title=shown(row.path), side=_SIDE)
