"""A JPEG without the place where it was taken: no pixel is touched, and its length stays what it was."""

import re
import struct

from diptych.errors import DataError

_GPS, _DETAILS, _MAKER = 0x8825, 0x8769, 0x927C  # tags: to the directory of the place, to Exif's own, a maker's notes
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of a TIFF type
_EXIF = b"Exif\0\0"
# Within a scan 0xFF stands before 0, a restart or another 0xFF alone: this finds what comes after it.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END = 0xD9
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def without_location(data: bytes) -> bytes:
    """Blank all of a JPEG that may tell a place.

    Within EXIF the directory of the place becomes empty, and so do the notes of the camera's maker, which may hold
    anything; what else EXIF tells stays. XMP, IPTC and comments become zeros, as does what follows the picture and has
    facts of its own: a second picture, the film of a moving photo. EXIF that cannot be read becomes zeros as a whole.

    Args:
        data: a whole file.

    Returns:
        As many bytes.

    Raises:
        DataError: it is no JPEG.
    """
    if data[:2] != b"\xff\xd8":
        raise DataError(f"a JPEG must begin with FF D8. Got {data[:2].hex(' ').upper() or 'an empty file'}.")
    out = bytearray(data)
    at = 2
    while match := _MARKER.search(data, at):
        kind, at = data[match.start() + 1], match.end()
        if kind == _END:
            out[at:] = bytes(len(data) - at)
            break
        if kind in _ALONE:
            continue
        if at + 2 > len(data):
            break
        length = int.from_bytes(data[at : at + 2])
        if kind in (0xE1, 0xED, 0xFE):  # APP1: EXIF, XMP; APP13: IPTC; comments
            _blank(out, at + 2, min(at + length, len(data)), keeps_exif=kind == 0xE1)
        at += length
    return bytes(out)


def _blank(out: bytearray, start: int, end: int, *, keeps_exif: bool) -> None:
    """Blank a segment; of EXIF the place alone."""
    if keeps_exif and out.startswith(_EXIF, start):
        try:
            out[start + len(_EXIF) : end] = _tiff_without_place(bytes(out[start + len(_EXIF) : end]))
            return
        except (struct.error, IndexError, ValueError):
            pass
    out[start:end] = bytes(end - start)


def _tiff_without_place(tiff: bytes) -> bytes:
    """EXIF with an empty directory of the place, and zeros where its values lay.

    Raises:
        ValueError, struct.error: it cannot be read.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise ValueError("no TIFF")
    out = bytearray(tiff)

    def word(at: int) -> int:
        return struct.unpack_from(f"{order}I", tiff, at)[0]

    def blank(start: int, count: int) -> None:
        out[start : start + count] = bytes(len(out[start : start + count]))

    for tag, _, _, at in _entries(tiff, order, word(4)):
        inside = _entries(tiff, order, word(at + 8)) if tag in (_GPS, _DETAILS) else []
        for inner, kind, count, entry in inside:
            size = _SIZES.get(kind, 1) * count
            if size > 4 and (tag == _GPS or inner == _MAKER):
                blank(word(entry + 8), size)
        if tag == _GPS:
            blank(word(at + 8), 2 + 12 * len(inside) + 4)
    return bytes(out)


def _entries(tiff: bytes, order: str, directory: int) -> list[tuple[int, int, int, int]]:
    """Tag, type, count and place of each entry of a directory."""
    count = struct.unpack_from(f"{order}H", tiff, directory)[0]
    places = [directory + 2 + 12 * i for i in range(count)]
    return [(*struct.unpack_from(f"{order}HHI", tiff, place), place) for place in places]
