"""What commands print: results on standard output, tables on a terminal and aligned lines elsewhere; messages on
standard error.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol, Self, TypeVar


class View(Protocol):
    """What rich keeps on the screen: `Live`, `Progress`."""

    def __enter__(self) -> Self: ...
    def stop(self) -> None: ...


V = TypeVar("V", bound=View)


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"diptych: {one_line(message)}", file=sys.stderr)


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
