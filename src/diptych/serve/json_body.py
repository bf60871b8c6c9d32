"""JSON of a request, read within bounds: a small body must not become a large thing.

`{}` has two bytes and a dictionary has 64, so a body is read token by token, and reading ends at the first that is one
too many. What comes out is what `json.loads` gives; what that lets pass beyond the standard (NaN, 1e999, a key that
comes twice, half a surrogate pair) is refused.
"""

import json
import math
import re
from typing import Any

from diptych.serve.refusals import RefusedError

MOST_VALUES = 8192  # three times what the largest useful request has: 1,024 texts, each in an object with its key
MOST_NUMBERS = 64  # no option is a list of more than three
MOST_DEPTH = 8
_LONGEST_NUMBER = 32  # characters; a float64 has 17 digits
_LONGEST_KEY = 1000  # bytes
_LONG = 2**18  # bytes; beyond, a text is a picture's base64: one other character would make each take four bytes
_NOT_ASCII = re.compile(rb"[\x80-\xff]|\\u(?!00[0-7])")

# Possessive throughout: with a way back a body of escapes would cost a hundred times its size.
_TOKEN = re.compile(
    rb"[ \t\r\n]*+(?:"
    rb'(?P<text>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")'
    rb"|(?P<mark>[\[\]{},:])"
    rb"|(?P<number>-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]++)?+)"
    rb"|(?P<name>true|false|null)"
    rb"|(?P<end>\Z))"
)
_NAMES = {b"true": True, b"false": False, b"null": None}


def read_json(body: bytes) -> Any:
    """What a body holds.

    Raises:
        RefusedError: it is no JSON, holds more than a request may, or nests deeper.
    """
    reader = _Reader(body)
    value = reader.value(*reader.token(), depth=0)
    kind, _ = reader.token()
    if kind != "end":
        raise reader.fault("something follows its end")
    return value


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0  # bytes
        self._values = self._numbers = 0

    def token(self) -> tuple[str, bytes]:
        """The kind of the next token and its bytes."""
        found = _TOKEN.match(self._body, self._at)
        if found is None:
            raise self.fault("what stands there is no value")
        assert found.lastgroup
        self._at = found.end()
        return found.lastgroup, found[found.lastgroup]

    def value(self, kind: str, token: bytes, *, depth: int) -> Any:
        """The value that begins with a token."""
        self._values += 1
        if self._values > MOST_VALUES:
            sentence = f"the body's JSON must hold at most {MOST_VALUES:,} values. It holds more: send them in several."
            raise RefusedError(400, sentence, "too_many_values")
        match kind, token:
            case "text", _:
                return self._text(token)
            case "number", _:
                return self._number(token)
            case "name", _:
                return _NAMES[token]
            case "mark", b"[" | b"{" if depth == MOST_DEPTH:
                raise RefusedError(400, f"the body's JSON must nest at most {MOST_DEPTH} deep.", "invalid_json")
            case "mark", b"[":
                return self._list(depth)
            case "mark", b"{":
                return self._object(depth)
            case _:
                raise self.fault("a value is missing")

    def fault(self, what: str) -> RefusedError:
        """That the body is no JSON, and where."""
        return RefusedError(400, f"the body must be JSON: {what}, at byte {self._at:,}.", "invalid_json")

    def _list(self, depth: int) -> list[Any]:
        items: list[Any] = []
        kind, token = self.token()
        if token == b"]":
            return items
        while True:
            items.append(self.value(kind, token, depth=depth + 1))
            if self._ends(b"]"):
                return items
            kind, token = self.token()

    def _object(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        kind, token = self.token()
        if token == b"}":
            return items
        while True:
            if kind != "text" or len(token) > _LONGEST_KEY:
                raise self.fault(f"an object's key must be text of at most {_LONGEST_KEY:,} bytes")
            self._values += 1
            key = self._text(token)
            if key in items:
                raise self.fault(f"{key[:40]!r} must stand once in an object, and stands twice")
            if self.token()[1] != b":":
                raise self.fault("a colon is missing")
            items[key] = self.value(*self.token(), depth=depth + 1)
            if self._ends(b"}"):
                return items
            kind, token = self.token()

    def _ends(self, mark: bytes) -> bool:
        """Whether a list or an object ends here; otherwise it goes on behind a comma."""
        _, token = self.token()
        if token not in (b",", mark):
            raise self.fault("a comma is missing")
        return token == mark

    def _text(self, token: bytes) -> str:
        if len(token) > _LONG and _NOT_ASCII.search(token):
            raise self.fault(f"text of more than {_LONG:,} bytes must be ASCII, as base64 is")
        try:
            # The usual text has no escape, and a picture's base64 needs no second copy.
            text = json.loads(token) if b"\\" in token else str(memoryview(token)[1:-1], "utf-8")
            if not text.isascii():
                text.encode()
        except UnicodeDecodeError:
            raise self.fault("text must be UTF-8, and is not") from None
        except UnicodeEncodeError:
            raise self.fault("text must be valid Unicode, and holds half a surrogate pair") from None
        except ValueError:
            raise self.fault("text must use the escapes of JSON alone") from None
        return text

    def _number(self, token: bytes) -> int | float:
        self._numbers += 1
        if self._numbers > MOST_NUMBERS:
            raise RefusedError(
                400,
                f"a request holds at most {MOST_NUMBERS} numbers. Send texts as text: lists of token numbers are not "
                "read (LangChain: check_embedding_ctx_length=False).",
                "token_numbers",
            )
        if len(token) > _LONGEST_NUMBER:
            raise self.fault(f"a number must have at most {_LONGEST_NUMBER} characters")
        number = float(token) if any(mark in token for mark in b".eE") else int(token)
        if not math.isfinite(number):
            raise self.fault("a number must be finite")
        return number
