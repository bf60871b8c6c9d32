"""Tickets: what stands in the address of a picture, so that a page may show it where an API key is asked for.

A browser sends no key with `<img>` and `<video>`. A ticket opens the files of one picture, until the server stops.
"""

import base64
import hashlib
import hmac
import re
import secrets
import urllib.parse

_OPENED = re.compile(r"/library/([A-Za-z0-9_-]{1,64})/(?:thumbnail|picture|original|zip)")


class Tickets:
    """Made by one server, and worth nothing to another."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, id_: str) -> str:
        """The ticket of a picture."""
        digest = hmac.digest(self._secret, id_.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:18]).decode()

    def added(self, path: str, id_: str) -> str:
        """A path with its ticket."""
        return f"{path}{'&' if '?' in path else '?'}ticket={self.of(id_)}"

    def opens(self, path: str, query: str) -> bool:
        """Whether a request has the ticket of what it asks for."""
        match = _OPENED.fullmatch(path)
        given = urllib.parse.parse_qs(query).get("ticket", [""])[0]
        return bool(match) and hmac.compare_digest(given.encode(), self.of(match[1]).encode())
