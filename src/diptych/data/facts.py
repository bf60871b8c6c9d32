"""What a picture file tells beside its pixels: size, when, where and with what it was taken.

Stated rules (docs/numerics.md): EXIF before XMP before the file's own texts; of dates the first that is one, the moment
of the shot before that of the file; a place needs both numbers and both hemispheres.
"""

import contextlib
import datetime
import email.utils
import html
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_TIFF_WIDTH = 256
_DATE = re.compile(
    r"(\d{4})([:\-/.]?)(\d{1,2})\2(\d{1,2})"  # 2021:05:06, 2021-05-06, 20210506
    r"(?:[ T]+(\d{1,2}):?(\d{2})(?::?(\d{2}))?.*)?$",  # what follows, fractions and a zone, is not kept
    re.DOTALL,
)
_XMP_DATES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "exif:DateTimeDigitized", "xmp:CreateDate")
_MOST_XMP = 2**20  # bytes that are searched
_ISO_6709 = re.compile(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of one picture or video; what a file does not tell stays empty."""

    width: int = 0  # px, upright
    height: int = 0
    taken: datetime.datetime | None = None  # local time of the camera; of a video without it, UTC
    camera: str = ""  # maker and model
    place: tuple[float, float] | None = None  # latitude, longitude, degrees
    format: str = ""  # of a picture, as Pillow calls its reader: "JPEG"


def exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF of an opened picture. Unlike `getexif` it never decodes a PNG for it."""
    return Image.Image.getexif(image)


def facts_of(image: Image.Image) -> Facts:
    """Read the facts of an opened picture; no pixel is decoded. Damaged metadata counts as absent."""
    exif, details, gps = Image.Exif(), dict[int, Any](), dict[int, Any]()
    # Each by itself: damage makes Pillow raise anything, and must not cost a picture, nor the parts that are whole.
    with contextlib.suppress(Exception):
        exif = exif_of(image)
    with contextlib.suppress(Exception):
        details = exif.get_ifd(IFD.Exif)
    with contextlib.suppress(Exception):
        gps = exif.get_ifd(IFD.GPSInfo)
    xmp = _xmp(image.info.get("xmp"))
    width, height = _upright_size(image, exif)
    dates = (
        *(details.get(tag) for tag in (Base.DateTimeOriginal, Base.DateTimeDigitized)),
        *(_property(xmp, name) for name in _XMP_DATES),
        exif.get(Base.DateTime),
        details.get(Base.DateTime),
        _gps_date(gps),
        image.info.get("Creation Time"),
    )
    camera = camera_of(exif.get(Base.Make), exif.get(Base.Model))
    return Facts(
        width=width,
        height=height,
        taken=first_date(dates),
        camera=camera or camera_of(_property(xmp, "tiff:Make"), _property(xmp, "tiff:Model")),
        place=_place(gps) or _xmp_place(xmp),
        format=image.format or "",
    )


def camera_of(make: Any, model: Any) -> str:
    """Maker and model as one name."""
    maker, name = (_text(part) for part in (make, model))
    # "Canon", "Canon EOS 80D" is one camera, not two words of one maker.
    return name if name.lower().startswith(maker.lower()) else f"{maker} {name}".strip()


def first_date(texts: Iterable[Any]) -> datetime.datetime | None:
    """The first of several texts that holds a date."""
    return next((date for date in map(_date, texts) if date), None)


def place_of_iso_6709(text: str) -> tuple[float, float] | None:
    """As QuickTime writes it, "+48.8577+002.2950+035.000/": degrees, or with minutes and seconds in the same number."""
    match = _ISO_6709.match(text.strip())
    if match is None:
        return None
    return _valid(*(_degrees_of_digits(part, whole) for part, whole in zip(match.groups(), (2, 3), strict=True)))


def _degrees_of_digits(text: str, whole: int) -> float:
    digits, _, fraction = text[1:].partition(".")
    parts = [digits[:whole], digits[whole : whole + 2], digits[whole + 2 : whole + 4]]
    last = max(i for i, part in enumerate(parts) if part)
    parts[last] += f".{fraction or 0}"
    value = sum(float(part) / 60**i for i, part in enumerate(parts) if part)
    return -value if text[0] == "-" else value


def _upright_size(image: Image.Image, exif: Mapping[int, Any]) -> tuple[int, int]:
    width, height = image.info.get("full_size") or image.size
    if clap := image.info.get("clap"):
        left, top, right, bottom = clap
        width, height = right - left, bottom - top
    # Pillow gives the size of a TIFF upright already.
    swapped = image.format == "TIFF" and image.size[0] != getattr(image, "tag_v2", {}).get(_TIFF_WIDTH, image.size[0])
    return (height, width) if exif.get(Base.Orientation) in _TURNED and not swapped else (width, height)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value or "").partition("\0")[0].strip()


