"""Text files of users: bytes to text, text to lines.

One rule for captions, labels, templates and tables. Text is UTF-8, with a byte order mark or without; UTF-16 and UTF-32
are known by their mark. A line ends at a line feed (a carriage return before it belongs to it), and in a text without
one at carriage returns. What else Unicode calls a line or paragraph separator is a character like others.
"""

import codecs
from pathlib import Path

from diptych.errors import DataError, TextError

_MARKS = (  # UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def encoding_of(head: bytes) -> str:
    """Name of the encoding that a byte order mark tells; utf-8 without one."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


def decode_text(content: bytes) -> str:
    r"""The text of a file, without its byte order mark.

    Raises:
        TextError: it is not UTF-8 and has no mark of another encoding; or it holds a NUL, as UTF-16 does that has no
            mark.

    >>> decode_text(b"\xef\xbb\xbfcaf\xc3\xa9")
    'café'
    """
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError as error:
        raise TextError(f"not UTF-8 ({error.reason} at byte {error.start:,})") from None
    if "\0" in text:
        raise TextError(f"not UTF-8 text (a NUL at character {text.index(chr(0)):,})")
    return text


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    try:
        return decode_text(path.read_bytes())
    except TextError as error:
        raise DataError(f"{path} must be UTF-8 text, and is {error}. Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Give a text file with one entry a line.") from None


def text_lines(text: str) -> list[str]:
    r"""The lines of a text without surrounding spaces; blank ones do not count.

    >>> text_lines("a dog \r\n\n on the\u2028grass")
    ['a dog', 'on the\u2028grass']
    """
    ends = "\n" if "\n" in text else "\r"
    return [stripped for line in text.split(ends) if (stripped := line.strip())]
