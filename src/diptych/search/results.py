"""What a search found: rows for programs, a table's worth of facts, and a page of pictures in a notebook."""

import base64
import datetime
import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from diptych.files import shown

_SIDE = 160  # px, of a thumbnail in a notebook
_SHOWN = 60  # pictures in a notebook
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
        title = html.escape(f"{self.query}: {len(self):,} found" if self.query else f"{len(self):,} found")
        cells = "".join(self._cell(row) for row in self.rows[:_SHOWN])
        more = f"<p>{len(self) - _SHOWN:,} more are not shown.</p>" if len(self) > _SHOWN else ""
        return f'<div><p>{title}</p><div style="display:flex;flex-wrap:wrap;gap:8px">{cells}</div>{more}</div>'

    def _cell(self, row: Hit) -> str:
        name = html.escape(shown(row.path.name))
        seconds = "" if row.time is None else f" at {row.time:.0f} s"
        title = html.escape(shown(row.path))
        return (
            f'<figure style="margin:0;width:{_SIDE}px" title="{title}">{self._picture(row, name)}'
            f'<figcaption style="font-size:small;overflow-wrap:anywhere">{row.score:.3f} {name}{seconds}</figcaption>'
            "</figure>"
        )

    def _picture(self, row: Hit, name: str) -> str:
        from diptych.errors import DataError

        try:
            jpeg = self.thumbnail(row.path) if self.thumbnail else None
        except DataError:  # gone or damaged since it was indexed
            jpeg = None
        if jpeg is None:
            return f'<div style="height:{_SIDE}px;background:#8884">no picture</div>'
        data = base64.b64encode(jpeg).decode()
        return f'<img alt="{name}" src="data:image/jpeg;base64,{data}" style="max-width:100%;max-height:{_SIDE}px">'
