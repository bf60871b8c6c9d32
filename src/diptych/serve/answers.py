"""Errors of the application in the one shape, and its OpenAPI description put right."""

import functools
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from diptych.errors import DiptychError
from diptych.serve.refusals import RefusedError, refusal_of


def answer_errors_in_one_shape(app: FastAPI) -> None:
    """Whatever goes wrong in a route becomes the JSON of `RefusedError`."""

    async def of_ours(_: Request, error: Exception) -> Response:
        return _response(refusal_of(error))

    async def of_shape(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _response(_shape_refusal(error.errors()))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentences = {
            404: f"{request.url.path[:100]} is not here. See /openapi.json for what is.",
            405: f"{request.url.path[:100]} does not take {request.method[:20]}. See /openapi.json for what it takes.",
            400: "the body must be JSON. It cannot be read as such.",
        }
        codes = {404: "not_found", 405: "method_not_allowed", 400: "invalid_json"}
        sentence = sentences.get(error.status_code, f"{error.detail}.")
        refusal = RefusedError(error.status_code, sentence, codes.get(error.status_code, "invalid"))
        response = _response(refusal)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(DiptychError, of_ours)
    app.add_exception_handler(RequestValidationError, of_shape)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, of_ours)


def _response(refusal: RefusedError) -> Response:
    return Response(refusal.body(), refusal.status, headers=refusal.headers(), media_type="application/json")


def _shape_refusal(errors: Sequence[Any]) -> RefusedError:
    """The first thing that does not fit the description, as a sentence. What was sent is not repeated."""
    # A misspelt option is the cause of the one that is missing.
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        where = f"{first['ctx']['error']} at character {first['loc'][-1]}"
        return RefusedError(400, f"the body must be JSON: {where}.", "invalid_json")
    place = [part for part in first["loc"] if part != "body"]
    if not place or first["loc"][0] != "body":
        return RefusedError(
            400, "the body must be a JSON object, sent with Content-Type: application/json.", "invalid_json"
        )
    param = str(place[0])
    if param == "input" and first["type"] != "extra_forbidden":  # the many forms it may have would each complain
        return RefusedError(400, 'input must be a text, {"image": PICTURE}, or a list of these.', "invalid", "input")
    for part in place[1:]:
        param += f"[{part}]" if isinstance(part, int) else f".{part}"
    if first["type"] == "extra_forbidden":
        return RefusedError(400, f"{param} is not an option. See /openapi.json for what is.", "invalid", param)
    reason = first["msg"].removeprefix("Value error, ")
    return RefusedError(400, f"{param}: {reason[:1].lower()}{reason[1:]}.", "invalid", param)


def describe(app: FastAPI, *, needs_key: bool) -> None:
    """Let the description be without the 422 that FastAPI would add: what does not fit is a 400 here."""
    plain = app.openapi

    @functools.cache
    def openapi() -> dict[str, Any]:
        schema = plain()
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        if needs_key:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
            schema["paths"]["/health"]["get"]["security"] = []
        return schema

    app.openapi = openapi
