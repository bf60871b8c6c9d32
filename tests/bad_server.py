"""A web server on loopback that does every bad thing; the path says which. Also for benchmarks/curate_fetch.py.

    /file/NAME               the file, with its length            /status/404
    /once/503/file/NAME      503 the first time, then the file    /always/429/120   with Retry-After
    /to/URL                  a redirect there                     /circle, /far
    ...                      see `_DEEDS`

`/robots.txt` and `/.well-known/tdmrep.json` are what `sites` says for the host that is asked, and absent otherwise.
"""

import asyncio
import contextlib
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

_PAGE = b"<!doctype html><html><body>This picture has moved.</body></html>"
_MOST_SECONDS = 120  # of one deed that would go on for ever


@dataclass
class BadServer:
    """What it serves, and what it has seen.

    Args:
        files: content by name.
        sites: by host (as the request names it, without a port) and path: status and text of files of rules.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    sites: Mapping[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    port: int = 0
    asked: list[str] = field(default_factory=list)  # HOST/PATH of each request
    heads: list[str] = field(default_factory=list)
    most_at_once: Counter[str] = field(default_factory=Counter)  # by host, of requests that are being answered
    _now: Counter[str] = field(default_factory=Counter)
    _seen: Counter[str] = field(default_factory=Counter)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def end(self) -> None:
        """Throw away what is still under way."""
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # for the sockets to close

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, as long as it is good for more requests."""
        self._writers.add(writer)
        with contextlib.suppress(OSError, EOFError, TimeoutError, ssl.SSLError, asyncio.CancelledError):
            goes_on = True
            while goes_on:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                lines = (line.partition(": ") for line in head.split("\r\n")[1:])
                host = next(value for name, _, value in lines if name.lower() == "host").rpartition(":")[0]
                self.heads.append(head)
                self.asked.append(host + path)
                self._now[host] += 1
                self.most_at_once[host] = max(self.most_at_once[host], self._now[host])
                try:
                    async with asyncio.timeout(_MOST_SECONDS):
                        goes_on = await self._do(host, path, writer)
                        await writer.drain()
                finally:
                    self._now[host] -= 1
        self._writers.discard(writer)
        writer.close()

    async def _do(self, host: str, path: str, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays."""
        if (host, path) in self.sites or path in ("/robots.txt", "/.well-known/tdmrep.json"):
            status, text = self.sites.get((host, path), (404, "none"))
            writer.write(_whole(text.encode(), status))
            return True
        deed, _, rest = path.removeprefix("/").partition("?")[0].partition("/")
        if deed == "file":
            writer.write(_whole(self.files[unquote(rest)]))
            return True
        if deed == "slow":  # long enough for others to come
            await asyncio.sleep(0.02)
            writer.write(_whole(self.files[unquote(rest)]))
            return True
        if deed == "status":
            status, _, robots = rest.partition("/")
            writer.write(_whole(_PAGE, int(status), f"ETag: x\r\nX-Robots-Tag: {robots or 'all'}\r\n".encode()))
            return True
        if deed == "once":
            status, _, then = rest.partition("/")
            self._seen[path] += 1
            if self._seen[path] > 1:
                return await self._do(host, f"/{then}", writer)
            if status == "reset":
                writer.transport.abort()
                return False
            writer.write(_whole(b"", int(status), b"Retry-After: 0\r\n"))
            return True
        if deed == "always":
            status, _, wait = rest.partition("/")
            writer.write(_whole(b"", int(status), f"Retry-After: {unquote(wait)}\r\n".encode() * bool(wait)))
            return True
        if deed == "to":
            writer.write(_whole(b"", 302, b"Location: " + unquote(rest).encode() + b"\r\n"))
            return True
        if deed == "tag":
            headers, _, name = rest.partition("/")
            writer.write(_whole(self.files[name], 200, unquote(headers).encode() + b"\r\n"))
            return True
        return await _DEEDS[deed](self, writer, rest)


def _whole(body: bytes, status: int = 200, headers: bytes = b"") -> bytes:
    length = b"" if status == 204 else b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %d Answer\r\n" % status + length + headers + b"\r\n" + (b"" if status in (204, 304) else body)


Deed = Callable[[BadServer, asyncio.StreamWriter, str], Awaitable[bool]]


async def _silence(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    await asyncio.sleep(_MOST_SECONDS)
    return False


async def _drip(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    """A byte now and then, never silent for long and never done."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n\xff\xd8\xff")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _drip_head(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _endless(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def _short(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    """Half of what the length promises."""
    body = server.files[rest]
    writer.write(_whole(body)[: -(len(body) // 2)])
    return False


async def _chunked_short(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    body = server.files[rest]
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body[: len(body) // 2])
    return False


async def _chunked(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    body = server.files[rest]
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
    return True


async def _reset(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    """The connection is thrown away in the middle of the body, or before the head."""
    if rest:
        writer.write(_whole(server.files[rest])[: -(len(server.files[rest]) // 2)])
        await writer.drain()
        await asyncio.sleep(0.05)
    writer.transport.abort()
    return False


async def _no_length(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + server.files[rest])
    return False


async def _huge_length(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n\xff\xd8\xff")
    await writer.drain()
    await asyncio.sleep(_MOST_SECONDS)
    return False


async def _junk(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(b"<html>what is HTTP?</html>\r\n\r\n")
    return False


async def _big_head(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2**20 + b"\r\n\r\n")
    return False


async def _many_headers(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n")
    return False


async def _cookies(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(server.files[rest], 200, b"Set-Cookie: \xff=;;;\x01\r\nSet-Cookie: a=b; Domain=.com\r\n"))
    return True


async def _packed(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(_gzip(server.files[rest]), 200, b"Content-Encoding: gzip\r\n"))
    return True


async def _bomb(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(_BOMB, 200, b"Content-Encoding: gzip\r\n"))
    return True


async def _brotli(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(server.files[rest], 200, b"Content-Encoding: br\r\n"))
    return True


async def _packed_how(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(server.files[rest], 200, b"Content-Encoding: \xff\xfe\r\n"))
    return True


async def _lying_type(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(server.files[rest], 200, b"Content-Type: text/html\r\n"))
    return True


async def _page(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(_PAGE, 200, b"Content-Type: image/jpeg\r\n"))
    return True


async def _circle(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(b"", 307, b"Location: /circle/%d\r\n" % ((int(rest or 0) + 1) % 3)))
    return True


async def _far(server: BadServer, writer: asyncio.StreamWriter, rest: str) -> bool:
    writer.write(_whole(b"", 301, b"Location: /far/%d\r\n" % (int(rest or 0) + 1)))
    return True


_DEEDS: Mapping[str, Deed] = {
    "silence": _silence, "drip": _drip, "drip-head": _drip_head, "endless": _endless, "short": _short,
    "chunked": _chunked, "chunked-short": _chunked_short, "reset": _reset, "no-length": _no_length,
    "huge-length": _huge_length, "junk": _junk, "big-head": _big_head, "many-headers": _many_headers,
    "cookies": _cookies, "packed": _packed, "bomb": _bomb, "brotli": _brotli,
    "packed-how": _packed_how, "lying-type": _lying_type, "page": _page, "circle": _circle, "far": _far,
}  # fmt: skip


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


_BOMB = _gzip(bytes(30_000_000))


@contextlib.contextmanager
def serving(server: BadServer, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[BadServer]:
    """The server runs beside the block on a thread of its own, and no longer."""
    loop = asyncio.new_event_loop()
    listening = threading.Event()
    done = asyncio.Event()

    async def run() -> None:
        listener = await asyncio.start_server(server.answer, host, 0, ssl=tls, backlog=1024)
        server.port = listener.sockets[0].getsockname()[1]
        listening.set()
        await done.wait()
        listener.close()
        await server.end()

    thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=lambda: loop).run(run()), daemon=True)
    thread.start()
    assert listening.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)
        loop.close()
