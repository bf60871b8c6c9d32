import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from diptych.errors import BusyError
from diptych.serve import arrivals as arrivals_module
from diptych.serve.arrivals import Arrivals
from diptych.serve.limits import Limits
from diptych.serve.refusals import RefusedError

LIMITS = Limits(body_bytes=100, bodies_in_hand=150, requests_in_hand=2, seconds=5)


def sender(*chunks: bytes, stalls: bool = False, leaves: bool = False) -> Callable[[], Awaitable[Any]]:
    """What a client sends, chunk by chunk; then it says no more, or hangs up, or is done."""
    waiting = list(chunks)

    async def receive() -> Any:
        await asyncio.sleep(0)
        if waiting:
            chunk = waiting.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting) or stalls or leaves}
        if leaves:
            return {"type": "http.disconnect"}
        return await asyncio.sleep(30)

    return receive


async def stalled(arrivals: Arrivals, bodies: Sequence[bytes]) -> list[asyncio.Task[Any]]:
    """Begun, and with no more to come."""
    tasks = []
    for body in bodies:
        tasks.append(asyncio.create_task(arrivals.read(sender(body, stalls=True))))
        await asyncio.sleep(0.02)
    return tasks


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_body_is_read_to_its_end_and_counted_until_it_is_let_go():
    async def work() -> None:
        arrivals = Arrivals(LIMITS)
        assert await arrivals.read(sender(b"ab", b"", b"cd")) == b"abcd"
        assert arrivals.bytes == 4
        assert await arrivals.read(sender(b"ab", leaves=True)) is None
        with pytest.raises(RefusedError, match="at most 100 bytes") as refused:
            await arrivals.read(sender(b"a" * 60, b"a" * 60))
        assert refused.value.status == 413
        assert arrivals.bytes == 4
        arrivals.let_go(4)
        assert arrivals.bytes == 0

    asyncio.run(work())


def test_a_body_has_a_time():
    async def work() -> None:
        arrivals = Arrivals(Limits(seconds=0.05))
        with pytest.raises(RefusedError, match=r"must arrive within 0\.05 s") as refused:
            await arrivals.read(sender(b"a", stalls=True))
        assert (refused.value.status, arrivals.bytes) == (408, 0)

    asyncio.run(work())


def test_the_slowest_gives_way_when_no_other_can_arrive(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrivals_module, "_GRACE", 0.01)

    async def work() -> None:
        arrivals = Arrivals(LIMITS)
        first, second = await stalled(arrivals, [b"a" * 30, b"a"])
        assert await arrivals.read(sender(b"abc")) == b"abc"
        with pytest.raises(RefusedError, match=r"faster than 16,000 bytes a second while others wait") as refused:
            await second
        assert refused.value.status == 408
        assert not first.done()
        assert arrivals.bytes == 30 + 3
        await ended([first])
        assert arrivals.bytes == 3

    asyncio.run(work())


def test_bytes_that_stand_still_give_way_to_those_that_move(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrivals_module, "_GRACE", 0.01)

    async def work() -> None:
        arrivals = Arrivals(LIMITS)
        [first] = await stalled(arrivals, [b"a" * 90])
        assert await arrivals.read(sender(b"b" * 45, b"b" * 45)) == b"b" * 90
        assert arrivals.bytes == 90
        with pytest.raises(RefusedError, match="while others wait"):
            await first

    asyncio.run(work())


def test_who_is_not_slow_is_not_sent_away():
    async def work() -> None:
        arrivals = Arrivals(LIMITS)
        tasks = await stalled(arrivals, [b"a", b"a"])  # within their grace
        with pytest.raises(BusyError, match="as many requests arrive as there is room for"):
            await arrivals.read(sender(b"abc"))
        await ended(tasks[:1])
        assert await arrivals.read(sender(b"a" * 100)) == b"a" * 100  # being answered
        with pytest.raises(BusyError, match="fill the room there is"):
            await arrivals.read(sender(b"a" * 75))
        await ended(tasks)

    asyncio.run(work())


def test_a_client_that_is_called_off_is_no_timeout():
    async def work() -> None:
        arrivals = Arrivals(LIMITS)
        [task] = await stalled(arrivals, [b"a"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert arrivals.bytes == 0

    asyncio.run(work())
