"""Routes of the page: what its libraries show, what is kept of them, and files as they are."""

from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse

from diptych.serve.asking import Sought
from diptych.serve.libraries import Libraries, read_on
from diptych.serve.library_messages import (
    AlbumFacts,
    AlbumRequest,
    AlikeAnswer,
    AlikeRequest,
    HiddenRequest,
    LibrariesAnswer,
    LibraryFacts,
    OfLibrary,
    PathsAnswer,
    PictureAnswer,
    PictureRequest,
    PicturesRequest,
    QueryAnswer,
    QueryRequest,
    SaveRequest,
    ShelfAnswer,
    Shelved,
    SpotsAnswer,
    TermOfQuery,
    TrashAnswer,
    ViewAnswer,
    ViewRequest,
    ZipAnswer,
)
from diptych.serve.messages import UnreadText, error_responses
from diptych.serve.service import Service
from diptych.serve.tickets import Tickets

_PATHS = ("thumbnail", "picture", "original")
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The part that Range asks for.", "content": {"*/*": {}}},
}
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Paths, one a line.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_ASKED = error_responses(400, 404, 408, 413, 429)


def add_library_routes(app: FastAPI, service: Service, libraries: Libraries, tickets: Tickets | None) -> None:
    """Add them to an application.

    Args:
        app: the application.
        service: the model.
        libraries: what is shown.
        tickets: stand in the addresses of pictures where an API key is asked for.
    """

    def opened(facts: dict[str, Any]) -> dict[str, Any]:
        paths = {name: facts.get(name) or f"/library/{facts['id']}/{name}" for name in _PATHS}
        if tickets is not None:
            paths = {name: tickets.added(path, facts["id"]) for name, path in paths.items()}
        return {**facts, **paths}

    _add_views(app, service, libraries, opened)
    _add_questions(app, libraries)
    _add_shelf(app, service, libraries)
    _add_files(app, service, libraries, tickets)

    @app.post("/library/alike", responses=_ASKED)
    async def alike(asked: AlikeRequest) -> AlikeAnswer:
        """Groups of pictures that look the same. All pairs are compared beside other work: ask again until ready."""
        ask = (libraries.groups, asked.library, asked.threshold, asked.start, asked.count)
        total, groups = await service.in_library(*ask)
        told = [[opened(facts) for facts in group] for group in groups]
        return AlikeAnswer.model_validate({"ready": total >= 0, "total": max(0, total), "groups": told})


def _add_views(app: FastAPI, service: Service, libraries: Libraries, opened: Any) -> None:
    @app.get("/library", responses=error_responses(429))
    async def names() -> LibrariesAnswer:
        """The libraries of this server, and what may be done with them."""
        told = []
        for browser in libraries.browsers:
            gallery = browser.gallery
            done, of = gallery.progress or (0, 0)
            version, pictures, is_there = await service.in_library(browser.state)
            told.append(
                LibraryFacts(
                    name=browser.name,
                    pictures=pictures,
                    version=version,
                    is_there=is_there,
                    indexing=gallery.is_indexing,
                    done=done,
                    of=of,
                    folder=str(browser.library.folder) if libraries.is_local else None,
                )
            )
        return LibrariesAnswer(libraries=told, can_trash=libraries.can_trash, is_local=libraries.is_local)

    @app.post("/library/view", responses=_ASKED)
    async def view(asked: ViewRequest) -> ViewAnswer:
        """Pictures of a library: all of them by date, or those nearest to what is looked for, through filters."""
        found, unread = await libraries.view(asked.library, asked.asked(), _sought(asked))
        browser = libraries.named(asked.library)
        pictures = await service.in_library(browser.facts, found, asked.start, asked.count)
        liked = await service.in_library(browser.facts_of, asked.like) if asked.like else None
        placed = await service.in_library(browser.placed, found, asked.find) if asked.find else None
        spread = await service.in_library(browser.spread, found, asked.asked()) if asked.spread else None
        return ViewAnswer.model_validate(
            {
                "version": found.version,
                "total": len(found.rows),
                "start": asked.start,
                "pictures": list(map(opened, pictures)),
                "spread": spread,
                "unread": list(map(UnreadText.of, unread)),
                "liked": liked and opened(liked),
                "found": placed and {"place": placed[0], "picture": opened(placed[1])},
            }
        )

    @app.post("/library/spots", responses=_ASKED)
    async def spots(asked: ViewRequest) -> SpotsAnswer:
        """Where the pictures of a view were taken; near ones are joined."""
        found, _ = await libraries.view(asked.library, asked.asked(), _sought(asked))
        told: list[list[float | str]] = [
            [latitude, longitude, count, opened({"id": id_})["thumbnail"]]
            for latitude, longitude, count, id_ in await libraries.spots(asked.library, found)
        ]
        return SpotsAnswer(spots=told)


def _add_questions(app: FastAPI, libraries: Libraries) -> None:
    @app.post("/library/query", responses=_ASKED)
    async def query(asked: QueryRequest) -> QueryAnswer:
        """How a query is read, and which of its words the model does not know."""
        terms, fault = await libraries.read_query(asked.library, asked.query)
        told = [
            TermOfQuery(weight=term.weight, text=term.item, is_picture=term.is_picture, unknown=unknown)
            for term, unknown in terms
        ]
        return QueryAnswer(terms=told, fault=fault)

    @app.post("/library/pictures", responses=error_responses(400, 408, 413, 429))
    async def picture(asked: PictureRequest) -> PictureAnswer:
        """A picture to search with becomes a name that a link can hold. It is not kept, its features are."""
        return PictureAnswer(picture=await libraries.asking.keep(asked.image))


def _add_shelf(app: FastAPI, service: Service, libraries: Libraries) -> None:
    def told(library: str) -> ShelfAnswer:
        browser = libraries.named(library)
        _, kept = browser.shelf.read()
        return ShelfAnswer(
            saved=[Shelved(name=name, link=link) for name, link in kept.saved.items()],
            albums=[AlbumFacts(name=name, pictures=browser.how_many(files)) for name, files in kept.albums.items()],
            hidden=browser.how_many(kept.hidden),
        )

    @app.post("/library/shelf", responses=_ASKED)
    async def shelf(asked: OfLibrary) -> ShelfAnswer:
        """Searches and albums that are kept, and how many pictures are hidden."""
        return await service.in_library(told, asked.library)

    @app.post("/library/shelf/search", responses=_ASKED)
    async def save(asked: SaveRequest) -> ShelfAnswer:
        """Keep a search."""
        kept = libraries.named(asked.library).shelf
        await service.in_library(kept.save_search, asked.name, asked.link)
        return await service.in_library(told, asked.library)

    @app.post("/library/shelf/album", responses=_ASKED)
    async def album(asked: AlbumRequest) -> ShelfAnswer:
        """Put pictures into an album, take them out, or forget it."""
        browser = libraries.named(asked.library)

        def change() -> ShelfAnswer:
            if asked.forget:
                browser.shelf.forget_album(asked.name)
            else:
                add, remove = browser.known_by(asked.add), browser.paths_of(asked.remove)
                browser.shelf.change_album(asked.name, add=add, remove=remove)
            return told(asked.library)

        return await service.in_library(change)

    @app.post("/library/shelf/hidden", responses=_ASKED)
    async def hide(asked: HiddenRequest) -> ShelfAnswer:
        """Let pictures not be shown any more, or again. Nothing happens to their files."""
        browser = libraries.named(asked.library)

        def change() -> ShelfAnswer:
            hide, show = browser.known_by(asked.hide), browser.paths_of(asked.show)
            browser.shelf.change_hidden(hide=hide, show=show)
            return told(asked.library)

        return await service.in_library(change)


def _add_files(app: FastAPI, service: Service, libraries: Libraries, tickets: Tickets | None) -> None:
    @app.get("/library/{id}/original", response_class=Response, responses=_FILE | error_responses(404, 416, 429))
    async def original(id: str, request: Request, download: bool = Query(False)) -> Response:
        """A file as it is, with all that it tells; of a part that is asked for at most 4 MB at a time."""
        asked = request.headers.get("range", "")
        status, headers, blocks = await service.in_library(lambda: libraries.original(id, asked, as_file=download))
        return StreamingResponse(read_on(blocks), status, headers=headers)

    @app.post("/library/zip", responses=_ASKED)
    async def make_zip(asked: PicturesRequest) -> ZipAnswer:
        """Pictures as one zip: where to fetch it."""
        token = await service.in_library(libraries.make_zip, asked.library, asked.ids, asked.album)
        path = f"/library/{token}/zip"
        return ZipAnswer(path=path if tickets is None else tickets.added(path, token))

    @app.get("/library/{id}/zip", response_class=Response, responses=_FILE | error_responses(404, 429))
    async def fetch_zip(id: str) -> Response:
        """The zip, made while it is sent."""
        headers = {"Content-Disposition": 'attachment; filename="pictures.zip"'}
        return StreamingResponse(read_on(libraries.zip(id)), media_type="application/zip", headers=headers)

    @app.post("/library/paths", responses=_ASKED)
    async def paths(asked: PicturesRequest) -> PathsAnswer:
        """Where pictures lie, or those of an album."""
        return PathsAnswer(paths=await service.in_library(libraries.paths, asked.library, asked.ids, asked.album))

    @app.post("/library/trash", responses=_ASKED | error_responses(403))
    async def trash(asked: PicturesRequest) -> TrashAnswer:
        """Move pictures to the system's trash, where the server was started with --allow-trash."""
        moved, faults = await service.in_library(libraries.trash, asked.library, asked.ids)
        return TrashAnswer(moved=moved, faults=faults)

    @app.post("/library/{id}/reveal", responses=_ASKED | error_responses(403))
    async def reveal(id: str) -> dict[str, bool]:
        """Open the folder of a picture in the file manager of this machine."""
        await service.in_library(libraries.reveal, id)
        return {"done": True}


def _sought(asked: ViewRequest) -> Sought:
    return Sought(query=asked.query, like=asked.like, part=asked.part, picture=asked.picture)
