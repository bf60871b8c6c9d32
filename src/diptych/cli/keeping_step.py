"""Libraries of a server are brought in step with their folders while it answers, and follow them when asked to."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.console import complain
from diptych.errors import DiptychError, missing_extra

if TYPE_CHECKING:
    from diptych.search.library import Library
    from diptych.search.update import UpdateProgress
    from diptych.serve.gallery import Gallery

_EVERY = 10.0  # s between lines about the indexing
_LOOK = 500  # ms that a change is waited for at a time
_SETTLE = 2_000  # ms that a folder is left to change before it is looked at


def leave(code: int) -> None:
    """End the process without waiting for anything. What an index holds is whole at any moment."""
    complain("stopped, though not all work in hand did end.")
    os._exit(code)


@contextlib.contextmanager
def keeping_step(libraries: "Sequence[tuple[Library, Gallery]]", *, watch: bool, seconds: float) -> Iterator[None]:
    """Bring indexes in step while the server answers from what they hold; end with it.

    Args:
        libraries: with what the server shows of them.
        watch: go on, as the folders change.
        seconds: that an update in hand has to end.

    Raises:
        MissingExtraError: watchfiles is not installed.
    """
    if not libraries:
        yield
        return
    if watch:
        try:
            import watchfiles  # noqa: F401
        except ImportError:
            raise missing_extra("watching folders", "serve") from None
    must_stop = threading.Event()
    for _, gallery in libraries:
        gallery.is_indexing = True
    work = _follow if watch else _update_all
    thread = threading.Thread(target=work, args=(libraries, must_stop), name="diptych-index", daemon=True)
    thread.start()
    try:
        yield
    finally:
        must_stop.set()
        thread.join(seconds)
        if thread.is_alive():  # in a file that hangs, whose reader Python would wait for at its end
            leave(130 if isinstance(sys.exc_info()[1], KeyboardInterrupt) else 0)


def _update_all(libraries: "Sequence[tuple[Library, Gallery]]", must_stop: threading.Event) -> None:
    for library, gallery in libraries:
        _update(library, gallery, must_stop)


def _follow(libraries: "Sequence[tuple[Library, Gallery]]", must_stop: threading.Event) -> None:
    """Update all, and again those in whose folders something changes."""
    import watchfiles

    folders = [library.folder for library, _ in libraries]
    options = {"debounce": _SETTLE, "step": 200, "rust_timeout": _LOOK, "yield_on_timeout": True}
    is_first = True  # the watch has begun by then: what comes in during the first update is not missed
    for changed in watchfiles.watch(*folders, stop_event=must_stop, raise_interrupt=False, **options):
        paths = [Path(path) for _, path in changed]
        for library, gallery in libraries:
            if is_first or any(path.is_relative_to(library.folder) for path in paths):
                _update(library, gallery, must_stop)
        is_first = False


def _update(library: "Library", gallery: "Gallery", must_stop: threading.Event) -> None:
    said = time.monotonic()

    def tell(progress: "UpdateProgress") -> None:
        nonlocal said
        gallery.progress = (progress.done, progress.total)
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            complain(f"indexing: {progress.done:,} of {progress.total:,} files, {progress.per_second:,.1f} a second.")

    gallery.is_indexing = True
    try:
        found = library.update(batch_size=64, on_progress=tell, should_stop=must_stop.is_set)
        for message in (*found.broken.values(), *found.new_notes):
            complain(f"skipped: {message}")
        for why, count in found.kept.items():
            complain(f"{count:,} files are gone and stay in the index, as {why}.")
    except (DiptychError, OSError) as error:
        complain(f"answers come from what was indexed before: {error}")
    finally:
        gallery.is_indexing, gallery.progress = False, None
