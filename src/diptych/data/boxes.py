"""Boxes of the ISO base media file format (ISO/IEC 14496-12): what HEIC, AVIF and CR3 files are made of."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_MOST_BOXES = 10_000  # of one level; more is no honest file


class Box(NamedTuple):
    kind: bytes
    start: int  # of the content
    end: int


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes that lie between two places of a file, one after the other; damage ends them."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        head = 8
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
            head = 16
        stop = start + size if size else end
        if stop < start + head or stop > end:
            return
        yield Box(kind, start + head, stop)
        start = stop


def child(file: BinaryIO, parent: Box, kind: bytes, skip: int = 0) -> Box | None:
    """The first box of a kind within another, `skip` bytes behind its start (4 for version and flags)."""
    return next((box for box in boxes(file, parent.start + skip, parent.end) if box.kind == kind), None)


def whole(file: BinaryIO) -> Box:
    """A file as if it were one box."""
    return Box(b"", 0, file.seek(0, 2))


def content(file: BinaryIO, box: Box, most: int = 2**20) -> bytes:
    """The first `most` bytes of a box."""
    file.seek(box.start)
    return file.read(min(box.end - box.start, most))


def picture_properties(file: BinaryIO) -> list[tuple[bytes, bytes]]:
    """Properties of the picture that a HEIC or AVIF file shows, in the order in which they apply: kind and content.

    Source: ISO/IEC 23008-12, 9.3; ISO/IEC 14496-12, 8.11. A file without them gives none.
    """
    meta = child(file, whole(file), b"meta")
    primary = meta and child(file, meta, b"pitm", 4)
    properties = meta and child(file, meta, b"iprp", 4)
    container = properties and child(file, properties, b"ipco")
    places = properties and child(file, properties, b"ipma")
    if not (primary and properties and container and places):
        return []
    head = content(file, primary)
    number = int.from_bytes(head[4:6] if head[0] == 0 else head[4:8], "big")
    found = list(boxes(file, container.start, container.end))
    return [
        (found[i - 1].kind, content(file, found[i - 1], 64))
        for i in _associated(content(file, places), number)
        if 0 < i <= len(found)
    ]


def _associated(table: bytes, number: int) -> list[int]:
    """Which properties an item has, by `ipma`: places in `ipco`, from 1."""
    wide_id, wide_index = table[0] > 0, bool(table[3] & 1)
    at = 8
    for _ in range(int.from_bytes(table[4:8], "big")):
        length = 4 if wide_id else 2
        item, count = int.from_bytes(table[at : at + length], "big"), table[at + length]
        at += length + 1
        step = 2 if wide_index else 1
        if item == number:
            mask = 0x7FFF if wide_index else 0x7F  # the highest bit says that a reader must know the property
            return [int.from_bytes(table[at + i * step :][:step], "big") & mask for i in range(count)]
        at += count * step
    return []


def clean_aperture(data: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """What `clap` leaves of a picture: left, top, right, bottom in px, or None where it is all, or makes no sense."""
    if len(data) < 32:
        return None
    parts = struct.unpack(">IIIIiIiI", data[:32])  # offsets may be negative
    if not all(parts[1::2]):
        return None
    wide, high, right, down = (parts[i] / parts[i + 1] for i in range(0, 8, 2))
    left, top = (width - wide) / 2 + right, (height - high) / 2 + down  # the offset is between the two middles
    box = round(left), round(top), round(left + wide), round(top + high)
    inside = 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
    return box if inside and box != (0, 0, width, height) else None
