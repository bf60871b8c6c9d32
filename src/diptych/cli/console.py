"""What commands print: results on standard output, tables on a terminal and aligned lines elsewhere; messages on
standard error.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from rich.console import Console


class View(Protocol):
    """What rich keeps on the screen: `Live`, `Progress`."""

    def __enter__(self) -> Self: ...
    def stop(self) -> None: ...


V = TypeVar("V", bound=View)


@dataclass
class _Volume:
    quiet: bool = False
    progress: bool = True


_volume = _Volume()  # of the command that runs; `at_volume` sets it


@contextlib.contextmanager
def at_volume(*, quiet: bool, progress: bool) -> Iterator[None]:
    """What goes to standard error within the block.

    Args:
        quiet: neither notes nor progress; what ends a command is said all the same.
        progress: bars, where there is a terminal, and lines that tell how far it is.
    """
    before = (_volume.quiet, _volume.progress)
    _volume.quiet, _volume.progress = quiet, progress and not quiet
    try:
        yield
    finally:
        _volume.quiet, _volume.progress = before


def refuse(message: str) -> None:
    """What ended a command: one line on standard error, whatever the volume."""
    print(f"diptych: {one_line(message)}", file=sys.stderr)


def complain(message: str) -> None:
    """A note: one line on standard error, unless --quiet."""
    if not _volume.quiet:
        refuse(message)


def tell(message: str) -> None:
    """A result on its way: one line on standard error without our name, unless --quiet."""
    if not _volume.quiet:
        print(one_line(message), file=sys.stderr)


def tell_progress(message: str) -> None:
    """How far it is, where there is no terminal for a bar: a note, unless --no-progress."""
    if _volume.progress:
        complain(message)


def shows_bars() -> bool:
    """Whether standard error is a terminal, and bars are wanted."""
    return _volume.progress and sys.stderr.isatty()


def agreed(question: str) -> bool:
    """Whether somebody at the terminal says yes, which Enter does, too. False where nobody is there to be asked."""
    if _volume.quiet or not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"diptych: {one_line(question)} [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")


def error_console() -> "Console":
    """rich on standard error; silent with --quiet."""
    from rich.console import Console

    return Console(stderr=True, quiet=_volume.quiet)


@contextlib.contextmanager
def on_screen(view: V) -> Iterator[V]:
    """A view that goes however the block ends; by rich's own way in, Ctrl-C during the first frame would leave it.

    What stays keeps standard error to itself, and messages would come above it.
    """
    try:
        yield view.__enter__()
    finally:
        view.stop()


def one_line(text: str) -> str:
    """The text without what would break a line or steer a terminal; file names and labels may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), numbers: Sequence[int] = ()) -> None:
    """Print rows of equally many cells.

    Args:
        rows: what to print.
        header: one title a column.
        numbers: columns that are set to the right.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(rows, header, numbers)
        return
    from rich.cells import cell_len  # a Chinese character is two columns wide

    lines = [header, *rows] if header else rows
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = []
        for i, (cell, width) in enumerate(zip(line, widths, strict=True)):
            gap = " " * (width - cell_len(cell))
            cells.append(gap + cell if i in numbers else cell + gap)
        print("  ".join(cells).rstrip())


def _print_rich(rows: Sequence[Sequence[str]], header: Sequence[str], numbers: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(header), header_style="bold")
    for i in range(len(rows[0])):
        table.add_column(header[i] if header else "", justify="right" if i in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
