import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from diptych.serve import guard as guard_module
from diptych.serve.guard import HEADERS, Guard
from diptych.serve.limits import Limits
from diptych.serve.monitor import Monitor

LIMITS = Limits(body_bytes=100, bodies_in_hand=250, requests_in_hand=3, seconds=5)
KEY = "a key of some length"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode(), "more_body": False})


class Request:
    """One request as a server would hand it over."""

    def __init__(
        self,
        chunks: Sequence[bytes] = (b"",),
        path: str = "/x",
        leaves: bool = False,
        method: str = "POST",
        **headers: str,
    ) -> None:
        encoded = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.scope: dict[str, Any] = {"type": "http", "path": path, "method": method, "headers": encoded}
        self.chunks = list(chunks)
        self.read = 0
        self.leaves = leaves
        self.sent: list[Any] = []
        self.left = asyncio.Event()

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        if self.read < len(self.chunks):
            self.read += 1
            more = self.read < len(self.chunks)
            return {"type": "http.request", "body": self.chunks[self.read - 1], "more_body": more}
        if not self.leaves:
            await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"] if self.sent else 0

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def code(self) -> str:
        return json.loads(self.body)["error"]["code"]


def run(work: Callable[[Callable[[Request], Awaitable[Request]]], Awaitable[None]], app: Any = echo, **options: Any):
    async def main() -> None:
        guard = Guard(app, **{"limits": LIMITS, "monitor": Monitor(), **options})

        async def ask(request: Request) -> Request:
            await guard(request.scope, request.receive, request.send)
            return request

        await work(ask)
        assert guard._arrivals.bytes == guard._answering == 0  # nothing is left counted

    asyncio.run(main())


def test_a_body_comes_through_whole_and_answers_carry_the_policy():
    async def work(ask: Any) -> None:
        answered = await ask(Request([b"x" * 40, b"", b"y" * 60]))
        assert (answered.status, answered.body) == (200, b"100")
        assert answered.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()

    run(work)
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_a_body_that_says_it_is_too_large_is_not_read():
    async def work(ask: Any) -> None:
        answered = await ask(Request([b"x" * 60] * 2, content_length="1073741824", leaves=True))
        assert (answered.status, answered.code) == (413, "too_large")
        assert answered.headers["connection"] == "close"

    run(work)


def test_a_body_without_length_is_stopped_at_the_limit():
    """As much again is thrown away, so that the sender hears why; then it is hung up on."""
    held: list[int] = []

    class Endless(Request):
        async def receive(self) -> Any:
            held.append(guard._arrivals.bytes)
            return {"type": "http.request", "body": b"x" * 30, "more_body": True}

    guard = Guard(echo, limits=LIMITS, monitor=Monitor())

    async def main() -> Endless:
        request = Endless()
        await guard(request.scope, request.receive, request.send)
        return request

    request = asyncio.run(main())
    assert (request.status, request.code) == (413, "too_large")
    assert held == [0, 30, 60, 90, 0, 0, 0, 0]
    assert guard._arrivals.bytes == 0


