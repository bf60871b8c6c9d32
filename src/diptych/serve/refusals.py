"""Errors as a client gets them: on all routes the JSON shape of OpenAI's API, with the sentences of DiptychError."""

import json

from diptych.errors import BusyError, DiptychError, ImageError, TextError, WeightsError

_LONGEST = 600  # characters of a message


class RefusedError(DiptychError):
    """A request that is not answered as asked.

    Args:
        status: of HTTP.
        message: one sentence: what must hold, what came, what to do.
        code: short and stable, for programs.
        param: the part of the request that it is about.
        retry_after: whole s; 0 says nothing.
    """

    def __init__(self, status: int, message: str, code: str, param: str | None = None, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> bytes:
        """{"error": {"message", "type", "param", "code"}}"""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else kinds.get(self.status, "invalid_request_error")
        error = {"message": _one_line(str(self)), "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def headers(self) -> dict[str, str]:
        headers = {"retry-after": str(self.retry_after)} if self.retry_after else {}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def _one_line(text: str) -> str:
    """A sentence may quote what a client sent: it stays a line, and short."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"


def refusal_of(error: Exception) -> RefusedError:
    """Any error as a refusal. What is not the client's to cure says no more than that."""
    match error:
        case RefusedError():
            return error
        case BusyError():
            return RefusedError(429, str(error), "busy", retry_after=error.retry_after)
        case ImageError():
            status = 413 if error.cause == "too large" else 400
            return RefusedError(status, str(error), "image_" + error.cause.replace(" ", "_"))
        case TextError():
            return RefusedError(400, str(error), "text_invalid")
        case DiptychError() if not isinstance(error, WeightsError):
            return RefusedError(400, str(error), "invalid")
        case TimeoutError():
            return RefusedError(503, "no answer in time. Try again later.", "timeout", retry_after=1)
        case _:
            return RefusedError(500, f"the server failed ({type(error).__name__}). Its log tells more.", "failed")
