"""Raw files of cameras: the largest JPEG within serves as the picture; sensor values are not developed.

Every maker hides its previews elsewhere (TIFF directories, maker notes, boxes), but all are whole JPEG streams, so the
file is searched for them, and what its directories call tiles of the sensor's image is left out.
"""

import contextlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from PIL import Image

from diptych.data.boxes import boxes, child, content, whole
from diptych.errors import ImageError

# As cameras write them, lower case.
RAW_ENDINGS = (
    "3fr arw cr2 cr3 crw dcr dng erf gpr iiq kdc mef nef nrw orf pef raf rw2 rwl sr2 srf srw x3f".split()  # noqa: SIM905
)
_TIFF = (b"II*\0", b"MM\0*")
_LIKE_TIFF = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0")  # Olympus, Panasonic: another mark before the same directories
_OTHERS = (b"FUJIFILMCCD-RAW", b"FOVb", b"II\x1a\0\0\0HEAPCCDR")  # Fujifilm, Sigma, Canon before 2004
_CR3 = b"ftypcrx "
_CANON = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_START = re.compile(rb"\xff\xd8\xff[\xc0-\xc2\xc4\xdb\xdd\xe0-\xef\xfe]")
_MOST_TAGS, _MOST_VALUES, _MOST_FOLDERS = 1000, 100_000, 64
_SENSOR = (32803, 34892)  # PhotometricInterpretation of a colour filter array, and of DNG's linear raw
_WIDTH, _HEIGHT, _MEANING, _STRIPS, _SUB, _TILES, _EXIF, _GPS, _DNG = 256, 257, 262, 273, 330, 324, 34665, 34853, 50706


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The largest JPEG of a raw file, and what the raw file says of the picture."""

    jpeg: bytes
    info: dict[str, Any]  # "exif" of the raw file, which says how it is turned; "full_size" of the sensor's image, px


def is_raw(file: BinaryIO, head: bytes, name: str) -> bool:
    """Whether a file is raw, by its first bytes and its directories; a TIFF also by its ending."""
    if head.startswith((*_LIKE_TIFF, *_OTHERS)) or head[4:12] == _CR3:
        return True
    if not head.startswith(_TIFF):
        return False
    if head[8:10] == b"CR" or name.rpartition(".")[2].lower() in RAW_ENDINGS:
        return True
    return any(_DNG in tags or tags.get(_MEANING, (0,))[0] in _SENSOR for tags in _directories(file))


def preview_of(data: bytes, name: str) -> Preview:
    """The picture that a raw file carries.

    Raises:
        ImageError: it carries none.
    """
    directories = list(_directories(BytesIO(data))) if data.startswith((*_TIFF, *_LIKE_TIFF)) else []
    sensor = {
        at
        for tags in directories
        for at in (*tags.get(_TILES, ()), *(tags.get(_STRIPS, ()) if tags.get(_MEANING, (0,))[0] in _SENSOR else ()))
    }
    largest, place = 0, None
    for match in _START.finditer(data):
        width, height = _jpeg_size(data, match.start())
        if width * height > largest and match.start() not in sensor:
            largest, place = width * height, match.start()
    if place is None:
        raise ImageError(f"{name} is a raw file without a JPEG within. Develop it to a JPEG first.", "unsupported")
    info: dict[str, Any] = {}
    if exif := _exif(data):
        info["exif"] = exif
    sizes = [(tags[_WIDTH][0], tags[_HEIGHT][0]) for tags in directories if tags.get(_WIDTH) and tags.get(_HEIGHT)]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    if width * height > largest:
        info["full_size"] = (width, height)
    return Preview(jpeg=data[place:], info=info)


def _directories(file: BinaryIO) -> Iterator[dict[int, tuple[int, ...]]]:
    """Whole numbers by their tags, of each TIFF directory, sub-directories included; damage ends a directory."""

    def unpacked(form: str, at: int) -> tuple[int, ...]:
        size = struct.calcsize(order + form)
        file.seek(at)
        data = file.read(size)
        return struct.unpack(order + form, data) if len(data) == size else ()

    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    waiting, seen = list(unpacked("I", 4)), set[int]()
    while waiting and len(seen) < _MOST_FOLDERS:
        at = waiting.pop(0)
        if at in seen or not at:
            continue
        seen.add(at)
        count = min(*unpacked("H", at), _MOST_TAGS) if unpacked("H", at) else 0
        tags: dict[int, tuple[int, ...]] = {}
        for place in range(at + 2, at + 2 + 12 * count, 12):
            if not (entry := unpacked("HHI", place)):
                break
            tag, kind, values = entry
            letter = {3: "H", 4: "I", 13: "I"}.get(kind)
            if letter and 0 < values <= _MOST_VALUES:
                fits = values * struct.calcsize(letter) <= 4
                (where,) = (place + 8,) if fits else unpacked("I", place + 8) or (0,)
                if found := unpacked(f"{values}{letter}", where):
                    tags[tag] = found
        waiting += tags.get(_SUB, ())
        waiting += unpacked("I", at + 2 + 12 * count)
        yield tags


def _jpeg_size(data: bytes, at: int) -> tuple[int, int]:
    """Width and height of the JPEG that starts here, or none when it is not one that libjpeg decodes (lossless)."""
    at += 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2) and data[at + 9] in (1, 3):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == 0xFF:
            at += 1
        elif 0xC4 <= marker <= 0xFE and marker not in (
            0xC5,
            0xC6,
            0xC7,
            0xC9,
            0xCA,
            0xCB,
            0xCD,
            0xCE,
            0xCF,
            0xD9,
            0xDA,
        ):
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        else:
            break
    return 0, 0


def _exif(data: bytes) -> bytes | None:
    if data.startswith(_TIFF):
        return data
    if data.startswith(_LIKE_TIFF):
        return (_TIFF[0] if data[:2] == b"II" else _TIFF[1]) + data[4:]
    if data[4:12] == _CR3:
        with contextlib.suppress(Exception):  # damaged metadata must not cost a good picture
            return _exif_of_cr3(data)
    return None


def _exif_of_cr3(data: bytes) -> bytes | None:
    """Canon keeps the directories of EXIF as TIFF files of their own: CMT1 the first, CMT2 Exif's, CMT4 that of GPS."""
    file = BytesIO(data)
    moov = child(file, whole(file), b"moov")
    for box in boxes(file, moov.start, moov.end) if moov else ():
        if box.kind == b"uuid" and content(file, box, 16) == _CANON:
            parts = {part.kind: content(file, part) for part in boxes(file, box.start + 16, box.end)}
            exif = Image.Exif()
            exif.load(parts[b"CMT1"])
            for kind, tag in ((b"CMT2", _EXIF), (b"CMT4", _GPS)):
                inner = Image.Exif()
                inner.load(parts.get(kind, b""))
                simple = {number: value for number, value in inner.items() if isinstance(value, str | int | tuple)}
                exif.get_ifd(tag).update(simple)
            return exif.tobytes()
    return None
