"""Bodies of requests on their way in: read to their end, counted, and none so slow that others find no room.

A body that arrives takes no place of the requests that are answered. When there is no room for another one, the slowest
gives way, if it is slower than any client that means it.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from diptych.errors import BusyError
from diptych.serve.limits import Limits
from diptych.serve.refusals import RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_SLOW = 16_000  # bytes a second, below which a body may have to give way
_GRACE = 1.0  # s in which none has to


class Arrivals:
    """Reads bodies.

    Args:
        limits: of bytes, time and number.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._arriving: list[_Body] = []
        self.bytes = 0  # of all bodies in hand: those that arrive, and those that are answered

    async def read(self, receive: Receive) -> bytes | None:
        """A body, counted as it comes, since its length may not be told; None when its sender left.

        Its bytes stay counted until `let_go`.

        Raises:
            RefusedError: it is too large or too slow.
            BusyError: there is no room.
        """
        loop = asyncio.get_running_loop()
        body = _Body(asyncio.current_task(), loop.time())
        if len(self._arriving) >= self._limits.requests_in_hand and not self._has_room_made(body):
            raise BusyError("as many requests arrive as there is room for. Try again later.")
        self._arriving.append(body)
        held = 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                if await self._is_whole(receive, body):
                    held = len(body.data)
                    return bytes(body.data)
                return None
        except TimeoutError:
            sentence = f"a request must arrive within {self._limits.seconds:g} s. Try again later."
            raise RefusedError(408, sentence, "timeout", retry_after=1) from None
        except asyncio.CancelledError:
            if not body.gives_way:
                raise
            body.task.uncancel()
            sentence = f"a request must arrive faster than {_SLOW:,} bytes a second while others wait. Try again later."
            raise RefusedError(408, sentence, "timeout", retry_after=1) from None
        finally:
            self._drop(body, keep=held)

    def let_go(self, count: int) -> None:
        """So many bytes are no longer in hand."""
        self.bytes -= count

    async def _is_whole(self, receive: Receive, body: "_Body") -> bool:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            chunk = message.get("body", b"")
            if len(body.data) + len(chunk) > self._limits.body_bytes:
                raise too_large(self._limits)
            while self.bytes + len(chunk) > self._limits.bodies_in_hand:
                if not self._has_room_made(body):
                    raise BusyError("the bodies of all requests fill the room there is. Try again later.")
            body.data += chunk
            self.bytes += len(chunk)
            if not message.get("more_body", False):
                return True

    def _has_room_made(self, newcomer: "_Body") -> bool:
        """Let the slowest give way. Whether there was one that is slow."""
        now = asyncio.get_running_loop().time()
        ages = {one: now - one.since for one in self._arriving if one is not newcomer}
        slow = [one for one, age in ages.items() if age > _GRACE and len(one.data) < _SLOW * age]
        if not slow:
            return False
        slowest = min(slow, key=lambda one: len(one.data) / ages[one])
        slowest.gives_way = True
        slowest.task.cancel()
        self._drop(slowest)
        return True

    def _drop(self, body: "_Body", *, keep: int = 0) -> None:
        if body in self._arriving:
            self._arriving.remove(body)
        self.bytes -= len(body.data) - keep
        body.data = bytearray()


@dataclass(eq=False)
class _Body:
    task: Any  # the asyncio.Task that reads it
    since: float  # s, of the loop's clock
    data: bytearray = field(default_factory=bytearray)
    gives_way: bool = False


def too_large(limits: Limits) -> RefusedError:
    """What a sender of too much is told."""
    sentence = f"a request must have at most {limits.body_bytes:,} bytes. Send less, or smaller pictures."
    return RefusedError(413, sentence, "too_large")
