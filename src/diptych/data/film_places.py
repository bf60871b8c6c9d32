"""Whether a film may tell where its camera went: in tracks of notes beside picture and sound, in tags, in subtitles.

Cameras write a place a second there: GoPro's `gpmd`, Android's `camm`, Apple's `mebx`, drones' subtitles. Of kinds of
which that cannot be told, such as MPEG transport streams, whose camcorders hide it among the pictures, it may.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from diptych.data.boxes import Box, boxes, child, content, whole

_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # boxes that QuickTime and MP4 begin with
_SEEN_OR_HEARD = (b"vide", b"soun", b"hint", b"tmcd")  # kinds of tracks; the last counts time
_TAGGED = (b"udta", b"meta", b"uuid")
_NAMED = re.compile(rb"location|\xa9xyz|loci|gps|latitude", re.IGNORECASE)
_EBML = b"\x1a\x45\xdf\xa3"
_IN_MATROSKA = re.compile(rb"LOCATION|S_TEXT|S_ASS|S_SSA|D_WEBVTT")  # tags, and codecs of subtitles
_SEARCHED = 2**20  # bytes of tags; and at either end of a Matroska or WebM file, where tags and tracks are listed


def may_tell_places(file: BinaryIO) -> bool:
    """Whether a film holds what a place may stand in; damage counts as such.

    Args:
        file: at any position.
    """
    film = whole(file)
    file.seek(0)
    head = file.read(8)
    if head.startswith(_EBML):
        ends = content(file, film, _SEARCHED), content(file, Box(b"", max(0, film.end - _SEARCHED), film.end))
        return any(_IN_MATROSKA.search(end) for end in ends)
    if head[4:] not in _FIRST:
        return True
    movie = child(file, film, b"moov")
    if movie is None:
        return True
    tracks = [box for box in boxes(file, movie.start, movie.end) if box.kind == b"trak"]
    return any(_is_of_notes(file, track) for track in tracks) or any(
        _names_a_place(file, tags) for parent in (film, movie, *tracks) for tags in _tags(file, parent)
    )


def _tags(file: BinaryIO, parent: Box) -> Iterator[Box]:
    return (box for box in boxes(file, parent.start, parent.end) if box.kind in _TAGGED)


def _names_a_place(file: BinaryIO, box: Box) -> bool:
    """Whether tags do; where they go on behind what is searched, such as behind a large cover, they may."""
    return box.end - box.start > _SEARCHED or bool(_NAMED.search(content(file, box, _SEARCHED)))


def _is_of_notes(file: BinaryIO, track: Box) -> bool:
    """Whether a track is neither seen nor heard; notes of Apple's that name what they hold may be of something else."""
    media = child(file, track, b"mdia")
    handler = media and child(file, media, b"hdlr")
    if not media or not handler:
        return True
    kind = content(file, handler, 12)[8:12]
    if kind in _SEEN_OR_HEARD:
        return False
    information = child(file, media, b"minf")
    table = information and child(file, information, b"stbl")
    entries = table and child(file, table, b"stsd")
    if kind != b"meta" or not entries:
        return True
    notes = list(boxes(file, entries.start + 8, entries.end))  # behind version, flags and a count
    return any(box.kind != b"mebx" or _names_a_place(file, box) for box in notes) or not notes
