"""What `search` and `index` share: a library is opened, and brought in step while the user watches."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.console import complain
from diptych.cli.options import limited
from diptych.errors import ConfigError, DataError

if TYPE_CHECKING:
    from diptych.search.library import Library
    from diptych.search.update import Update, UpdateProgress

_EVERY = 10.0  # s between lines where there is no terminal


def opened(folder: Path, model: str | None, *, index: Path | None, reindex: bool, max_pixels: int) -> "Library":
    """The library of a folder with a model, which decodes at most so many million pixels of a picture."""
    from diptych.search.library import Library
    from diptych.weights.registry import load

    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of pictures, and is none. Put the folder last, behind the query.")
    return Library.open(folder, limited(load(model), max_pixels), index=index, reindex=reindex)


def updated(library: "Library", *, batch_size: int, must: bool = False) -> "Update | None":
    """Bring it in step; Ctrl-C ends this in good order and the command with it.

    Args:
        library: the one.
        batch_size: pictures a forward pass.
        must: fail when it cannot be done now; otherwise say so and let the search answer from what is there.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    from diptych.runtime import stop_request

    columns = (
        TextColumn("indexing"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    on_terminal = sys.stderr.isatty()
    said = time.monotonic()
    with (
        stop_request() as should_stop,
        Bars(*columns, console=Console(stderr=True), disable=not on_terminal, transient=True) as bars,
    ):
        task = bars.add_task("indexing", total=None, speed="", visible=False)

        def show(progress: "UpdateProgress") -> None:
            nonlocal said
            speed = f"{progress.per_second:,.1f} pictures/s, {_duration(progress.seconds_left)} left"
            bars.update(task, completed=progress.done, total=progress.total, speed=speed, visible=True)
            if not on_terminal and time.monotonic() - said > _EVERY:
                said = time.monotonic()
                complain(f"indexing: {progress.done:,} of {progress.total:,}, {speed}.")

        try:
            update = library.update(batch_size=batch_size, on_progress=show, should_stop=should_stop)
        except (ConfigError, DataError) as error:
            if must or not len(library):
                raise
            complain(f"the answer comes from what was indexed before: {error}")
            return None
    for message in update.broken.values():
        complain(f"skipped: {message}")
    if not update.complete:
        complain("what is done is kept; the next call goes on from here.")
        raise KeyboardInterrupt
    return update


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"
