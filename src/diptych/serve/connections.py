"""Connections as uvicorn holds them, with what it leaves open: how long the head of a request may take, how long an
answer may lie that its client does not fetch, and how a refusal reads when there is no request at all.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from diptych.serve.guard import HEADERS
from diptych.serve.refusals import RefusedError

HEAD_SECONDS = 10.0  # for the head of a request to arrive, and for a connection to be without one
MOST_CONNECTIONS = 640  # systems let a process have 1,024 files, and pictures and the index need some
_SLOW = 16_000  # bytes a second: who fetches an answer more slowly does not get to its end


class Connection(H11Protocol):
    """One connection. It is closed when no request began on it between two looks, `HEAD_SECONDS` apart; and cut when an
    answer lies in memory that its client hardly fetches: neither limits of bodies nor of requests count it.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._seen: Any = None  # the request of the last look
        self._left = 0  # bytes of its answer that were not fetched then
        self._idle_since = self.loop.time()
        self._next_look: asyncio.TimerHandle = self.loop.call_later(HEAD_SECONDS, self._look)

        if len(self.connections) > MOST_CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, Connection) and one is not self and one.is_idle]
            min(idle, key=lambda one: one._idle_since, default=self).transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether it is without a request that is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the shape of all refusals."""
        del msg
        body = RefusedError(400, "what came must be a request of HTTP/1.1, and is none.", "invalid_http").body()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = h11.Response(status_code=400, headers=list((headers | HEADERS).items()), reason=b"Bad Request")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _look(self) -> None:
        left = self.transport.get_write_buffer_size()
        if self.cycle is self._seen:
            if left and self._left and left > self._left - _SLOW * HEAD_SECONDS:
                self.transport.abort()  # closing would wait for the client
                return
            if self.is_idle and not left:
                self.transport.close()
                return
        self._seen, self._left = self.cycle, left
        self._next_look = self.loop.call_later(HEAD_SECONDS, self._look)
