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
        path = request.scope["path"][:100]  # request.url would be made of the Host header, which may be no host
        sentences = {
            404: f"{path} is not here. See /openapi.json for what is.",
            405: f"{path} does not take {request.method[:20]}. See /openapi.json for what it takes.",
        }
        codes = {404: "not_found", 405: "method_not_allowed"}
        sentence = sentences.get(error.status_code, f"{error.detail}.")
        refusal = RefusedError(error.status_code, sentence, codes.get(error.status_code, "invalid"))
        response = _response(refusal)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(DiptychError, of_ours)
    app.add_exception_handler(TimeoutError, of_ours)
    app.add_exception_handler(RequestValidationError, of_shape)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, of_ours)


def _response(refusal: RefusedError) -> Response:
    return Response(refusal.body(), refusal.status, headers=refusal.headers(), media_type="application/json")


# By pydantic's names for what is wrong. What it says itself would name our classes.
_RULES = {
    "missing": "must be given",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length:,} parts",
    "string_too_long": "must have at most {max_length:,} characters",
    "string_pattern_mismatch": "must be like 2023-06-30, 2023-06 or 2023",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than_equal": "must be at most {le:,}",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
_INPUT = 'input must be a text, {"image": PICTURE}, or a list of these. Send text as text: token numbers are not read.'


def _shape_refusal(errors: Sequence[Any]) -> RefusedError:
    """The first thing that does not fit the description, as a sentence. What was sent is not repeated."""
    # A misspelt option is the cause of the one that is missing.
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    place = list(first["loc"][1:])
    if not place:
        return RefusedError(400, "the body must be a JSON object.", "invalid_json")
    if place[0] == "input" and len(place) > 1:
        del place[2:3]  # which kind of input it was meant to be
        if len(place) < 3:
            return RefusedError(400, _INPUT, "invalid", "input")
    param = _shown(place[0])
    for part in place[1:]:
        param += f"[{part}]" if isinstance(part, int) else f".{_shown(part)}"
    if first["type"] == "extra_forbidden":
        return RefusedError(400, f"{param} is not an option. See /openapi.json for what is.", "invalid", param)
    rule = _RULES.get(first["type"], "must be as /openapi.json describes it")
    return RefusedError(400, f"{param} {rule.format(**first.get('ctx', {}))}.", "invalid", param)


def _shown(part: Any) -> str:
    """A part of a place, which a client may have made up."""
    text = str(part)
    return text if len(text) <= 40 and text.isprintable() else f"{text[:40]!r}"


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
