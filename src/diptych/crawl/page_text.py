"""The bytes of a page to UTF-8: what a transfer did to them is undone, then the text is told from its charset.

The charset is told by a byte order mark, else the HTTP header, else a meta tag near the top. Bytes that are valid UTF-8
are UTF-8 whatever these say, but for the marks and charsets that are themselves of 7 bits: servers that call all they
send Latin-1 are many, and other charsets do not fall into UTF-8's pattern by chance. Where nothing is told and the
bytes are no UTF-8, it is Windows-1252, as browsers assume. No byte stops the reading: what cannot be decoded is U+FFFD.
"""

import io
import re
import zlib
from collections.abc import Sequence

from diptych.data.texts import encoding_of
from diptych.errors import DataError

_TOP = 4096  # bytes in which a meta tag may tell the charset; browsers look at 1024 at least
_META = re.compile(rb"<meta[^>]{0,1000}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]{1,40})", re.IGNORECASE)
_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]{1,40})", re.IGNORECASE)
# What the names mean to browsers (WHATWG's Encoding Standard), where Python takes them more narrowly.
_MEANT = {
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "iso-8859-9": "cp1254",
    "iso-8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
}
_HEXADECIMAL = re.compile(rb"[0-9a-fA-F]{1,8}(?=\s*(?:;|\Z))")
_SEVEN_BITS = ("iso-2022-jp", "iso-2022-kr", "hz-gb-2312", "hz", "utf-7")


def body_of(content: bytes, headers: Sequence[tuple[str, str]], largest: int) -> bytes:
    """The body of an answer without its transfer and content encodings; of one that is cut short, as much as is there.

    Many archives keep the headers of an answer beside a body that is decoded already: what does not look encoded is
    taken as it is.

    Args:
        content: as the record has it.
        headers: name, in lower case, and value.
        largest: bytes; nothing is unpacked much further.

    Raises:
        DataError: it looks encoded, and is not; the message is the cause.
    """
    codings = [
        coding.strip().lower() for name, value in headers if name == "content-encoding" for coding in value.split(",")
    ]
    if any(name == "transfer-encoding" and "chunked" in value.lower() for name, value in headers):
        content = _unchunked(content)
    for coding in reversed(codings):
        content = _unpacked(content, coding, largest + 1)
    return content


def utf8_of(content: bytes, content_type: str) -> bytes:
    r"""A page as UTF-8.

    Args:
        content: its bytes.
        content_type: the header's value, or nothing.

    >>> utf8_of("<p>caf\xe9".encode("latin-1"), "text/html; charset=iso-8859-1").decode()
    '<p>café'
    """
    marked = encoding_of(content[:4])
    if marked != "utf-8":
        return content.decode(marked, "replace").encode()
    told = _HEADER.search(content_type)
    found = None if told else _META.search(content, 0, _TOP)
    name = told[1].lower() if told else found[1].decode().lower() if found else ""
    if name.startswith("utf-16") and not told:  # a meta tag that can be read stands in no UTF-16
        name = "utf-8"
    if name not in _SEVEN_BITS and not name.startswith(("utf-16", "utf-32")):
        try:
            content.decode()
        except UnicodeDecodeError:
            pass
        else:
            return content
    return _decoded(content, name or "cp1252").encode("utf-8", "replace")


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode(_MEANT.get(name, name), "replace")
    except (LookupError, ValueError):  # no name of a charset
        return content.decode("utf-8", "replace")


def _unchunked(content: bytes) -> bytes:
    """A body put together from its chunks; as it is, where it does not begin with one."""
    parts, position = list[bytes](), 0
    while position < len(content):
        end = content.find(b"\r\n", position, position + 256)
        size = _HEXADECIMAL.match(content, position, max(end, position))
        if size is None:
            break
        length = int(size[0], 16)
        if not length:
            return b"".join(parts)
        parts.append(content[end + 2 : end + 2 + length])
        position = end + 2 + length + 2
    return b"".join(parts) if parts else content


def _unpacked(content: bytes, coding: str, most: int) -> bytes:
    if coding in ("", "identity") or content.lstrip()[:1] == b"<":
        return content
    try:
        if coding in ("gzip", "x-gzip"):
            return zlib.decompressobj(31).decompress(content, most) if content[:2] == b"\x1f\x8b" else content
        if coding == "deflate":
            try:
                return zlib.decompressobj().decompress(content, most)
            except zlib.error:
                return zlib.decompressobj(-15).decompress(content, most)  # as some servers understand the word
        from fastwarc.stream_io import BrotliReader, ZstdReader

        if coding in ("br", "zstd"):
            reader, parts = (BrotliReader if coding == "br" else ZstdReader)(io.BytesIO(content)), list[bytes]()
            while most > 0 and (part := reader.read(most)):
                parts.append(part)
                most -= len(part)
            return b"".join(parts)
    except (OSError, zlib.error) as error:
        raise DataError(f"content encoding {coding}") from error
    return content
