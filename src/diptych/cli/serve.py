"""`diptych serve`: the model over HTTP, with a page."""

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveFloat, PositiveInt
from cyclopts.validators import Number

from diptych.cli.console import one_line
from diptych.cli.keeping_step import keeping_step, leave
from diptych.cli.options import BY_MEASURE, EngineOptions
from diptych.errors import ConfigError, DataError, DiptychError, missing_extra
from diptych.files import shown
from diptych.weights.packaged import DEFAULT_MODEL

if TYPE_CHECKING:
    import uvicorn

    from diptych.search.library import Library
    from diptych.serve.browse import Browser
    from diptych.weights.dual_encoder import DualEncoder

KEY_VARIABLE = "DIPTYCH_API_KEY"
_SHORTEST_KEY = 8  # characters
ANY_NAME = "*"  # of --allow-host
_EVERYWHERE = ("0.0.0.0", "::", "")
_GRACE = 30  # s that requests in hand have to be answered after a stop was asked for
_LAST = 15  # s after that, when the process ends whatever is stuck


def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))] = 8000,
    model: str | None = None,
    engines: EngineOptions = BY_MEASURE,
    library: list[Path] | None = None,
    index: Path | None = None,
    watch: bool = False,
    allow_trash: bool = False,
    strip_location: bool = False,
    thumbnail_cache: PositiveInt = 1024,
    api_key_file: Path | None = None,
    no_key: bool = False,
    allow_host: list[str] | None = None,
    allow_url: list[str] | None = None,
    max_batch: PositiveInt = 32,
    batch_delay: NonNegativeInt = 5,
    max_waiting: PositiveInt = 128,
    max_body: PositiveInt = 20,
    max_pixels: PositiveInt = 50,
    timeout: PositiveFloat = 30,
) -> None:
    """Answer over HTTP: features, labels and search, with a page to try them. Needs: pip install 'diptych[serve]'.

    Requests are joined into batches. What is too large, or more than there is room for, is refused with a sentence.
    Nothing is sent anywhere. Ctrl-C or SIGTERM stops it once the requests in hand are answered.

    Parameters
    ----------
    host
        The address to listen at; 0.0.0.0 is all of this machine's, :: those of IPv6 as well. Others can reach all but
        127.0.0.1, ::1 and localhost, so these ask for an API key.
    port
        0 takes any that is free.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    library
        A folder of pictures to look through and search. It is indexed while the server already answers. May be given
        several times, for libraries of one model.
    index
        Where the index of the library lies; by default in the user's cache.
    watch
        Follow the folders: what is added, changed or removed is found without a restart.
    allow_trash
        Let the page move pictures to the system's trash. Nothing else removes a file.
    strip_location
        Tell nobody where pictures were taken: the page has no places, and JPEGs go out without theirs. Other files that
        tell one are not sent.
    thumbnail_cache
        Megabytes (2^20) of small pictures that are kept beside the index of each library, so that each is drawn once.
    api_key_file
        A file with a key that clients must send; the environment's DIPTYCH_API_KEY does the same.
    no_key
        Let whoever reaches the server use it without an API key.
    allow_host
        A further name by which the server may be called, e.g. that of a proxy; may be given several times. "*" is any,
        and lets the page of a stranger whose name was turned to this machine read what the server answers.
    allow_url
        Fetch pictures from https URLs of this host, e.g. "example.org" or "*.example.org"; may be given several times.
        Without it URLs are refused.
    max_batch
        Pictures in one forward pass; of texts, which cost less, eight times as many. 1 joins nothing.
    batch_delay
        Milliseconds that the first of a batch waits for others.
    max_waiting
        Pictures that may wait; beyond it clients are told to come again.
    max_body
        Megabytes (2^20) of one request.
    max_pixels
        Millions of pixels of one picture.
    timeout
        Seconds for one request to arrive, and again for its answer.
    """
    try:
        import uvicorn

        from diptych.serve.app import create_app
        from diptych.serve.browse import Browser
        from diptych.serve.connections import Connection
        from diptych.serve.libraries import Libraries
        from diptych.serve.service import Service
        from diptych.serve.urls import Fetcher
    except ImportError as error:
        raise missing_extra("serving", "serve") from error
    from diptych.serve.limits import Limits

    limits = Limits(
        body_bytes=max_body * 2**20,
        bodies_in_hand=8 * max_body * 2**20,
        pixels=max_pixels * 1_000_000,
        pictures=min(Limits.pictures, max_waiting),
        pictures_waiting=max_waiting,
        batch=max_batch,
        text_batch=1 if max_batch == 1 else 8 * max_batch,
        delay=batch_delay / 1000,
        seconds=timeout,
    )
    fetch = Fetcher(allow_url, max_bytes=limits.body_bytes, seconds=min(10.0, timeout)) if allow_url else None
    api_key = _api_key(api_key_file)
    names = _names(host, allow_host or [])
    if not (api_key or no_key):
        _check_only_here(host)
    with _listen(host, port) as listener, _quiet_libraries():
        folders = list(dict.fromkeys(library or ()))
        bundle, named, opened = _opened(folders, index, model, engines)
        name = Path(named).name
        told = {"thumbnail_bytes": thumbnail_cache * 2**20, "tells_places": not strip_location}
        browsers = [Browser(one, name=called, **told) for called, one in opened.items()]
        galleries = [browser.gallery for browser in browsers]
        first = galleries[0] if galleries else None
        service = Service(bundle, name=name, limits=limits, gallery=first, others=galleries[1:], fetch=fetch)
        is_local = _is_loopback(host) and names is not None
        may = {"can_trash": allow_trash, "is_local": is_local, "strip_location": strip_location}
        libraries = Libraries(service, browsers, **may)
        config = uvicorn.Config(
            create_app(service, libraries=libraries, api_key=api_key, hosts=names),
            http=Connection,
            log_level="error",
            access_log=False,  # what people search for is theirs
            server_header=False,
            proxy_headers=False,  # nothing here goes by where a request says that it comes from
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
        print(f"{one_line(name)} answers at {_shown(host, listener.getsockname()[1])} (Ctrl-C stops it)", flush=True)
        server = uvicorn.Server(config)
        # uvicorn repeats the signal that stopped it when all is done: then this is the end, and a good one.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        steps = [(one, browser.gallery) for one, browser in zip(opened.values(), browsers, strict=True)]
        threading.Thread(target=_warmed, args=(browsers,), name="diptych-warm", daemon=True).start()
        with _bounded_stop(server), keeping_step(steps, watch=watch, seconds=_LAST):
            server.run(sockets=[listener])


@contextlib.contextmanager
def _bounded_stop(server: "uvicorn.Server") -> Iterator[None]:
    """The process ends within a time of the stop that was asked for, whatever hangs: a disk, a resolver, a thread."""
    is_over = threading.Event()

    def watch() -> None:
        while not server.should_exit and not is_over.wait(0.1):
            pass
        if not is_over.wait(_GRACE + _LAST):
            leave(0)

    threading.Thread(target=watch, name="diptych-stop", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _opened(
    folders: list[Path], index: Path | None, model: str | None, engines: EngineOptions
) -> "tuple[DualEncoder, str, dict[str, Library]]":
    """The model, what it is called, and the libraries by names of their own."""
    if not folders:
        return engines.load(model, many=True), model or DEFAULT_MODEL, {}
    if index is not None and len(folders) > 1:
        raise ConfigError(f"--index goes with one library. Got {len(folders)}: leave it out.")
    from diptych.cli.indexing import IndexOptions, model_of
    from diptych.search.library import Library

    # An index knows its model.
    bundle, named = model_of(folders[0], IndexOptions(model=model, index=index, engines=engines), many=True)
    opened: dict[str, Library] = {}
    for folder in folders:
        library = Library.open(folder, bundle, index=index, model=named)
        name = shown(library.folder.name) or shown(library.folder)
        opened[name if name not in opened else shown(library.folder)] = library
    return bundle, named, opened


def _warmed(browsers: "list[Browser]") -> None:
    """What is known of the libraries is read before somebody waits for it."""
    for browser in browsers:
        with contextlib.suppress(DiptychError):  # it is said to who asks
            browser.warm()


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """What Pillow and others have to say of a stranger's file is nothing for the terminal of who runs the server."""
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def _names(host: str, allowed: list[str]) -> list[str] | None:
    """Names by which the server may be called; None is any."""
    if ANY_NAME in allowed:
        return None
    address = _as_called(host.partition("%")[0] or "0.0.0.0")
    own = [socket.gethostname().lower()] if address in _EVERYWHERE else []
    return ["localhost", "127.0.0.1", "::1", address, *own, *map(_as_called, allowed)]


def _as_called(host: str) -> str:
    """A name or an address as browsers send it."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.strip("[]")))
    try:
        name = host.rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not name or any(mark in name for mark in ":/*@ "):
        raise ConfigError(f"a host must be a name or an address, without port or path. Got {host!r}.")
    return name


def _shown(host: str, port: int) -> str:
    """An address that a browser opens."""
    if host in _EVERYWHERE:
        return f"http://localhost:{port}/ and this machine's addresses"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _api_key(file: Path | None) -> str:
    key = os.environ.get(KEY_VARIABLE, "")
    where = KEY_VARIABLE
    if file is not None:
        where = str(file)
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} must be a text file with the API key, and cannot be read: {error}.") from None
    if (key or file) and not (len(key) >= _SHORTEST_KEY and key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(f"the API key in {where} must be at least {_SHORTEST_KEY} ASCII characters without spaces.")
    return key


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        # Python adds the address to what the system says of it.
        reason = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise ConfigError(f"{host}:{port} cannot be listened at: {reason}. Choose another --port or --host.") from None


def _check_only_here(host: str) -> None:
    """Refuse an address that others reach."""
    if not _is_loopback(host):
        raise ConfigError(
            f"--host {host} lets others reach the server, and no API key is asked for. Set {KEY_VARIABLE} or "
            "--api-key-file, or say --no-key."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
