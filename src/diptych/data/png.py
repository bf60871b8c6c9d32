"""What a PNG says beside its pixels, read without decoding them, also where it stands behind them.

Pillow reads these chunks while it decodes, and refuses a picture for text that is long or damaged; here the picture is
handed on without them.
"""

import struct
import zlib
from typing import Any

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ASIDE = (*_TEXTS, b"iCCP", b"eXIf", b"cICP")
_MOST = 16 * 2**20  # bytes of one chunk, unpacked; more is left alone
_XMP, _EXIF, _DATE = b"XML:com.adobe.xmp", b"Raw profile type exif", b"Creation Time"


def part(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """A PNG without what lies beside its pixels, and that.

    Returns:
        The file, and as Pillow's `info` has them: "exif", "xmp", "icc_profile", "Creation Time", and "cicp", the code
        points of primaries and transfer.
    """
    info: dict[str, Any] = {}
    kept, start, at = [], 0, len(SIGNATURE)
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if kind in _ASIDE and end <= len(data):
            kept.append(data[start:at])
            start = end
            _note(kind, data[at + 8 : at + 8 + size], info)
        if kind == b"IEND":
            break
        at = end
    return (b"".join([*kept, data[start:]]) if kept else data), info


def _note(kind: bytes, content: bytes, info: dict[str, Any]) -> None:
    try:
        if kind == b"eXIf":
            info.setdefault("exif", b"Exif\0\0" + content)
        elif kind == b"cICP":
            info.setdefault("cicp", (content[0], content[1]))
        elif kind == b"iCCP":
            info.setdefault("icc_profile", _unpacked(content[content.index(b"\0") + 2 :]))
        else:
            _note_text(kind, content, info)
    except (ValueError, IndexError, zlib.error):
        pass  # damaged metadata must not cost a good picture


def _note_text(kind: bytes, content: bytes, info: dict[str, Any]) -> None:
    key, _, rest = content.partition(b"\0")
    if key not in (_XMP, _EXIF, _DATE):
        return
    if kind == b"iTXt":
        packed, (_, _, rest) = rest[0], rest[2:].split(b"\0", 2)
        rest = _unpacked(rest) if packed else rest
    elif kind == b"zTXt":
        rest = _unpacked(rest[1:])
    if key == _EXIF:  # ImageMagick's: a name, a length, and hexadecimal digits
        raw = bytes.fromhex("".join(rest.decode("latin-1").split("\n")[3:]))
        info.setdefault("exif", raw if raw.startswith(b"Exif\0\0") else b"Exif\0\0" + raw)
    elif key == _XMP:
        info.setdefault("xmp", rest)
    else:
        info.setdefault("Creation Time", rest.decode("latin-1"))


def _unpacked(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(data, _MOST)
    if stream.unconsumed_tail:
        raise ValueError("longer than any honest metadata")
    return unpacked
