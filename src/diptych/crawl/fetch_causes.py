"""Why a picture was not fetched: causes that are counted, what to do about each, and which may heal by themselves.

`diptych curate --retry` asks again for the rows of the causes in `MAY_HEAL`, or of those that it is told.
"""

from collections.abc import Mapping
from typing import Self

CURES: Mapping[str, str] = {
    "dns": "The name server knew no such host, or did not answer in time: raise seconds_dns, or use a nearer one.",
    "connect": "The host refused the connection, or cut it before it answered: try again later.",
    "tls": "The host's certificate is not valid for its name: check_certificates = false takes it all the same.",
    "timeout": "The host was too slow: try again later, or raise the seconds that the value names.",
    "truncated": "The body ended early: try again later.",
    "bad answer": "What came is no HTTP answer, or its head is too long: nothing to be done.",
    "too large": "Raise max_bytes, or of a picture made anew max_pixels, if such pictures are wanted.",
    "empty": "The answer has no bytes: nothing to be done.",
    "not an image": "The body is something else, mostly a web page in a picture's place: nothing to be done.",
    "unsupported": "A picture of a kind that is not read, such as SVG; for HEIC install diptych[heif].",
    "unreadable": "The picture's header is damaged: nothing to be done.",
    "content encoding": "The body is packed in a way that was not asked for: nothing to be done.",
    "private address": "The name leads into a private network: name the host in allow_hosts if that is meant.",
    "redirect": "The redirects lead in a circle, too far (redirects), or to what is no http: nothing to be done.",
    "bad address": "The address in the list is none that can be fetched: mend the list.",
    "robots": "The site's robots.txt asks crawlers not to fetch it: leave it out.",
    "robots unreachable": "The site's robots.txt cannot be read, which counts as a no (RFC 9309): try again later.",
    "opt-out": "The site reserves its pictures from mining or from models: leave it out.",
    "other bytes": "The picture is not what the list says (listed_sha256): keep_other_bytes takes it all the same.",
    "host gave up": "Requests to this host failed one after the other, so the rest was not asked: try again later.",
}
_CURES_OF_STATUS: Mapping[int, str] = {
    401: "The picture is behind a password: leave it out.",
    403: "The host refuses us: say in contact who you are, or leave it out.",
    404: "The picture is gone: leave it out.",
    410: "The picture is gone: leave it out.",
    429: "We asked too often: lower per_host, raise delay, and try again later.",
}

_STATUSES_THAT_HEAL = (408, 425, 429, *range(500, 600))
MAY_HEAL: frozenset[str] = frozenset(
    {"dns", "connect", "timeout", "truncated", "robots unreachable", "host gave up"}
    | {f"http {status}" for status in _STATUSES_THAT_HEAL}
)
# Of these a host itself is to blame, whichever picture was asked for; `host gave up` counts them.
FAULTS_OF_HOST: frozenset[str] = frozenset({"connect", "tls", "timeout", "bad answer"}) | {
    f"http {status}" for status in (429, *range(500, 600))
}
# Worth another try within the same minute. Not a timeout: who was silent for long rarely speaks a second later, and a
# part would wait for it three times.
TRIED_AGAIN: frozenset[str] = frozenset({"connect", "truncated"}) | {
    f"http {status}" for status in (408, 425, 429, 500, 502, 503, 504)
}


class FetchError(Exception):
    """One picture was not fetched; becomes a row of the ledger.

    Args:
        cause: one of `CURES`, or "http STATUS".
        value: what was measured, or what exactly went wrong.
        limit: what it was held against.
        wait: seconds after which the server wants to be asked again, where it says so.
    """

    def __init__(self, cause: str, value: str = "", limit: str | None = None, wait: float | None = None) -> None:
        value = value.encode("utf-8", "replace").decode()  # a stranger's bytes must not stop the ledger
        super().__init__(f"{cause}: {value}" if value else cause)
        self.cause = cause
        self.value = value
        self.limit = limit
        self.wait = wait

    def bare(self) -> Self:
        """The same without the frames that it came through, which hold bodies of answers."""
        return type(self)(self.cause, self.value, self.limit, self.wait)


def cure_of(cause: str) -> str:
    """What to do about a cause, one sentence; empty for one that does not come from fetching.

    >>> cure_of("http 404")
    'The picture is gone: leave it out.'
    """
    kind, _, status = cause.partition(" ")
    if kind != "http":
        return CURES.get(cause, "")
    number = int(status)
    if number in _CURES_OF_STATUS:
        return _CURES_OF_STATUS[number]
    if number >= 500:
        return "The host has a fault of its own: try again later."
    return "The host did not give the picture: leave it out."
