"""The gate before the application: who may come in, how much they may bring, and how long it may take.

Written against ASGI itself, as it reads the body before anything parses it.
"""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from diptych.errors import BusyError
from diptych.serve.arrivals import Arrivals, too_large
from diptych.serve.limits import Limits
from diptych.serve.monitor import Monitor
from diptych.serve.refusals import RefusedError, refusal_of
from diptych.serve.tickets import Tickets

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Nothing in a page may come from elsewhere, or be written into it; pictures may be blobs that its script fetched.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OPEN = ("/", "/health", "/openapi.json")  # need no key, as does what is below /page/: they tell nothing of the data
_EVERYWHERE = frozenset(("0.0.0.0", "::"))
_LINGER = 2.0  # s, and as many bytes as a body may have: what is too large is thrown away, so that its sender hears why


class Guard:
    """An ASGI application around another one.

    Args:
        app: gets requests whose body is read to its end.
        limits: of body, time and number.
        monitor: counts.
        api_key: must come with each request to what is not open; empty asks for none.
        hosts: names by which the server may be called, without port; "0.0.0.0" or "::" among them stands for every
            address, and None for any name.
        tickets: open what they are of, without the key.
    """

    def __init__(
        self,
        app: App,
        *,
        limits: Limits,
        monitor: Monitor,
        api_key: str = "",
        hosts: Iterable[str] | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        self._app = app
        self._tickets = tickets
        self._limits = limits
        self._monitor = monitor
        self._key = _digest(api_key) if api_key else None
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._takes_addresses = not _EVERYWHERE.isdisjoint(self._hosts or ())
        self._arrivals = Arrivals(limits)
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, is_head=scope["method"] == "HEAD")
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the same but for what is sent
        start = time.perf_counter()
        self._monitor.in_hand.inc()
        try:
            await self._let_in(scope, receive, answer)
        finally:
            self._monitor.in_hand.dec()
            route = getattr(scope.get("route"), "path", "none")
            self._monitor.requests.labels(route, answer.status or "gone").inc()
            self._monitor.seconds.labels(route).observe(time.perf_counter() - start)

    async def _let_in(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        body: bytes | None = None
        refusal = None
        try:
            self._check_head(scope)
            body = await self._arrivals.read(receive)
            if body is not None:
                async with self._place(), self._in_time(answer):
                    await self._answer(scope, receive, answer, body)
        except (RefusedError, BusyError) as error:
            refusal = refusal_of(error)
        finally:
            self._arrivals.let_go(len(body or b""))
        body = None  # before its sender is waited for
        if refusal is not None:
            await self._refuse(refusal, receive, answer)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Taken once the body is there, so that no slow one keeps others out."""
        most = self._limits.requests_in_hand
        if self._answering >= most:
            raise BusyError(f"at most {most:,} requests are taken at once. Try again later.")
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1

    def _check_head(self, scope: Scope) -> None:
        """Refuse by what is known before the body.

        Raises:
            RefusedError: not let in.
            BusyError: too many are in.
        """
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = re.sub(r":\d*$", "", headers.get("host", "")).strip("[]").rstrip(".").lower()
        if not self._is_ours(host):
            # A page of a stranger whose name was turned to this address could otherwise read the answers.
            names = ", ".join(sorted(self._hosts or ()))
            raise RefusedError(
                421, f"this server must be called by one of its names ({names}). --allow-host adds another.", "host"
            )
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise RefusedError(403, "requests of other sites' pages are not answered.", "cross_site")
        if self._key is not None and not self._is_open(scope):
            given = headers.get("authorization", "").partition(" ")[2] or headers.get("x-api-key", "")
            # Digests have one length, so that not even this can be told from the time.
            if not hmac.compare_digest(_digest(given), self._key):
                raise RefusedError(401, "an API key must come along: Authorization: Bearer KEY.", "invalid_api_key")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.body_bytes:
            raise too_large(self._limits)

    def _is_ours(self, host: str) -> bool:
        if self._hosts is None or host in self._hosts:
            return True
        # A stranger can turn a name of his to this machine, but no address: that one leads to where it says.
        return self._takes_addresses and _is_address(host)

    @contextlib.asynccontextmanager
    async def _in_time(self, answer: "_Answer") -> AsyncIterator[None]:
        """Until the answer begins. A large file may take longer; who fetches too slowly is cut off elsewhere."""
        seconds = self._limits.seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                answer.on_begin = lambda: None if limit.expired() else limit.reschedule(None)
                yield
        except TimeoutError:
            sentence = f"a request must be answered within {seconds:g} s. Try again later."
            raise RefusedError(503, sentence, "timeout", retry_after=1) from None
        finally:
            answer.on_begin = lambda: None  # a refusal begins after the time that it tells of

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in _OPEN or path.startswith("/page/"):
            return True
        return self._tickets is not None and self._tickets.opens(path, scope["query_string"].decode("latin-1"))

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer", body: bytes) -> None:
        """Run the application; a client that leaves takes its request along."""
        pending = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.create_task(_disconnect(receive))

        async def replay() -> Message:
            return pending.pop() if pending else await asyncio.shield(gone)

        at_work = asyncio.create_task(_run(self._app, scope, replay, answer))
        try:
            await asyncio.wait((at_work, gone), return_when=asyncio.FIRST_COMPLETED)
            if at_work.done():
                at_work.result()
        finally:
            for task in (at_work, gone):
                task.cancel()
            await asyncio.wait((at_work, gone))
            if not at_work.cancelled():
                at_work.exception()  # looked at, or asyncio would complain of one that nobody waits for

    async def _refuse(self, refusal: RefusedError, receive: Receive, answer: "_Answer") -> None:
        if answer.status:
            return  # it has begun
        body = refusal.body()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers()}
        if refusal.status in (408, 413, 429):
            headers["connection"] = "close"  # its body is still on the way
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await answer({"type": "http.response.start", "status": refusal.status, "headers": encoded})
        await answer({"type": "http.response.body", "body": body, "more_body": True})
        if "connection" in headers:
            await _throw_away(receive, self._limits.body_bytes)
        await answer({"type": "http.response.body", "body": b"", "more_body": False})


class _Answer:
    """Sends, with our headers, and remembers the status."""

    def __init__(self, send: Send, *, is_head: bool) -> None:
        self._send = send
        self._is_head = is_head
        self.on_begin: Callable[[], None] = lambda: None
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.on_begin()
            theirs = list(message.get("headers", ()))
            ours = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            if not any(name.lower() == b"cache-control" for name, _ in theirs):
                ours.append((b"cache-control", b"no-store"))  # what is in pictures, and what is sought, is private
            message = {**message, "headers": [*theirs, *ours]}
        elif self._is_head:
            message = {**message, "body": b""}
        await self._send(message)


async def _run(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _disconnect(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


async def _throw_away(receive: Receive, most: int) -> None:
    """Read on for a while, `most` bytes. A connection closed under a sender would cost it the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            while most > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                most -= len(message.get("body", b""))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
