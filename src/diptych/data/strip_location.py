"""A JPEG without the place where it was taken: no pixel is touched, and its length stays what it was."""

import re
import struct

from diptych.errors import DataError

_GPS, _DETAILS = 0x8825, 0x8769  # tags: to the directory of the place, to Exif's own
# Tags whose values may hold anything: a maker's notes, XMP, IPTC, Photoshop's, and comments of three kinds.
_FREE = (0x927C, 0x02BC, 0x83BB, 0x8649, 0x9286, 0x9C9C, 0xEA1C)
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202  # tags: where a small JPEG lies, and how many bytes it has
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of a TIFF type
_EXIF, _PROFILE = b"Exif\0\0", b"ICC_PROFILE\0"
_APP1, _COMMENT = 0xE1, 0xFE
_FOR_DECODERS = (0xE0, 0xEE)  # JFIF's and Adobe's, which tell how colours are stored
# Within a scan 0xFF stands before 0, a restart or another 0xFF alone: this finds what comes after it.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END = 0xD9
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def without_location(data: bytes) -> bytes:
    """Blank all of a JPEG that may tell a place.

    Within EXIF the directory of the place becomes empty, and so do the notes of the camera's maker and comments, which
    may hold anything; what else EXIF tells stays, its thumbnail without a place of its own. All other segments of
    applications but the profile of colours become zeros (XMP, IPTC, content credentials), as do comments and what
    follows the picture and has facts of its own: a second picture, the film of a moving photo. EXIF that cannot be read
    becomes zeros as a whole.

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
        if (0xE0 <= kind <= 0xEF and kind not in _FOR_DECODERS) or kind == _COMMENT:
            _blank(out, at + 2, min(at + length, len(data)), keeps_exif=kind == _APP1)
        at += length
    return bytes(out)


def _blank(out: bytearray, start: int, end: int, *, keeps_exif: bool) -> None:
    """Blank a segment, but for a profile of colours; of EXIF the place alone."""
    if out.startswith(_PROFILE, start):
        return
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

    def clean(entries: list[tuple[int, int, int, int]], *, all_of_it: bool) -> None:
        for tag, kind, count, at in entries:
            size = _SIZES.get(kind, 1) * count
            if all_of_it or tag in _FREE:
                blank(*((word(at + 8), size) if size > 4 else (at + 8, 4)))

    directory, seen = word(4), set[int]()
    while directory and directory not in seen:  # the picture's, then its thumbnail's
        seen.add(directory)
        entries = _entries(tiff, order, directory)
        clean(entries, all_of_it=False)
        for tag, _, _, at in entries:
            if tag in (_GPS, _DETAILS):
                inside = _entries(tiff, order, word(at + 8))
                clean(inside, all_of_it=tag == _GPS)
                if tag == _GPS:
                    blank(word(at + 8), 2 + 12 * len(inside) + 4)
        found = {tag: word(at + 8) for tag, _, _, at in entries if tag in (_THUMBNAIL, _THUMBNAIL_LENGTH)}
        if len(found) == 2 and tiff.startswith(b"\xff\xd8", found[_THUMBNAIL]):
            start, end = found[_THUMBNAIL], found[_THUMBNAIL] + found[_THUMBNAIL_LENGTH]
            out[start:end] = without_location(tiff[start:end])
        directory = word(directory + 2 + 12 * len(entries))
    return bytes(out)


def _entries(tiff: bytes, order: str, directory: int) -> list[tuple[int, int, int, int]]:
    """Tag, type, count and place of each entry of a directory."""
    count = struct.unpack_from(f"{order}H", tiff, directory)[0]
    places = [directory + 2 + 12 * i for i in range(count)]
    return [(*struct.unpack_from(f"{order}HHI", tiff, place), place) for place in places]
