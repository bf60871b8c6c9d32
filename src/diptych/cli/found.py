"""What a search found, as a table for people, or as JSON, CSV or bare paths for programs."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

from diptych.cli.console import complain, one_line, print_table
from diptych.errors import ConfigError
from diptych.files import shown

if TYPE_CHECKING:
    from diptych.search.results import Hit, Results

_COLUMNS = ("path", "score", "width", "height", "date", "camera", "latitude", "longitude", "time")
_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would compute


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FormOptions:
    """How what was found is printed.

    Parameters
    ----------
    json_
        Print JSON.
    csv_
        Print a table as CSV.
    paths
        Print absolute paths alone, one a line.
    print0
        Print absolute paths alone, each ended by a null character, as xargs -0 takes them; no name can break that.
    """

    json_: bool = False
    csv_: bool = False
    paths: bool = False
    print0: bool = False

    def chosen(self) -> Literal["table", "json", "csv", "paths", "print0"]:
        """The one that is asked for.

        Raises:
            ConfigError: there are several.
        """
        asked = {"json": self.json_, "csv": self.csv_, "paths": self.paths, "print0": self.print0}
        names = [name for name, is_asked in asked.items() if is_asked]
        if len(names) > 1:
            raise ConfigError(f"a search prints one form. Leave one of {', '.join(f'--{name}' for name in names)}.")
        return names[0] if names else "table"  # pyright: ignore[reportReturnType]


AS_TABLE = FormOptions()


def print_found(results: "Results", options: FormOptions) -> None:
    """Print the results of a query, in their order."""
    form = options.chosen()
    if form == "json":
        print(json.dumps(results.to_json(), indent=2))
    elif form == "csv":
        _print_csv(_COLUMNS, map(_values, results))
    elif form in ("paths", "print0"):
        _print_paths([row.path for row in results], null=form == "print0")
    elif results:
        rows = [_cells(row) for row in results]
        used = [0, 1, *(i for i in (2, 3, 4) if any(row[i] for row in rows))]
        titles = ("score", "picture", "pixels", "taken", "camera")
        print_table([[row[i] for i in used] for row in rows], header=[titles[i] for i in used], numbers=[0])


def print_groups(groups: "Sequence[Results]", options: FormOptions) -> None:
    """Print groups of files that are alike, the best copy of each first."""
    form = options.chosen()
    if form == "json":
        print(json.dumps([group.to_json() for group in groups], indent=2))
    elif form == "csv":
        rows = ([i, *_values(row), row.bytes] for i, group in enumerate(groups, 1) for row in group)
        _print_csv(("group", *_COLUMNS, "bytes"), rows)
    elif form in ("paths", "print0"):
        paths: list[Path | None] = []
        for group in groups:
            paths += [*([None] if paths else []), *(row.path for row in group)]
        _print_paths(paths, null=form == "print0")
    else:
        _print_group_tables(groups)
        more = sum(len(group) - 1 for group in groups)
        links = sum(len(row.also) for group in groups for row in group)
        freeing = f" {links:,} names are links to files listed already: to remove one frees nothing." if links else ""
        complain(f"{len(groups):,} groups; {more:,} pictures could go.{freeing}")


def _print_group_tables(groups: "Sequence[Results]") -> None:
    for i, group in enumerate(groups):
        if i:
            print()
        rows = []
        for j, row in enumerate(group):
            score, path, size, date, _ = _cells(row)
            rows.append((score, path, size, f"{row.bytes:,}", date, "" if j else "best"))
            rows += [("", _near(other), "", "", "", "the same file, by a link") for other in row.also]
        print_table(rows, header=("score", "picture", "pixels", "bytes", "taken", "") if not i else (), numbers=[0, 3])


def _print_paths(paths: "Sequence[Path | None]", *, null: bool) -> None:
    """Paths as they are, byte by byte; None is the empty line, or name, between two groups."""
    names = [os.fsencode(path) if path else b"" for path in paths]
    if not null and sys.stdout.isatty():  # a name must not steer the terminal
        for path in paths:
            print(one_line(shown(path)) if path else "")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join(name + (b"\0" if null else b"\n") for name in names))
    if not null and (broken := sum(b"\n" in name for name in names)):
        complain(f"{broken:,} names hold a line break, and their lines are no paths. --print0 keeps names apart.")


def _print_csv(columns: Sequence[str], rows: "Iterable[Sequence[Any]]") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:  # on a terminal a name must not steer it
        writer.writerow([one_line(str(cell)) for cell in row] if sys.stdout.isatty() else row)


def _values(row: "Hit") -> list[Any]:
    latitude, longitude = row.place or ("", "")
    camera = f"'{row.camera}" if row.camera.startswith(_FORMULA) else row.camera  # whoever made the file wrote it
    date = row.date.isoformat(sep=" ") if row.date else ""
    time = "" if row.time is None else row.time
    size = (row.width or "", row.height or "")
    return [shown(row.path), f"{row.score:.6f}", *size, date, camera, latitude, longitude, time]


def _cells(row: "Hit") -> tuple[str, str, str, str, str]:
    size = f"{row.width} x {row.height}" if row.width else ""
    seconds = "" if row.time is None else f" at {int(row.time) // 60}:{int(row.time) % 60:02}"
    date = row.date.strftime("%Y-%m-%d") if row.date else ""
    return f"{row.score:.3f}", _near(row.path) + seconds, size, date, row.camera


def _near(path: Path) -> str:
    """Relative to where the user stands, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
