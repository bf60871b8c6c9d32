"""Addresses of pictures as they are asked for: one reading of whatever stands in a list or a redirect."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

from yarl import URL

from diptych.addresses import PORTS
from diptych.crawl.fetch_causes import FetchError

# What may stand in a target as it is: all of RFC 3986's marks, and "%", since what is quoted already stays as it is.
_KEPT = "%/:=&?~#+!$,;'@()*[]|"
_IGNORED = re.compile(r"[\t\r\n]")  # as browsers do, since lists are full of them
_MOST_CHARACTERS = 8_000
_HOST = re.compile(r"[a-z0-9._:-]+")


@dataclass(frozen=True)
class WebAddress:
    """Where one request goes."""

    scheme: str  # http or https
    host: str  # ASCII, lower case, without a dot at its end; IPv6 without brackets
    port: int
    target: str  # path and query, ASCII; it is sent as it stands here

    @classmethod
    def read(cls, url: str, base: Self | None = None) -> Self:
        """Read an address: spaces at its ends and its fragment go, what is not ASCII is quoted, all else stays.

        Args:
            url: of a list, or a redirect's `Location`. Without a scheme, `//host/path` is taken for https.
            base: what a redirect's address is relative to.

        Raises:
            FetchError: "bad address", or of a redirect "redirect".

        >>> WebAddress.read(" http://Bücher.example/a b.jpg?x=ä#part").url
        'http://xn--bcher-kva.example/a%20b.jpg?x=%C3%A4'
        """
        cause = "redirect" if base else "bad address"
        text = _IGNORED.sub("", url.strip())
        if len(text) > _MOST_CHARACTERS:
            raise FetchError(cause, f"{len(text):,} characters", f"at most {_MOST_CHARACTERS:,}")
        try:
            full = urljoin(base.url, text) if base else f"https:{text}" if text.startswith("//") else text
            parts = urlsplit(full)
            scheme, host, port = parts.scheme, (parts.hostname or "").rstrip("."), parts.port
            if not host.isascii():
                host = URL.build(scheme="http", host=host).raw_host or ""
        except ValueError:  # of an IPv6 address, a port, or a name that is none
            raise FetchError(cause, "no URL", "http:// or https://") from None
        if scheme not in PORTS or not _HOST.fullmatch(host):
            raise FetchError(cause, f"{scheme or 'no scheme'}", "http:// or https:// and a host")
        if "@" in parts.netloc:
            raise FetchError(cause, "holds a password", "http:// or https:// and a host")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        quoted = quote(
            target, safe=_KEPT, errors="surrogateescape"
        )  # bytes of a header that are no UTF-8, as they came
        return cls(scheme, host, port or PORTS[scheme], quoted)

    @property
    def site(self) -> str:
        """Scheme, host and port: what one robots.txt speaks for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        return self.site + self.target

    def at(self, target: str) -> "WebAddress":
        """Another address of the same site."""
        return WebAddress(self.scheme, self.host, self.port, target)
