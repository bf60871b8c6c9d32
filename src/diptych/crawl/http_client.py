"""One GET of a stranger's server: bounded in time and bytes, to addresses that were checked, and following nothing.

A name is looked up once a part. All its addresses must be public, or the host be allowed on purpose; aiohttp is handed
these addresses in place of a name server's, so that it can connect to no other.
"""

import asyncio
import socket
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from diptych.addresses import HostList, Resolve, is_public, look_up
from diptych.crawl.fetch_causes import FetchError
from diptych.crawl.fetch_options import Fetch
from diptych.crawl.web_address import WebAddress

Headers = Sequence[tuple[str, str]]

_PACKED = ("gzip", "x-gzip", "deflate")  # what we can unpack within a limit; nothing packed is asked for
_HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """What a server said; the body only of an answer 200."""

    status: int
    headers: Headers
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of a name."""
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is wanted of a file."""

    max_bytes: int  # of the body, as it comes and unpacked
    cut: bool = False  # a body that is longer is cut there, and not refused
    refuse: Callable[[Headers], None] | None = None  # sees the head of an answer 200 before its body, and raises


class HttpClient:
    """Asks for files, one after the other or many at once. An async context manager, for one event loop.

    Args:
        options: times, sizes, who may be asked.
        resolve: addresses of a host and port; by default the system's, on threads of its own.
    """

    def __init__(self, options: Fetch, *, resolve: Resolve | None = None) -> None:
        self._options = options
        self._allowed = HostList(options.allow_hosts, "fetch.allow_hosts")
        self._threads = ThreadPoolExecutor(options.lookups, "look-up")
        self._resolve = resolve or self._look_up
        self._lookups = asyncio.Semaphore(options.lookups)
        self._addresses: dict[str, asyncio.Task[Sequence[str] | FetchError]] = {}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,  # whoever asks keeps to its limits
            ssl=self._options.check_certificates,
            resolver=_Checked(self._addresses),
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**_HEADERS, "User-Agent": self._options.user_agent},
            auto_decompress=False,
            trust_env=False,  # no proxy and no password of this machine
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._options.seconds_connect, sock_read=self._options.seconds_silent
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)  # a look-up that hangs is not waited for

    async def get(self, address: WebAddress, wanted: Wanted) -> HttpAnswer:
        """Ask once; whatever the answer's status. The host is located before.

        Raises:
            FetchError: with the cause.
        """
        await self.locate(address)
        try:
            async with asyncio.timeout(self._options.seconds):
                return await self._get(address, wanted)
        except aiohttp.ConnectionTimeoutError:
            raise _timeout("seconds_connect", self._options.seconds_connect) from None
        except aiohttp.ServerTimeoutError:
            raise _timeout("seconds_silent", self._options.seconds_silent) from None
        except TimeoutError:
            raise _timeout("seconds", self._options.seconds) from None
        except aiohttp.ClientSSLError as error:
            raise FetchError("tls", _line(error)) from None
        except aiohttp.ClientPayloadError as error:
            raise FetchError("truncated", _line(error)) from None
        except aiohttp.ClientResponseError as error:
            raise FetchError("bad answer", _line(error.message)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise FetchError("connect", _line(error)) from None
        except ValueError as error:
            raise FetchError("bad answer", _line(error)) from None

    async def _get(self, address: WebAddress, wanted: Wanted) -> HttpAnswer:
        path, _, query = address.target.partition("?")
        url = URL.build(
            scheme=address.scheme, host=address.host, port=address.port, path=path, query_string=query, encoded=True
        )
        async with self._session.get(url, allow_redirects=False) as response:
            headers = list(response.headers.items())
            answer = HttpAnswer(status=response.status, headers=headers)
            if response.status != 200:  # what its headers say of robots speaks of an error page
                return answer
            if wanted.refuse:
                wanted.refuse(headers)
            told = response.content_length
            if told is not None and told > wanted.max_bytes and not wanted.cut:
                raise _too_large(f"{told:,} bytes", wanted)
            body = await _read(response, wanted)
            body = _unpacked(body, (answer.header("content-encoding") or "identity").strip().lower(), wanted)
            return HttpAnswer(status=200, headers=headers, body=body)

    async def locate(self, address: WebAddress) -> None:
        """Look the host up, once, and check where it is.

        Raises:
            FetchError: "dns" or "private address".
        """
        key = address.host
        if key not in self._addresses:
            self._addresses[key] = asyncio.create_task(self._addresses_of(address))
        found = await asyncio.shield(self._addresses[key])
        if isinstance(found, FetchError):
            raise found.bare()
        if not all(map(is_public, found)) and not self._allowed.holds(address.host, address.port, address.scheme):
            raise FetchError("private address", ", ".join(found[:3]))

    async def _addresses_of(self, address: WebAddress) -> Sequence[str] | FetchError:
        await self._lookups.acquire()  # time is taken from when it is our turn: our own queue is no slow name server
        task = asyncio.ensure_future(self._resolve(address.host, address.port))
        task.add_done_callback(self._looked_up)
        done, _ = await asyncio.wait({task}, timeout=self._options.seconds_dns)
        limit = f"{self._options.seconds_dns:g} s (seconds_dns)"
        if not done:
            return FetchError("dns", "no answer", limit)
        try:
            return task.result() or FetchError("dns", "no address")
        except (OSError, UnicodeError) as error:
            return FetchError("dns", _line(error))

    def _looked_up(self, task: asyncio.Future[Any]) -> None:
        self._lookups.release()
        if not task.cancelled():
            task.exception()  # of one that came too late nobody asks for it, which asyncio would complain of

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up, host, port)


class _Checked(AbstractResolver):
    """Gives aiohttp the addresses that were checked, and none besides."""

    def __init__(self, addresses: dict[str, asyncio.Task[Sequence[str] | FetchError]]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = self._addresses[host].result()
        assert not isinstance(found, FetchError), f"{host} was asked before it was checked"
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
            if family in (socket.AF_UNSPEC, socket.AF_INET6 if ":" in address else socket.AF_INET)
        ]

    async def close(self) -> None:
        pass


async def _read(response: aiohttp.ClientResponse, wanted: Wanted) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > wanted.max_bytes:
            if wanted.cut:
                return bytes(body[: wanted.max_bytes])
            raise _too_large("more", wanted)
    return bytes(body)


def _unpacked(body: bytes, encoding: str, wanted: Wanted) -> bytes:
    """The body as it was before it was packed, though that was not asked for; a bomb is cut off at the limit."""
    if encoding in ("identity", ""):
        return body
    if encoding not in _PACKED:
        raise FetchError("content encoding", encoding[:40], "identity, gzip or deflate")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # the header of either is looked for
    try:
        data = unpacker.decompress(body, wanted.max_bytes + 1)
    except zlib.error as error:
        raise FetchError("content encoding", _line(error)) from None
    if len(data) > wanted.max_bytes and not wanted.cut:
        raise _too_large("more, unpacked", wanted)
    if not unpacker.eof and not wanted.cut:
        raise FetchError("truncated", f"{encoding} ends early")
    return data[: wanted.max_bytes]


def _too_large(value: str, wanted: Wanted) -> FetchError:
    return FetchError("too large", value, f"at most {wanted.max_bytes:,} bytes (max_bytes)")


def _timeout(option: str, seconds: float) -> FetchError:
    return FetchError("timeout", option, f"{seconds:g} s")


def _line(error: Any) -> str:
    """What a library says, in one short line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
