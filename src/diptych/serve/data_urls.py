"""Pictures as a request holds them: a data URL, or base64 by itself. URLs are the business of `urls`."""

import base64
import binascii
import re

from diptych.errors import ImageError

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*(;base64)?,", re.IGNORECASE)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_WHITE = b" \t\r\n"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")  # either alphabet of base64
_HOW = "Send the file as a data URL (data:image/png;base64,...) or as base64."


def is_url(picture: str) -> bool:
    """Whether a picture is somewhere else: it has a scheme, and not that of a data URL."""
    return _URL.match(picture[:100]) is not None and picture[:5].lower() != "data:"


def picture_bytes(picture: str) -> bytes:
    """The file within a data URL or base64.

    Raises:
        ImageError: it is neither, or is empty.
    """
    start = 0
    if picture[:5].lower() == "data:":
        head = _DATA_URL.match(picture[:200])
        if head is None or not head[2]:
            raise ImageError(f"a data URL must say base64. Got {picture[:40]!r}. {_HOW}", "not an image")
        start = head.end()
    try:
        # Copies of megabytes: no more than two at a time.
        plain = picture[start:].encode("ascii").translate(_URL_SAFE, _WHITE).rstrip(b"=")
        data = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):  # also what is not ASCII
        raise ImageError(f"a picture must be base64. Got {picture[:40]!r}. {_HOW}", "not an image") from None
    if not data:
        raise ImageError(f"a picture must have content, and is empty. {_HOW}", "empty")
    return data
