"""`diptych search`: words or a picture in, the pictures of a folder that fit best out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.options import MEGAPIXELS
from diptych.cli.thumbnails import print_thumbnails
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.search.library import Library
    from diptych.search.query import Filters
    from diptych.search.results import Results


def search(
    *words: str,
    not_: list[str] | None = None,
    like: str | None = None,
    duplicates: bool = False,
    threshold: float = 0.97,
    count: PositiveInt = 20,
    within: str = "",
    after: str | None = None,
    before: str | None = None,
    min_side: NonNegativeInt = 0,
    max_side: NonNegativeInt = 0,
    camera: str = "",
    near: str | None = None,
    open_: bool = False,
    thumbnails: bool = False,
    json_: bool = False,
    model: str | None = None,
    index: Path | None = None,
    reindex: bool = False,
    no_update: bool = False,
    batch_size: PositiveInt = 64,
    max_pixels: PositiveInt = MEGAPIXELS,
) -> None:
    """Find pictures in a folder by words, by a picture, or by both.

    The first search of a folder indexes it; Ctrl-C is safe, and the next call goes on from there. Later ones look for
    new, changed, moved and deleted files and answer at once. The index lies in your cache, not among the pictures;
    nothing is sent to anyone.

    A query is words, or the path of a picture, or several joined by + and -, each with a weight if you like:
    "two dogs on a beach", photo.jpg, '"red car" - "truck"', 'photo.jpg + 0.5 * "at night"'.

    Parameters
    ----------
    words
        The query, and then the folder, by default the one you are in. With --like or --duplicates only the folder.
    not_
        Words that shall not fit; may be given several times. The same as - "words" in the query.
    like
        More like this picture of the folder.
    duplicates
        Groups of pictures that look the same, instead of a query.
    threshold
        Smallest cosine of two duplicates.
    count
        How many to show.
    within
        A subfolder, e.g. 2023/june.
    after
        Taken on this day or later: 2023, 2023-06 or 2023-06-30. A picture that tells no date is left out.
    before
        Taken before this day.
    min_side
        Pixels that the longer side has at least.
    max_side
        Pixels that the longer side has at most; 0 is no limit.
    camera
        Part of the camera's maker and model.
    near
        Taken near a place: latitude,longitude,kilometres, e.g. 48.86,2.35,10.
    open_
        Open what was found with the system's viewer.
    thumbnails
        Show small pictures in a terminal that can: kitty, Ghostty, WezTerm, iTerm2.
    json_
        Print JSON.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    index
        The folder where the index lies, instead of the cache.
    reindex
        Encode all pictures anew when the index is of another model.
    no_update
        Do not look for changed files: search what is indexed.
    batch_size
        Pictures in one forward pass.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    """
    text, folder = _split(words, wants_query=not (like or duplicates))

    from diptych.cli.indexing import opened, updated
    from diptych.search.query import Filters, Query, parse_day, parse_place

    filters = Filters(
        folder=within,
        after=parse_day(after) if after else None,
        before=parse_day(before) if before else None,
        min_side=min_side,
        max_side=max_side,
        camera=camera,
        near=parse_place(near) if near else None,
    )
    query = None if like or duplicates else Query.parse(text).without(*(not_ or ()))
    with opened(folder, model, index=index, reindex=reindex, max_pixels=max_pixels) as library:
        if not no_update:
            updated(library, batch_size=batch_size)
        if duplicates:
            _print_groups(library.duplicates(threshold=threshold, filters=filters), json_=json_)
            return
        if query is not None:
            for text in library.bundle.unread([term.text for term in query.terms if term.image is None]):
                if not text.is_whole:  # else the search is refused
                    complain(str(text))
            results = library.search(query, count=count, filters=filters)
        else:
            results = library.like(Path(like or "").absolute(), count=count, filters=filters)
        _print(results, library, filters, json_=json_, thumbnails=thumbnails)
        if open_:
            _open([str(row.path) for row in results])


def _split(words: tuple[str, ...], *, wants_query: bool) -> tuple[str, Path]:
    """The query and the folder."""
    if not wants_query:
        if len(words) > 1:
            raise ConfigError(f"--like and --duplicates take a folder and no query. Got {' '.join(words)!r}.")
        return "", Path(words[0] if words else ".").expanduser()
    if not words:
        raise ConfigError(
            'there must be something to search for, e.g. diptych search "two dogs on a beach" ~/Pictures.'
        )
    last = Path(words[-1]).expanduser()
    if len(words) > 1 and (last.is_dir() or len(words) == 2):
        return " ".join(words[:-1]), last
    return " ".join(words), Path()


def _print(results: "Results", library: "Library", filters: "Filters", *, json_: bool, thumbnails: bool) -> None:
    if json_:
        print(json.dumps(results.to_json(), indent=2))
        return
    if not results:
        from diptych.search.query import Filters

        left = "no picture passes the filters" if filters != Filters() else f"no picture of {library.folder} is indexed"
        complain(f"nothing was found: {left}.")
        return
    rows = []
    for row in results:
        size = f"{row.width} x {row.height}" if row.width else ""
        seconds = "" if row.time is None else f" at {int(row.time) // 60}:{int(row.time) % 60:02}"
        date = row.date.strftime("%Y-%m-%d") if row.date else ""
        rows.append((f"{row.score:.3f}", _shown(row.path) + seconds, size, date, row.camera))
    used = [0, 1, *(i for i in (2, 3, 4) if any(row[i] for row in rows))]
    titles = ("score", "picture", "pixels", "taken", "camera")
    print_table([[row[i] for i in used] for row in rows], header=[titles[i] for i in used], numbers=[0])
    if thumbnails and not print_thumbnails([library.thumbnail(row.path) for row in results]):
        complain("this terminal shows no pictures, as far as it tells. --open shows them in a viewer.")


def _print_groups(groups: "list[Results]", *, json_: bool) -> None:
    if json_:
        print(json.dumps([group.to_json() for group in groups], indent=2))
        return
    for i, group in enumerate(groups):
        if i:
            print()
        print_table([(f"{row.score:.3f}", _shown(row.path)) for row in group], numbers=[0])
    more = sum(len(group) - 1 for group in groups)
    complain(f"{len(groups):,} groups; {more:,} pictures could go.")


def _shown(path: Path) -> str:
    """Relative to where the user stands, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _open(paths: list[str]) -> None:
    if not paths:
        return
    if sys.platform == "win32":
        for path in paths:
            os.startfile(path)
        return
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    calls = [[opener, *paths]] if sys.platform == "darwin" else [[opener, path] for path in paths]
    for call in calls:
        try:
            subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            raise ConfigError(f"--open needs {opener}, and it is not installed. The paths are above.") from None
