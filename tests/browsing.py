"""What the tests of the page share: a small library of pictures that tell when, where and with what they were taken."""

import contextlib
import datetime
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from PIL.ExifTags import IFD, Base

from diptych.search.library import Library
from diptych.serve.browse import Browser
from serving import tiny_bundle

PARIS, SINGAPORE = (48.86, 2.35), (1.35, 103.8)


@dataclass(frozen=True)
class Shot:
    """A picture as it is to be."""

    name: str
    colour: str = "red"
    taken: str = ""  # as EXIF writes it
    camera: str = ""
    place: tuple[float, float] | None = None
    size: tuple[int, int] = (40, 30)


SHOTS = (
    Shot("2021/sea/a.jpg", "blue", "2021:07:01 10:00:00", "Canon EOS", PARIS),
    Shot("2021/sea/b.jpg", "navy", "2021:07:02 10:00:00", "Canon EOS", SINGAPORE),
    Shot("2021/hill/c.jpg", "green", "2021:08:15 09:00:00", "Pixel 4"),
    Shot("2022/d.jpg", "red", "2022:01:05 08:00:00", "Pixel 4", PARIS, (400, 300)),
    Shot("e.jpg", "orange"),
)


def jpeg_of(shot: Shot) -> bytes:
    image = Image.new("RGB", shot.size, shot.colour)
    ImageDraw.Draw(image).ellipse((4, 4, shot.size[0] // 2, shot.size[1] // 2), fill="white")
    exif = Image.Exif()
    if shot.camera:
        exif[Base.Model] = shot.camera
    if shot.taken:
        exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = shot.taken
    if shot.place:
        latitude, longitude = shot.place
        gps: dict[int, Any] = exif.get_ifd(IFD.GPSInfo)
        gps.update({1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (longitude, 0.0, 0.0)})
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def shoot(folder: Path, shots: tuple[Shot, ...] = SHOTS) -> Path:
    for shot in shots:
        path = folder / shot.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg_of(shot))
    return folder


def opened_library(folder: Path, index: Path) -> Library:
    library = Library.open(folder, tiny_bundle(), index=index)
    library.update()
    return library


def rows_of(shots: tuple[Shot, ...] = SHOTS) -> list[tuple[Any, ...]]:
    """As `Store.facts_of_all` gives them."""
    written = int(datetime.datetime(2020, 3, 4, tzinfo=datetime.UTC).timestamp()) * 10**9
    rows = []
    for i, shot in enumerate(shots):
        taken = shot.taken.replace(":", "-", 2) or None
        rows.append(
            (i + 1, shot.name, 1000 + i, written, *shot.size, taken, shot.camera, *(shot.place or (None, None)))
        )
    return rows


@contextlib.contextmanager
def browsing(place: Path, shots: tuple[Shot, ...] = SHOTS, *, tells_places: bool = True) -> Iterator[Browser]:
    """A library of its own in a new folder."""
    with opened_library(shoot(place / "pictures", shots), place / "index") as library:
        yield Browser(library, name="pictures", tells_places=tells_places)
