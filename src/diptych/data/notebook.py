"""What a notebook shows: pictures under captions, bars, and how far long work is. Self-contained HTML, all escaped.

Nothing is loaded from elsewhere and no script runs, so a notebook that is passed on shows the same. Names of files and
labels may hold anything; they stand in the HTML as text.
"""

import base64
import contextlib
import html
import io
import sys
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from diptych.errors import DiptychError

MOST = 60  # pictures of one answer; more are counted
_GREY = "#8886"  # on light as on dark
_BLUE = "#4a7fd4"


def text(value: str) -> str:
    """Any string as text of HTML, also within quotes."""
    return html.escape(value.encode("utf-8", "backslashreplace").decode())


def jpeg_of(picture: Image.Image, side: int) -> bytes:
    """A small JPEG of a picture.

    Args:
        picture: RGB.
        side: px of the longer side, at most.
    """
    small = picture.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


def figure(make_jpeg: Callable[[], bytes], caption: str, *, title: str, side: int, below: str = "") -> str:
    """A picture with its caption.

    Args:
        make_jpeg: gives it, or raises `DiptychError` where it is gone or damaged: then a grey box stands there.
        caption: any text.
        title: shown when the pointer rests on it; any text.
        side: px of the box that it has.
        below: HTML under the caption.
    """
    try:
        data = base64.b64encode(make_jpeg()).decode()
    except (DiptychError, OSError, ValueError):
        box = f'<div style="height:{side}px;background:{_GREY}">no picture</div>'
    else:
        style = f"max-width:100%;max-height:{side}px"
        box = f'<img alt="{text(caption)}" src="data:image/jpeg;base64,{data}" style="{style}">'
    return (
        f'<figure style="margin:0;width:{side}px" title="{text(title)}">{box}'
        f'<figcaption style="font-size:small;overflow-wrap:anywhere">{text(caption)}</figcaption>{below}</figure>'
    )


def bars(rows: Sequence[tuple[str, float]]) -> str:
    """Names with shares, 0 to 1, as bars."""
    cells = []
    for name, share in rows:
        width = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
        fill = f"linear-gradient(to right,{_BLUE} {width},{_GREY} {width})"
        cells.append(
            f'<div style="font-size:small;overflow-wrap:anywhere">{share:.1%} {text(name)}</div>'
            f'<div style="height:4px;background:{fill}"></div>'
        )
    return "".join(cells)


def grid(figures: Sequence[str], *, title: str = "", left_out: int = 0) -> str:
    """Figures side by side, as many to a row as there is room.

    Args:
        figures: from `figure`.
        title: above them; any text.
        left_out: how many more there are, which are not shown.
    """
    above = f"<p>{text(title)}</p>" if title else ""
    below = f"<p>{left_out:,} more are not shown.</p>" if left_out else ""
    cells = "".join(figures)
    return f'<div>{above}<div style="display:flex;flex-wrap:wrap;gap:8px">{cells}</div>{below}</div>'


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar in a notebook, and nothing anywhere else.

    Args:
        what: is done; any text.

    Yields:
        What is called with how much is done, and of how much.
    """
    show = _display()
    last = -1

    def advance(done: int, total: int) -> None:
        nonlocal last
        percent = 100 * done // max(total, 1)
        if show and percent != last:
            last = percent
            bar = f'<progress max="{total}" value="{done}"></progress>'
            show(f"<div>{text(what)} {bar} {done:,} of {total:,}</div>")

    yield advance


def _display() -> Callable[[str], None] | None:
    """What shows HTML in one place of a notebook's output, and changes it; None where there is no notebook."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython else None
    if shell is None or not hasattr(shell, "kernel"):  # IPython in a terminal
        return None
    from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

    handle = None

    def show(page: str) -> None:
        nonlocal handle
        if handle is None:
            handle = display(HTML(page), display_id=True)
        else:
            handle.update(HTML(page))

    return show
