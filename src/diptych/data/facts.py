"""What a picture file tells beside its pixels: size, and by its EXIF when, where and with what it was taken."""

import contextlib
import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

_TURNED = (5, 6, 7, 8)  # orientations that swap width and height


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of one picture; what a file does not tell stays empty."""

    width: int = 0  # px, upright
    height: int = 0
    taken: datetime.datetime | None = None  # local time of the camera
    camera: str = ""  # maker and model
    place: tuple[float, float] | None = None  # latitude, longitude, degrees


def facts_of(image: Image.Image) -> Facts:
    """Read the facts of an opened picture; no pixel is decoded. Damaged metadata counts as absent."""
    width, height = image.size
    taken, camera, place = None, "", None
    with contextlib.suppress(Exception):  # damaged EXIF makes Pillow raise anything, and must not cost a picture
        exif = image.getexif()
        if exif.get(Base.Orientation) in _TURNED:
            width, height = height, width
        camera = _camera(exif)
        details = exif.get_ifd(IFD.Exif)
        taken = _date(details.get(Base.DateTimeOriginal) or exif.get(Base.DateTime))
        place = _place(exif.get_ifd(IFD.GPSInfo))
    return Facts(width=width, height=height, taken=taken, camera=camera, place=place)


def _camera(exif: Mapping[int, Any]) -> str:
    maker, model = (str(exif.get(tag) or "").strip("\0 ") for tag in (Base.Make, Base.Model))
    # "Canon", "Canon EOS 80D" is one camera, not two words of one maker.
    return model if model.lower().startswith(maker.lower()) else f"{maker} {model}".strip()


def _date(text: Any) -> datetime.datetime | None:
    with contextlib.suppress(TypeError, ValueError):
        return datetime.datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    return None


def _place(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        latitude = _degrees(gps[GPS.GPSLatitude], str(gps[GPS.GPSLatitudeRef]).startswith("S"))
        longitude = _degrees(gps[GPS.GPSLongitude], str(gps[GPS.GPSLongitudeRef]).startswith("W"))
        if abs(latitude) <= 90 and abs(longitude) <= 180:  # false for NaN, too
            return latitude, longitude
    return None


def _degrees(parts: Any, negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return round(-value if negative else value, 6) if math.isfinite(value) else math.nan
