"""Pictures with places, read at random: those to be found, and those whose place is known.

`places.csv` names the first, `reference.csv` the second; both have the columns image, latitude and longitude (degrees,
south and west negative), and pictures are found from their folder.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.errors import DataError
from diptych.sets.pictures import Pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class PlacedImages(Pictures):
    """N pictures, those to be found first."""

    places: np.ndarray  # [N, 2] float64, latitude and longitude in degrees
    queries: int  # how many of them, from the first, are to be found


def read_places(folder: Path, *, split: str = "test") -> PlacedImages:
    """Find pictures with places.

    Raises:
        DataError: a list is missing or empty, or a place is none.
    """
    lists = [_read(folder / "places.csv"), _read(folder / "reference.csv")]
    rows = [row for one in lists for row in one]
    return PlacedImages(
        name=folder.resolve().name,
        split=split,
        keys=tuple(
            f"{kind}/{image}" for kind, one in zip(("places", "reference"), lists, strict=True) for image, _, _ in one
        ),
        places=np.array([[latitude, longitude] for _, latitude, longitude in rows]),
        queries=len(lists[0]),
        _sources=tuple(folder / image for image, _, _ in rows),
    )


def _read(path: Path) -> list[tuple[str, float, float]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["image"], float(row["latitude"]), float(row["longitude"])) for row in csv.DictReader(file)]
    except OSError as error:
        raise DataError(f"{path} must list pictures with their places. It cannot be read: {error.strerror}.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} must have columns image, latitude and longitude. Not so: {error}.") from None
    wrong = [image for image, latitude, longitude in rows if abs(latitude) > 90 or abs(longitude) > 180]
    if wrong or not rows:
        what = f"Not so for {wrong[0]}" if wrong else "It is empty"
        raise DataError(f"{path} must list places on Earth, in degrees. {what}.")
    return rows
