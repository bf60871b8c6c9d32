"""Facts of all files of an index, column by column: what a library has to show before anybody asks for something."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.data.video import VIDEO_ENDINGS

UNDATED = "file"  # what a file's own time is called, where the picture does not tell when it was taken


@dataclass(frozen=True, eq=False, kw_only=True)
class Catalogue:
    """N files in the order of their paths. A file is named by its place here, as long as the index stays what it is."""

    numbers: np.ndarray  # [N] int64, the file's number in the index
    paths: Sequence[str]  # N, below the library's folder
    when: np.ndarray  # [N] datetime64[s]: taken, local time of the camera; else when the file was last written, UTC
    is_taken: np.ndarray  # [N] bool, which of the two it is
    sides: np.ndarray  # [N, 2] int32, px, upright; 0 when not known
    camera: np.ndarray  # [N] int32, into `cameras`
    cameras: Sequence[str]
    folder: np.ndarray  # [N] int32, into `folders`
    folders: Sequence[str]  # below the library's; "" is the library's own
    places: np.ndarray  # [N, 2] float64, latitude and longitude in degrees; NaN where there is none
    is_video: np.ndarray  # [N] bool
    bytes: np.ndarray  # [N] int64

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> "Catalogue":
        """Columns of rows.

        Args:
            rows: number, path, bytes, modified (ns), width, height, taken (ISO 8601 or None), camera, latitude and
                longitude of each file.
        """
        rows = sorted(rows, key=lambda row: row[1])
        columns = list(zip(*rows, strict=True)) if rows else [()] * 10
        numbers, paths, sizes, modified, widths, heights, taken, cameras, latitudes, longitudes = columns
        is_taken = np.array([bool(text) for text in taken], bool)
        when = np.array(modified, np.int64).view("datetime64[ns]").astype("datetime64[s]")
        dated = [text.replace(" ", "T") for text in taken if text]
        when[is_taken] = np.array(dated, "datetime64[s]")
        camera, all_cameras = _coded(cameras)
        folder, all_folders = _coded([path.rpartition("/")[0] for path in paths])
        places = np.array([latitudes, longitudes], np.float64).T.reshape(-1, 2)  # None becomes NaN
        endings = {f".{ending}" for ending in VIDEO_ENDINGS}
        return cls(
            numbers=np.array(numbers, np.int64),
            paths=paths,
            when=when,
            is_taken=is_taken,
            sides=np.array([widths, heights], np.int32).T.reshape(-1, 2),
            camera=camera,
            cameras=all_cameras,
            folder=folder,
            folders=all_folders,
            places=places,
            is_video=np.array([path[path.rfind(".") :].lower() in endings for path in paths], bool),
            bytes=np.array(sizes, np.int64),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def in_folder(self, name: str) -> np.ndarray:
        """[N] bool, which files lie in a folder or below it; "" is all."""
        within = [not name or one == name or one.startswith(f"{name}/") for one in self.folders]
        return np.array(within, bool)[self.folder] if len(self) else np.zeros(0, bool)

    def in_area(self, south: float, west: float, north: float, east: float) -> np.ndarray:
        """[N] bool, which files tell a place within an area, in degrees; one over the date line has its west east."""
        latitude, longitude = self.places.T
        between = (longitude >= west) & (longitude <= east)
        if west > east:
            between = (longitude >= west) | (longitude <= east)
        return (latitude >= south) & (latitude <= north) & between

    def by_date(self, rows: np.ndarray, *, oldest_first: bool = False) -> np.ndarray:
        """The rows [M] by `when`, the latest first; those of one second by their paths."""
        times = self.when[rows].astype(np.int64)
        return rows[np.lexsort((rows, times if oldest_first else -times))]

    def months(self, rows: np.ndarray) -> list[tuple[str, int]]:
        """Months of rows that are ordered by date, as ("2023-06", count), in that order."""
        if not len(rows):
            return []
        months = self.when[rows].astype("datetime64[M]")
        starts = np.flatnonzero(np.r_[True, months[1:] != months[:-1]])
        counts = np.diff(np.r_[starts, len(rows)])
        return [(str(month), int(count)) for month, count in zip(months[starts], counts, strict=True)]

    def count_folders(self, rows: np.ndarray, below: str = "") -> list[tuple[str, int]]:
        """How many of the rows lie in each folder directly below one, by name."""
        counts: Counter[str] = Counter()
        start = len(below) + 1 if below else 0
        for name, count in zip(self.folders, np.bincount(self.folder[rows], minlength=len(self.folders)), strict=True):
            if count and len(name) > start and (not below or name.startswith(f"{below}/")):
                counts[name[: end if (end := name.find("/", start)) >= 0 else None]] += int(count)
        return sorted(counts.items())

    def count_cameras(self, rows: np.ndarray) -> list[tuple[str, int]]:
        """How many of the rows each camera took, the most first; "" is none that is told."""
        return _counted(self.camera[rows], self.cameras)

    def count_years(self, rows: np.ndarray) -> list[tuple[str, int]]:
        """How many of the rows are of each year, the latest first."""
        years, counts = np.unique(self.when[rows].astype("datetime64[Y]"), return_counts=True)
        return [(str(year), int(count)) for year, count in zip(years[::-1], counts[::-1], strict=True)]


def _coded(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Names as numbers, [N] int32, and what each number is."""
    known: dict[str, int] = {}
    codes = [known.setdefault(name, len(known)) for name in names]
    return np.array(codes, np.int32), list(known)


def _counted(codes: np.ndarray, names: Sequence[str]) -> list[tuple[str, int]]:
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return sorted(((name, n) for name, n in zip(names, counts, strict=True) if n), key=lambda pair: (-pair[1], pair[0]))
