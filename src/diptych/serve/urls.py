"""Pictures behind URLs, fetched only from hosts on an allow-list, and never from this network.

A host's addresses are resolved once, all of them must be public, and the connection goes to an address that was
checked, so that a name which answers otherwise the second time gains nothing. Each redirect is a URL like the first.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore2

from diptych.addresses import PORTS, HostList, Resolve, is_public, resolve
from diptych.errors import BusyError, ImageError
from diptych.version import __version__

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 3
_AT_ONCE = 8
_HEADERS = (
    ("User-Agent", f"diptych/{__version__}"),
    ("Accept", "image/*"),
    ("Accept-Encoding", "identity"),  # nothing to unpack that could be a bomb
    ("Connection", "close"),
)


class Fetcher:
    """Fetches files from the hosts of an allow-list.

    Args:
        allowed: hosts, e.g. "example.org"; "*.example.org" for those below it; "example.org:8443" for another port
            than 80 and 443.
        max_bytes: of one file.
        seconds: for one file, redirects included.
        resolve: addresses of a host and port.
        network: a network backend of httpcore2, which connects to addresses.

    Raises:
        ConfigError: an entry of the allow-list is no host.
    """

    def __init__(
        self,
        allowed: Iterable[str],
        *,
        max_bytes: int,
        seconds: float = 10.0,
        resolve: Resolve = resolve,
        network: Any = None,
    ) -> None:
        self._allowed = HostList(allowed, "--allow-url")
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._resolve = resolve
        self._network = network or httpcore2.AnyIOBackend()
        self._tls = ssl.create_default_context()
        self._under_way = 0

    async def __call__(self, url: str) -> bytes:
        """The file behind a URL.

        Raises:
            ImageError: the URL is refused, or gives no file.
            BusyError: too many are being fetched.
        """
        if self._under_way >= _AT_ONCE:
            raise BusyError(f"at most {_AT_ONCE} URLs are fetched at once. Try again later.")
        self._under_way += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(url)
        except TimeoutError:
            raise _refused(url, f"answers within {self._seconds:g} s, and did not") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            raise _refused(url, f"can be fetched, and cannot ({type(error).__name__})") from None
        finally:
            self._under_way -= 1

    async def _follow(self, url: str) -> bytes:
        for _ in range(1 + _MOST_REDIRECTS):
            asked, address = await self._checked(url)
            network = _ToAddress(self._network, address)
            async with (
                httpcore2.AsyncConnectionPool(ssl_context=self._tls, network_backend=network) as pool,
                pool.stream("GET", asked, headers=[*_HEADERS, ("Host", urlsplit(url).netloc)]) as answer,
            ):
                facts = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
                if answer.status not in _REDIRECTS or "location" not in facts:
                    return await self._read(url, answer, facts)
            url = urljoin(url, facts["location"])
        raise _refused(url, f"redirects at most {_MOST_REDIRECTS} times")

    async def _read(self, url: str, answer: httpcore2.Response, facts: dict[str, str]) -> bytes:
        if answer.status != 200:
            raise _refused(url, f"answers 200, and answered {answer.status}")
        if facts.get("content-encoding", "identity").lower() != "identity":
            raise _refused(url, "sends the file as it is, and packed it")
        data = bytearray()
        async for chunk in answer.aiter_stream():
            data += chunk
            if len(data) > self._max_bytes:
                raise _refused(url, f"has at most {self._max_bytes:,} bytes, and has more", "too large")
        return bytes(data)

    async def _checked(self, url: str) -> tuple[httpcore2.URL, str]:
        """What to ask for and the address to connect to, if this URL may be fetched at all."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise _refused(url, "is a URL") from None
        if parts.scheme not in PORTS or not host:
            raise _refused(url, "starts with https:// or http://")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise _refused(url, "is ASCII, other characters percent-encoded")
        if "@" in parts.netloc:
            raise _refused(url, "holds no password")
        if not self._allowed.holds(host, port, parts.scheme):
            raise _refused(url, "is of a host on the allow-list of this server (--allow-url)")
        try:
            addresses = await self._resolve(host, port or PORTS[parts.scheme])
        except (OSError, UnicodeError):
            raise _refused(url, "has a host that can be found") from None
        if not addresses or not all(map(is_public, addresses)):
            raise _refused(url, "leads to public addresses only")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return httpcore2.URL(scheme=parts.scheme, host=host, port=port, target=target), addresses[0]


class _ToAddress(httpcore2.AsyncNetworkBackend):
    """Connects to one address whatever the name; the certificate is still checked for the name."""

    def __init__(self, network: Any, address: str) -> None:
        self._network = network
        self._address = address

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        del host
        return await self._network.connect_tcp(self._address, port, *args, **options)


def _refused(url: str, must: str, cause: str = "url refused") -> ImageError:
    return ImageError(f"a picture's URL must be one that {must}. Got {url[:100]!r}.", cause)