def _date(value: Any) -> datetime.datetime | None:
    text = _text(value)
    match = _DATE.match(text)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if match is None:  # as PNG recommends it: Tue, 06 May 2021 07:08:09 GMT
            return email.utils.parsedate_to_datetime(text).replace(tzinfo=None) if text[:1].isalpha() else None
        year, month, day = (int(match[i]) for i in (1, 3, 4))
        hour, minute, second = (int(match[i] or 0) for i in (5, 6, 7))
        if hour > 23 or minute > 59:
            hour = minute = second = 0
        return datetime.datetime(year, month, day, hour, minute, min(second, 59))
    return None


def _gps_date(gps: Mapping[int, Any]) -> str | None:
    """UTC; the last resort."""
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        day = _text(gps[GPS.GPSDateStamp])
        hour, minute, second = (int(float(part)) for part in gps[GPS.GPSTimeStamp])
        return f"{day} {hour:02}:{minute:02}:{second:02}"
    return _text(gps.get(GPS.GPSDateStamp)) or None


def _place(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError, IndexError):
        sides = [_text(gps[tag]).upper()[:1] for tag in (GPS.GPSLatitudeRef, GPS.GPSLongitudeRef)]
        values = [_degrees(gps[tag]) for tag in (GPS.GPSLatitude, GPS.GPSLongitude)]
        if set(sides[:1]) <= {"E", "W"} and set(sides[1:]) <= {"N", "S"}:  # the two were taken for each other
            sides.reverse()
            values.reverse()
        if sides[0] in ("N", "S") and sides[1] in ("E", "W"):
            signed = (-abs(value) if side in ("S", "W") else value for value, side in zip(values, sides, strict=True))
            return _valid(*signed)
    return None


def _degrees(parts: Any) -> float:
    """Degrees, minutes and seconds, the later ones where they are there."""
    if isinstance(parts, str | bytes):
        raise TypeError("a place is made of numbers")
    values = [float(part) for part in (parts if isinstance(parts, Iterable) else (parts,))]
    return sum(value / 60**i for i, value in enumerate(values[:3])) if values else math.nan


def _valid(latitude: float, longitude: float) -> tuple[float, float] | None:
    if abs(latitude) <= 90 and abs(longitude) <= 180:  # false for NaN, too
        return round(latitude, 6), round(longitude, 6)
    return None


def _xmp(data: Any) -> str:
    text = data[:_MOST_XMP].decode("utf-8", "replace") if isinstance(data, bytes) else data
    return text[:_MOST_XMP] if isinstance(text, str) else ""


def _property(xmp: str, name: str) -> str | None:
    """A simple property, whether it is written as an attribute or as an element."""
    if not xmp:
        return None
    match = re.search(rf"""\b{name}\s*(?:=\s*["']([^"']*)|>\s*([^<]*))""", xmp)
    return html.unescape(match[1] or match[2] or "") if match else None


def _xmp_place(xmp: str) -> tuple[float, float] | None:
    """By exif:GPSLatitude, "48,51.4620N" or "48,51,27N"."""
    texts = [_property(xmp, name) or "" for name in ("exif:GPSLatitude", "exif:GPSLongitude")]
    if not all(texts) or texts[0].strip()[-1:] not in ("N", "S") or texts[1].strip()[-1:] not in ("E", "W"):
        return None
    with contextlib.suppress(ValueError):
        values = [_degrees(text.strip()[:-1].split(",")) for text in texts]
        signed = (-value if text.strip()[-1] in "SW" else value for value, text in zip(values, texts, strict=True))
        return _valid(*signed)
    return None
