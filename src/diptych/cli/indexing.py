"""What `search` and `index` share: a library is opened, and brought in step while the user watches."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from diptych.cli.console import complain, error_console, shows_bars, tell_progress
from diptych.cli.options import BY_MEASURE, MEGAPIXELS, EngineOptions
from diptych.errors import ConfigError, DataError, DiptychError
from diptych.files import expanded
from diptych.weights.packaged import DEFAULT_MODEL, check_model_name, packaged_models

if TYPE_CHECKING:
    from diptych.search.library import Library
    from diptych.search.update import Update, UpdateProgress
    from diptych.weights.dual_encoder import DualEncoder

_EVERY = 10.0  # s between lines where there is no terminal


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """Which index, of which model, and how it is brought in step.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder. By default the model that the index was made with, and for a
        new one the model that ships with diptych.
    index
        The folder where the index lies, instead of the cache.
    reindex
        Encode all pictures anew with the model that is given when the index is of another; until that is through the
        old one answers.
    exclude
        Leave out what a pattern names, as in a .gitignore: "*.gif", "drafts/", "/2019/raw". May be given several times;
        the index keeps them until others are given, or "" for none.
    batch_size
        Pictures in one forward pass.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    """

    model: str | None = None
    index: Path | None = None
    reindex: bool = False
    exclude: list[str] | None = None
    batch_size: PositiveInt = 64
    max_pixels: PositiveInt = MEGAPIXELS
    engines: EngineOptions = BY_MEASURE


DEFAULT_OPTIONS = IndexOptions()


def opened(folder: Path, options: IndexOptions, *, many: bool = False) -> "Library":
    """The library of a folder, with the model that its index was made with unless another is named.

    Args:
        folder: of pictures.
        options: of the index.
        many: all of the folder is to be encoded.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of pictures, and is none. Put the folder last, behind the query.")
    bundle, model = model_of(folder, options, many=many)

    from diptych.search.library import Library

    return Library.open(folder, bundle, index=options.index, reindex=options.reindex, model=model)


def model_of(folder: Path, options: IndexOptions, *, many: bool | None = False) -> "tuple[DualEncoder, str]":
    """The model of an index, and by which name it is loaded.

    Args:
        folder: of pictures.
        options: of the index.
        many: see `diptych.load`.

    Raises:
        ConfigError: the model that the index was made with is no longer where it was.
    """
    check_model_name(options.model)

    from diptych.search.about import command, read_about
    from diptych.search.index_folder import place_of
    from diptych.search.moving import same_pictures
    from diptych.weights.listing import packaged_by

    folder, place = place_of(folder, options.index)
    if options.model is not None or options.reindex:
        name = options.model or DEFAULT_MODEL
        path = expanded(name)
        if name not in packaged_models() and path.exists():
            name = str(path.resolve())
        return options.engines.load(name, options.max_pixels, many=many), name
    try:
        about = read_about(place)
        if about is None and options.index is None and (elsewhere := same_pictures(folder)):
            about = read_about(elsewhere)
    except DataError:  # it is said when the index is opened, or mended
        about = None
    # A program may have made it without saying what the model is called.
    name = (about.model or packaged_by(about.fingerprint) if about else "") or DEFAULT_MODEL
    try:
        return options.engines.load(name, options.max_pixels, many=many), name
    except DiptychError as error:
        if about is None or name != about.model:
            raise
        raise ConfigError(
            f"the index of {folder} was made with the model {name}, which cannot be loaded: {error} Say where it lies "
            f"now with --model, or encode anew: {command('update', place, about)} --model {DEFAULT_MODEL} --reindex."
        ) from None


def updated(
    library: "Library",
    options: IndexOptions,
    *,
    must: bool = False,
    retry: bool = False,
    verify: bool = False,
    forget: bool = False,
) -> "Update | None":
    """Bring it in step; Ctrl-C ends this in good order and the command with it.

    Args:
        library: the one.
        options: as it was opened.
        must: fail when it cannot be done now, and say all that was passed over; otherwise say so and let the search
            answer from what is there.
        retry: see `Library.update`.
        verify: see `Library.update`.
        forget: see `Library.update`.
    """
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
    on_terminal = shows_bars()
    said = time.monotonic()
    with (
        stop_request() as should_stop,
        Bars(*columns, console=error_console(), disable=not on_terminal, transient=True) as bars,
    ):
        task = bars.add_task("indexing", total=None, speed="", visible=False)

        def show(progress: "UpdateProgress") -> None:
            nonlocal said
            speed = f"{progress.per_second:,.1f} pictures/s, {_duration(progress.seconds_left)} left"
            bars.update(task, completed=progress.done, total=progress.total, speed=speed, visible=True)
            if not on_terminal and time.monotonic() - said > _EVERY:
                said = time.monotonic()
                tell_progress(f"indexing: {progress.done:,} of {progress.total:,}, {speed}.")

        try:
            update = library.update(
                batch_size=options.batch_size,
                retry=retry,
                verify=verify,
                forget=forget,
                exclude=None if options.exclude is None else [line for line in options.exclude if line],
                on_progress=show,
                should_stop=should_stop,
            )
        except (ConfigError, DataError) as error:
            if must or not len(library):
                raise
            complain(f"the answer comes from what was indexed before: {error}")
            return None
    for message in (*update.broken.values(), *(update.notes if must else update.new_notes)):
        complain(f"skipped: {message}")
    if must and update.left_out:
        what = ", ".join(f"{count:,} {rule}" for rule, count in sorted(update.left_out.items()))
        complain(f"left out by rule: {what}.")
    for why, count in update.kept.items():
        complain(
            f"{count:,} files are gone and stay in the index, as {why}. If they are gone for good: "
            f"{library.command('update')} --forget."
        )
    if not update.complete:
        complain("what is done is kept; the next call goes on from here.")
        raise KeyboardInterrupt
    return update


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"
