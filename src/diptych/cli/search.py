"""`diptych search`: words or a picture in, the pictures of a folder that fit best out."""

import contextlib
import difflib
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts.types import NonNegativeInt

from diptych.cli.console import agreed, complain
from diptych.cli.found import AS_TABLE, FormOptions, print_found, print_groups
from diptych.cli.indexing import DEFAULT_OPTIONS, IndexOptions, opened, updated
from diptych.cli.thumbnails import print_thumbnails
from diptych.errors import ConfigError
from diptych.files import expanded
from diptych.search.filters import Filters, parse_day, parse_place
from diptych.weights.packaged import check_model_name

if TYPE_CHECKING:
    from diptych.search.library import Library


def search(
    *words: str,
    not_: list[str] | None = None,
    like: str | None = None,
    duplicates: bool = False,
    threshold: float = 0.97,
    limit: NonNegativeInt = 20,
    min_score: float | None = None,
    sort: Literal["score", "date"] = "score",
    within: str = "",
    after: str | None = None,
    before: str | None = None,
    min_side: NonNegativeInt = 0,
    max_side: NonNegativeInt = 0,
    camera: str = "",
    near: str | None = None,
    open_: bool = False,
    thumbnails: bool = False,
    form: FormOptions = AS_TABLE,
    options: IndexOptions = DEFAULT_OPTIONS,
    no_update: bool = False,
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
        More like this picture of the folder: its path from where you are, or below the folder.
    duplicates
        Groups of pictures that look the same, instead of a query.
    threshold
        Smallest cosine of two duplicates.
    limit
        How many to show at most; 0 is all.
    min_score
        Show only what scores at least so much: the cosine with the query, at most 1.
    sort
        What comes first: score, the best; or date, the latest of those that would be shown.
    within
        A subfolder, e.g. 2023/june: its path from where you are, or below the folder.
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
    no_update
        Do not look for changed files: search what is indexed.
    """
    text, folder = _split(words, wants_query=not (like or duplicates))
    filters = Filters(
        after=parse_day(after) if after else None,
        before=parse_day(before) if before else None,
        min_side=min_side,
        max_side=max_side,
        camera=camera,
        near=parse_place(near) if near else None,
    )
    form.chosen()
    if not (like or duplicates or text.strip()):
        raise ConfigError("each part of a query must have words or a picture. Got ''.")
    if duplicates and (min_score is not None or sort != "score"):
        raise ConfigError("--min-score and --sort are for what a query finds. --duplicates goes by --threshold.")
    check_model_name(options.model)

    from diptych.search.query import Query

    query = None if like or duplicates else Query.parse(text).without(*(not_ or ()))
    with opened(folder, options) as library:
        filters = replace(filters, folder=_from_here(within, library.folder))
        if not no_update:
            updated(library, options)
        if duplicates:
            print_groups(library.duplicates(threshold=threshold, filters=filters), form)
            return
        if query is not None:
            for text in library.bundle.unread([term.text for term in query.terms if term.image is None]):
                if not text.is_whole:  # else the search is refused
                    complain(str(text))
            results = library.search(query, count=limit or None, filters=filters)
        else:
            results = library.like(_from_here(like or "", library.folder), count=limit or None, filters=filters)
        best = max((row.score for row in results), default=None)
        results = results if min_score is None else results.from_score(min_score)
        results = results.by_date() if sort == "date" else results
        print_found(results, form)
        if not results:
            complain(f"nothing was found: {_why_nothing(best, library, filters)}.")
        if thumbnails and results and not print_thumbnails([library.thumbnail(row.path) for row in results]):
            complain("this terminal shows no pictures, as far as it tells. --open shows them in a viewer.")
        if open_:
            _open([str(row.path) for row in results])


def _split(words: tuple[str, ...], *, wants_query: bool) -> tuple[str, Path]:
    """The query and the folder."""
    if not wants_query:
        if len(words) > 1:
            raise ConfigError(f"--like and --duplicates take a folder and no query. Got {' '.join(words)!r}.")
        return "", expanded(words[0] if words else ".")
    if not words:
        raise ConfigError(
            'there must be something to search for, e.g. diptych search "two dogs on a beach" ~/Pictures.'
        )
    final = words[-1]
    last = expanded(final)
    if len(words) == 1 and last.is_dir():
        raise ConfigError(
            f"{words[0]} is a folder, and there is no query. Put words in front: diptych search "
            f'"two dogs on a beach" {shlex.quote(words[0])}. To search for the word here: diptych search '
            f"{shlex.quote(words[0])} ."
        )
    if len(words) > 1 and not last.is_dir() and expanded(words[0]).is_dir():
        rest = " ".join(words[1:])
        if agreed(f"search for “{rest}” in {words[0]}?"):
            return rest, expanded(words[0])
        raise ConfigError(
            f"the folder comes last, and {words[0]} stands first: diptych search {shlex.quote(rest)} "
            f"{shlex.quote(words[0])}. If it belongs to the query, name the folder behind: diptych search "
            f"{shlex.quote(' '.join(words))} ."
        )
    if len(words) > 1 and (last.is_dir() or len(words) == 2):
        return " ".join(words[:-1]), last
    if mistaken := _mistaken_folder(final, alone=len(words) == 1):
        raise ConfigError(
            f"the folder comes last, and {mistaken} If it belongs to the query, quote that and name the "
            f'folder: diptych search "{" ".join(words)}" .'
        )
    return " ".join(words), Path()


def _mistaken_folder(last: str, *, alone: bool) -> str:
    """Why the last of several words, or a lone one, is rather a folder that does not exist; nothing when it is not."""
    if any(letter in last for letter in ' "\t') or Path(last).suffix or last in ("+", "-", "."):
        return ""
    if last.startswith((os.sep, f".{os.sep}", f"..{os.sep}", "~")) or last.endswith(os.sep):
        return f"{last} is none."
    if os.sep in last and Path(Path(last).parts[0]).is_dir():
        return f"{last} is none."
    if not alone:
        with contextlib.suppress(OSError):
            folders = {item.name.lower(): item.name for item in os.scandir() if item.is_dir()}
            if near := difflib.get_close_matches(last.lower(), folders, n=1, cutoff=0.8):
                return f"{last} is none. Did you mean {folders[near[0]]}?"
    return ""


def _from_here(name: str, folder: Path) -> str:
    """A path below the folder of pictures, or as it stands from where the user is."""
    here = expanded(name).absolute()
    is_of_folder = here.is_relative_to(folder) or here.resolve().is_relative_to(folder)
    return str(here) if name and os.path.lexists(here) and is_of_folder else name


def _why_nothing(best: float | None, library: "Library", filters: "Filters") -> str:
    if best is not None:
        return f"the best scores {best:.3f}, less than --min-score"
    return "no picture passes the filters" if filters != Filters() else f"no picture of {library.folder} is indexed"


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