def test_bodies_of_all_requests_have_a_limit_together():
    async def work(ask: Any) -> None:
        slow = [Request([b"x" * 90]), Request([b"x" * 90])]
        waiting = [asyncio.create_task(ask(request)) for request in slow]
        await asyncio.sleep(0.01)
        refused = await ask(Request([b"x" * 90], leaves=True))
        assert (refused.status, refused.code) == (429, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        may_go.set()
        await asyncio.gather(*waiting)
        assert [request.status for request in slow] == [200, 200]

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await may_go.wait()
        await echo(scope, receive, send)

    may_go = asyncio.Event()
    run(work, wait)


def test_requests_have_a_limit_together():
    async def work(ask: Any) -> None:
        waiting = [asyncio.create_task(ask(Request())) for _ in range(3)]
        await asyncio.sleep(0.01)
        refused = await ask(Request(leaves=True))
        assert (refused.status, refused.code) == (429, "busy")
        may_go.set()
        assert {request.status for request in await asyncio.gather(*waiting)} == {200}
        assert (await ask(Request())).status == 200

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await may_go.wait()
        await echo(scope, receive, send)

    may_go = asyncio.Event()
    run(work, wait)


def test_time_is_limited_for_arriving_and_for_answering():
    class Slow(Request):
        async def receive(self) -> Any:
            await asyncio.sleep(30)

    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    async def arriving(ask: Any) -> None:
        answered = await ask(Slow())
        assert (answered.status, answered.code) == (408, "timeout")

    async def answering(ask: Any) -> None:
        answered = await ask(Request())
        assert (answered.status, answered.code) == (503, "timeout")

    short = Limits(seconds=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_module, "_LINGER", 0.01)
        run(arriving, limits=short)
    run(answering, never, limits=short)


def test_a_client_that_leaves_stops_its_work():
    stopped: list[str] = []

    async def long(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.append("stopped")
            raise

    async def work(ask: Any) -> None:
        assert (await ask(Request(leaves=True))).status == 0

    run(work, long)
    assert stopped == ["stopped"]


def test_an_error_of_the_application_is_not_swallowed():
    async def bad(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def work(ask: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            await ask(Request())

    run(work, bad)


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({"authorization": f"Bearer {KEY}"}, True),
        ({"x_api_key": KEY}, True),
        ({}, False),
        ({"authorization": "Bearer wrong"}, False),
        ({"authorization": f"Bearer {KEY}x"}, False),
        ({"authorization": f"Bearer {KEY[:-1]}"}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "Bearer \xe9"}, False),
        ({"x_api_key": ""}, False),
    ],
)
def test_the_key_is_asked_for(headers: dict[str, str], is_let_in: bool):
    async def work(ask: Any) -> None:
        answered = await ask(Request(**headers, leaves=True))
        assert answered.status == (200 if is_let_in else 401)
        if not is_let_in:
            assert answered.headers["www-authenticate"] == "Bearer"
            assert KEY not in answered.body.decode()

    run(work, api_key=KEY)


def test_what_tells_nothing_of_the_data_needs_no_key():
    async def work(ask: Any) -> None:
        for path, status in {
            **dict.fromkeys(("/", "/health", "/openapi.json", "/page/app.js"), 200),
            **dict.fromkeys(("/metrics", "/search", "/v1/models", "/library/x/thumbnail", "/page", "//"), 401),
        }.items():
            assert (await ask(Request(path=path, leaves=True))).status == status, path

    run(work, api_key=KEY)


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch):
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    class Hmac:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(guard_module, "hmac", Hmac)

    async def work(ask: Any) -> None:
        for given in ("", "x", KEY, KEY * 50):
            await ask(Request(authorization=f"Bearer {given}", leaves=True))

    run(work, api_key=KEY)
    assert len(compared) == 4
    assert {len(part) for pair in compared for part in pair} == {32}


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("localhost.:8000", True),
        ("evil.org", False),
        ("evil.org.", False),
        ("evil.org:8000", False),
        ("localhost.evil.org", False),
        ("", False),
    ],
)
def test_a_strangers_name_that_leads_here_is_refused(host: str, is_let_in: bool):
    async def work(ask: Any) -> None:
        assert (await ask(Request(host=host, leaves=True))).status == (200 if is_let_in else 421)

    run(work, hosts=("localhost", "127.0.0.1", "::1"))


def test_where_it_listens_everywhere_any_address_is_its_own_and_no_strangers_name():
    async def work(ask: Any) -> None:
        for host, status in {
            **dict.fromkeys(("192.168.1.5:8000", "[fe80::1]:8000", "10.0.0.1", "localhost:8000", "box"), 200),
            **dict.fromkeys(("evil.org", "192.168.1.5.evil.org", "1.2.3.4.nip.io:8000", ""), 421),
        }.items():
            assert (await ask(Request(host=host, leaves=True))).status == status, host

    for everywhere in ("0.0.0.0", "::"):
        run(work, hosts=("localhost", "box", everywhere))


def test_a_stranger_hears_what_adds_a_name():
    async def work(ask: Any) -> None:
        answered = await ask(Request(host="photos.example.org", leaves=True))
        assert "--allow-host adds another" in json.loads(answered.body)["error"]["message"]

    run(work, hosts=("localhost",))


def test_head_is_get_without_a_body():
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["method"])
        await echo(scope, receive, send)

    async def work(ask: Any) -> None:
        answered = await ask(Request(method="HEAD"))
        assert (answered.status, answered.body) == (200, b"")
        refused = await ask(Request(method="HEAD", path="/search", host="evil.org", leaves=True))
        assert (refused.status, refused.body) == (421, b"")

    run(work, app, hosts=("",))
    assert seen == ["GET"]


def test_bodies_that_arrive_take_no_place_of_those_that_are_answered():
    """As many as there are places are begun and never end; others are answered all the same."""

    async def work(ask: Any) -> None:
        stalled = [Request([b"x"] + [b""] * 10_000_000) for _ in range(LIMITS.requests_in_hand - 1)]
        waiting = [asyncio.create_task(ask(request)) for request in stalled]
        await asyncio.sleep(0.01)
        for _ in range(5):
            assert (await ask(Request([b"x" * 50]))).status == 200
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    run(work)


def test_pages_of_other_sites_are_not_answered():
    async def work(ask: Any) -> None:
        for mode, status in (("cors", 403), ("no-cors", 403), ("navigate", 200)):
            request = Request(sec_fetch_site="cross-site", sec_fetch_mode=mode, leaves=True)
            assert (await ask(request)).status == status
        assert (await ask(Request(sec_fetch_site="same-origin", sec_fetch_mode="cors"))).status == 200

    run(work)
