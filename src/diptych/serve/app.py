"""The service over HTTP: routes, and how requests and errors read."""

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic_core
from fastapi import FastAPI, Query, Request, Response
from fastapi.routing import APIRoute

from diptych.serve.answers import answer_errors_in_one_shape, describe
from diptych.serve.gallery import LARGE, THUMBNAIL
from diptych.serve.guard import App, Guard
from diptych.serve.json_body import read_json
from diptych.serve.libraries import Libraries
from diptych.serve.library_routes import add_library_routes
from diptych.serve.messages import (
    ClassifyAnswer,
    ClassifyRequest,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    ErrorAnswer,
    HealthAnswer,
    Image,
    Model,
    ModelsAnswer,
    SearchAnswer,
    SearchRequest,
    Text,
    UnreadText,
    WhyRequest,
    error_responses,
)
from diptych.serve.refusals import RefusedError
from diptych.serve.service import Picture, Service, TextFeatures, together
from diptych.serve.tickets import Tickets
from diptych.version import __version__

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "It is the one that the client has, by its ETag."},
}
Seconds = Annotated[float | None, Query(ge=0, le=1e6, description="Seconds into a video.")]
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The counters.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_ABOUT = """Pictures and words in one space. A picture goes in as a data URL or base64, within JSON.

Every error has one shape: `{"error": {"message", "type", "param", "code"}}`, and its message says what to do. 400 means
that what was sent cannot be used, 413 that it is too large, 429 that there is no room: wait as long as `Retry-After`
says. When the server has an API key, send `Authorization: Bearer KEY`."""


def create_app(
    service: Service, *, libraries: Libraries | None = None, api_key: str = "", hosts: Iterable[str] | None = None
) -> App:
    """The ASGI application.

    Args:
        service: what does the work; closed when the application ends.
        libraries: what the page shows.
        api_key: asked for with each request; empty asks for none.
        hosts: names by which the server may be called; None is any.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="diptych",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # these two pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to the address that it sees itself, which behind a proxy is another
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        responses=error_responses(401, 403, 421, 503),
    )
    app.state.short = service.short
    app.router.route_class = _JsonRoute
    answer_errors_in_one_shape(app)
    _add_model_routes(app, service)
    tickets = Tickets() if api_key else None
    _add_search_routes(app, service)
    add_library_routes(app, service, libraries or Libraries(service, ()), tickets)
    _add_watching_routes(app, service)
    _add_page(app)
    describe(app, needs_key=bool(api_key))
    return Guard(app, limits=service.limits, monitor=service.monitor, api_key=api_key, hosts=hosts, tickets=tickets)


def _add_model_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/embeddings", response_model=EmbeddingsAnswer, responses=error_responses(400, 404, 408, 413, 429))
    async def embeddings(asked: EmbeddingsRequest) -> Response:
        """Features of texts and pictures, as OpenAI's route of this name gives those of texts.

        All have unit length, so the dot product of two is their cosine; pictures and texts can be compared. A text of
        which the model reads nothing is refused: all such texts would have one and the same feature.
        """
        width = service.bundle.embed_dim
        if asked.model is not None and asked.model != service.name:
            sentence = f"{asked.model[:100]} is not here. This server has {service.name}."
            raise RefusedError(404, sentence, "model_not_found", "model")
        if asked.dimensions not in (None, width):
            raise RefusedError(
                400,
                f"dimensions must be {width}: the first numbers of a feature are no smaller feature. "
                f"Got {asked.dimensions}: leave it out.",
                "invalid",
                "dimensions",
            )
        if not asked.input:
            raise RefusedError(400, "input must hold at least one text or picture. It is empty.", "invalid", "input")
        features, of_texts = await _features(service, asked.input, truncate=bool(asked.truncate))
        answer = await service.short(_embeddings_json, features, asked.encoding_format, service.name, of_texts)
        return Response(answer, media_type="application/json")

    @app.get("/v1/models", responses=error_responses(429))
    async def models() -> ModelsAnswer:
        """The one model that this server has."""
        return ModelsAnswer(data=[_facts_of_model(service)])

    @app.get("/v1/models/{id:path}", responses=error_responses(404, 429))
    async def model(id: str) -> Model:
        """The same, asked for by its name."""
        if id != service.name:
            sentence = f"{id[:100]} is not here. This server has {service.name}."
            raise RefusedError(404, sentence, "model_not_found", "model")
        return _facts_of_model(service)

    @app.post("/classify", responses=error_responses(400, 408, 413, 429))
    async def classify(asked: ClassifyRequest) -> ClassifyAnswer:
        """Which of some labels fits a picture best. A label is any words; no training is needed."""
        shares = await service.classify(Picture(asked.image), asked.labels, asked.templates)
        labels = [{"label": label, "probability": share} for label, share in shares.probabilities.items()]
        unread = list(map(UnreadText.of, shares.unread))
        return ClassifyAnswer.model_validate({"model": service.name, "labels": labels, "unread": unread})


def _add_search_routes(app: FastAPI, service: Service) -> None:
    @app.post("/search", responses=error_responses(400, 404, 408, 413, 429))
    async def search(asked: SearchRequest) -> SearchAnswer:
        """The pictures of the library that are nearest to words, to a picture, or to one that was found."""
        found = await service.search(
            text=asked.text,
            picture=None if asked.image is None else Picture(asked.image),
            like=asked.like,
            without=asked.without,
            count=asked.count,
            filters=asked.filters.for_library(),
        )
        unread = list(map(UnreadText.of, found.unread))
        return SearchAnswer.model_validate({"model": service.name, "results": found.pictures, "unread": unread})

    @app.get("/library/{id}/thumbnail", response_class=Response, responses=_JPEG | error_responses(404, 429))
    async def thumbnail(id: str, request: Request, time: Seconds = None) -> Response:
        """A small copy of a picture of the library; of a video the frame at a time, or its middle."""
        return _jpeg(request, await service.draw(id, THUMBNAIL, time))

    @app.get("/library/{id}/picture", response_class=Response, responses=_JPEG | error_responses(404, 429))
    async def picture(id: str, request: Request, time: Seconds = None) -> Response:
        """A large copy of a picture of the library."""
        return _jpeg(request, await service.draw(id, LARGE, time))

    @app.post("/library/{id}/why", response_class=Response, responses=_JPEG | error_responses(400, 404, 408, 413, 429))
    async def why(id: str, asked: WhyRequest, request: Request) -> Response:
        """A large copy of a picture that was found, under a map of the part of it that speaks for some words."""
        return _jpeg(request, await service.why(id, asked.text))


def _add_watching_routes(app: FastAPI, service: Service) -> None:
    failing: dict[int | str, Any] = {
        503: {"description": "The model does not answer as it should.", "model": HealthAnswer | ErrorAnswer}
    }

    @app.get("/health", response_model=HealthAnswer, responses=failing)
    async def health() -> Response:
        """Whether the model answers as it did at the start: it is run, at most once a second. Needs no key."""
        fault = await service.health()
        answer = HealthAnswer(
            status="failing" if fault else "ok",
            model=service.name,
            library=service.pictures_found,
            indexing=any(gallery.is_indexing for gallery in service.galleries),
            reason=fault or None,
        )
        return Response(answer.model_dump_json(), 503 if fault else 200, media_type="application/json")

    @app.get("/metrics", response_class=Response, responses=_TEXT | error_responses(429))
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.monitor.text(), media_type="text/plain")


def _add_page(app: FastAPI) -> None:
    folder = resources.files("diptych.serve") / "page"
    # No name that a client sends touches the disk.
    files = {file.name: file.read_bytes() for file in folder.iterdir() if Path(file.name).suffix in _KINDS}

    def add(path: str, name: str) -> None:
        @app.get(path, include_in_schema=False)
        async def page() -> Response:
            return Response(files[name], media_type=_KINDS[Path(name).suffix], headers={"Cache-Control": "no-cache"})

    add("/", "index.html")
    for name in files:
        add(f"/page/{name}", name)


class _JsonRoute(APIRoute):
    """A route whose body is read within bounds and off the event loop, before FastAPI checks what it holds."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            if self.body_field is not None:
                _check_kind(request)
                # From here on FastAPI finds it read.
                request._json = await request.app.state.short(read_json, await request.body())
            return await handle(request)

        return read_and_handle


