"""`diptych serve`: the model over HTTP, with a page."""

import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveFloat, PositiveInt
from cyclopts.validators import Number

from diptych.cli.console import complain, one_line
from diptych.errors import ConfigError, DataError, missing_extra

if TYPE_CHECKING:
    from diptych.serve.gallery import Gallery
    from diptych.weights.bundle import Bundle

KEY_VARIABLE = "DIPTYCH_API_KEY"
_SHORTEST_KEY = 8  # characters
_GRACE = 30  # s that requests in hand have to be answered after a stop was asked for


def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))] = 8000,
    model: str | None = None,
    library: Path | None = None,
    index: Path | None = None,
    api_key_file: Path | None = None,
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
        The address to listen at; 0.0.0.0 is all of this machine's.
    port
        0 takes any that is free.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    library
        A folder of pictures to search; it is indexed first.
    index
        Where the index of the library lies; by default in the user's cache.
    api_key_file
        A file with a key that clients must send; the environment's DIPTYCH_API_KEY does the same.
    allow_host
        A further name by which the server may be called when it listens on this machine only.
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
        from diptych.serve.service import Service
        from diptych.serve.urls import Fetcher
    except ImportError as error:
        raise missing_extra("serving", "serve") from error
    from diptych.serve.limits import Limits
    from diptych.weights.registry import DEFAULT_MODEL, load

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
    with _listen(host, port) as listener:
        bundle = load(model)
        gallery = None if library is None else _open_library(library, index, bundle)
        name = Path(model).name if model else DEFAULT_MODEL
        service = Service(bundle, name=name, limits=limits, gallery=gallery, fetch=fetch)
        is_local = _is_loopback(host)
        if not is_local and not api_key:
            complain(f"{host} may be reached by others, and no API key is asked for. Set {KEY_VARIABLE}.")
        hosts = ("localhost", "127.0.0.1", "::1", host, *(allow_host or ())) if is_local else None
        app = create_app(service, api_key=api_key, hosts=hosts)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # what people search for is theirs
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
        port = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        print(f"{one_line(name)} answers at http://{shown}:{port}/ (Ctrl-C stops it)", flush=True)
        # uvicorn repeats the signal that stopped it when all is done: then this is the end, and a good one.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        uvicorn.Server(config).run(sockets=[listener])


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
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # Python adds the address to what the system says of it.
        reason = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise ConfigError(f"{host}:{port} cannot be listened at: {reason}. Choose another --port or --host.") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _open_library(folder: Path, index: Path | None, bundle: "Bundle") -> "Gallery":
    from diptych.cli.indexing import updated
    from diptych.search.library import Library
    from diptych.serve.gallery import Gallery

    library = Library.open(folder, bundle, index=index)
    updated(library, batch_size=64)
    return Gallery(library)
