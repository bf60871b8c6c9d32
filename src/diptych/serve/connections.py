"""Connections as uvicorn holds them, with two things that it leaves open: how long the head of a request may take, and
how a refusal reads when there is no request at all.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from diptych.serve.guard import HEADERS
from diptych.serve.refusals import RefusedError

HEAD_SECONDS = 10.0  # for the head of a request to arrive, and for a connection to be without one


class Connection(H11Protocol):
    """One connection. It is closed when no request began on it between two looks, `HEAD_SECONDS` apart."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._seen: Any = None  # the request of the last look
        self._next_look: asyncio.TimerHandle = self.loop.call_later(HEAD_SECONDS, self._look)

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
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is self._seen:
            self.transport.close()
            return
        self._seen = self.cycle
        self._next_look = self.loop.call_later(HEAD_SECONDS, self._look)