def _check_kind(request: Request) -> None:
    """Refuse a body that is said to be no plain JSON. It would be a form, too, that a page of another site can send."""
    kind, _, options = request.headers.get("content-type", "").lower().partition(";")
    is_json = kind.strip() == "application/json" or (kind.startswith("application/") and kind.strip().endswith("+json"))
    if not is_json or ("charset" in options and "utf-8" not in options):
        raise RefusedError(
            400, "the body must be a JSON object in UTF-8, sent with Content-Type: application/json.", "invalid_json"
        )
    packing = request.headers.get("content-encoding", "identity")
    if packing.lower() != "identity":
        sentence = f"a body must come as it is, without Content-Encoding. Got {packing[:40]!r}: do not pack it."
        raise RefusedError(400, sentence, "content_encoding")


def _facts_of_model(service: Service) -> Model:
    return Model(
        id=service.name,
        created=service.started,
        dimensions=service.bundle.embed_dim,
        image_size=service.bundle.preprocess.image_size,
        context_length=service.bundle.tokenizer.context_length,
    )


def _jpeg(request: Request, data: bytes) -> Response:
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    # To be asked for each time: a picture may be deleted, and a browser's next user may have no key.
    headers = {"Cache-Control": "private, no-cache", "ETag": tag}
    known = request.headers.get("if-none-match", "")
    if tag in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)


async def _features(
    service: Service, inputs: Sequence[str | Text | Image], *, truncate: bool
) -> tuple[np.ndarray, TextFeatures]:
    """[N, D] of texts and pictures in the order they came, and what the texts are by themselves."""
    pictures = {i: Picture(one.image, f"input[{i}]") for i, one in enumerate(inputs) if isinstance(one, Image)}
    texts = {
        i: one.text if isinstance(one, Text) else one for i, one in enumerate(inputs) if not isinstance(one, Image)
    }
    of_pictures, of_texts = await together(
        service.image_features(list(pictures.values())),
        service.text_features(list(texts.values()), truncate=truncate, must_be_read=True),
    )
    features = np.empty((len(inputs), service.bundle.embed_dim), np.float32)
    features[list(pictures)] = of_pictures
    features[list(texts)] = of_texts.features
    return features, of_texts


def _embeddings_json(features: np.ndarray, encoding: str | None, model: str, of_texts: TextFeatures) -> bytes:
    if encoding == "base64":
        rows: list[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in features]
    else:
        rows = features.tolist()
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    usage = {"prompt_tokens": of_texts.tokens, "total_tokens": of_texts.tokens}
    answer = {"object": "list", "data": data, "model": model, "usage": usage}
    if of_texts.unread:  # otherwise the answer is OpenAI's to the key
        answer["unread"] = list(map(UnreadText.of, of_texts.unread))
    return pydantic_core.to_json(answer)
