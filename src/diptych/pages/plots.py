"""Plots as inline SVG in the page's own colours and font, drawn by matplotlib."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import missing_extra
from diptych.pages.page import IntervalPlot, LinePlot, ReliabilityPlot, ShareCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of a plot that stand for the page's own: swapped for CSS variables once matplotlib has drawn.
_VARIABLES = {"#010101": "var(--muted)", "#020202": "var(--line)", "#030303": "var(--accent)"}
_TEXT, _GRID, _CURVE = _VARIABLES
# What a curve is held against.
_DASHED: dict[str, Any] = {"color": _TEXT, "linewidth": 1, "linestyle": (0, (4, 3)), "alpha": 0.8}
_ROOM = 0.08  # of the height between the lowest and the highest value: left free above the one, and below zero


def without_matplotlib() -> str:
    """What is to be said of a page whose curves cannot be drawn here; an empty string where they can."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return str(missing_extra("drawing curves", "eval", "They are left out; the rest of the page is as usual."))
    return ""


def line_plot(key: str, plot: LinePlot) -> str:
    """One curve, with a dashed line for chance. Neighbours of many points are averaged; the points stay pale behind.

    Args:
        key: no other plot of the page has it.
        plot: what is drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return _svg(line_figure(plot), key)


def line_figure(plot: LinePlot) -> "Figure":
    """The figure behind `line_plot`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _figure()
    x, y = np.asarray(plot.points, dtype=float).T
    ticks, limits = _y_axis([*y, *([] if plot.chance is None else [plot.chance])], is_share=plot.is_share)
    if plot.chance is not None:
        axes.axhline(plot.chance, **_DASHED)
    window = neighbours(plot.points)
    if window > 1:
        axes.plot(x, y, color=_CURVE, linewidth=0.8, alpha=0.3)
        x, y = (np.convolve(values, np.full(window, 1 / window), mode="valid") for values in (x, y))
    # Not clipped: at the lower edge a line of 2 points would be halved.
    axes.plot(x, y, color=_CURVE, linewidth=2, clip_on=False)
    axes.plot(x[-1:], y[-1:], color=_CURVE, marker="o", markersize=5, clip_on=False)
    axes.set_xlim(left=0)
    axes.set_yticks(ticks)
    axes.set_ylim(*limits)
    _label(axes, plot, largest=max(map(abs, limits)))
    return figure


def neighbours(points: Sequence[tuple[float, float]]) -> int:
    """How many points the firm line of a curve averages; 1 where it is the curve itself."""
    return max(1, len(points) // 50)


def _y_axis(values: Sequence[float], *, is_share: bool) -> tuple[list[float], tuple[float, float]]:
    """Ticks and limits: zero is among them, above the highest value is room, and a tick where there can be one."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(0.0, *values), max(0.0, *values)
    room = _ROOM * (high - low) or 1.0
    low, high = low - (room if low < 0 else 0), high + room
    most = 1.0 if is_share else np.inf
    ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if tick <= most]
    return ticks, (min(low, ticks[0]) if low < 0 else 0.0, max(high, ticks[-1]))


def _label(axes: "Axes", plot: LinePlot, *, largest: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, StrMethodFormatter

    axes.set_xlabel("step", color=_TEXT, fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if plot.is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    elif largest < 0.01:  # `_for_the_page` keeps two places of what is written as 0.0005
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1e}" if value else "0"))


def reliability_plot(key: str, plot: ReliabilityPlot) -> str:
    """Bins as dots, the larger the more pictures; on the diagonal a model is as sure as it is right.

    Args:
        key: no other plot of the page has it.
        plot: what is drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _figure()
    sure, right, rows = np.asarray(plot.points, dtype=float).T
    axes.plot([0, 1], [0, 1], **_DASHED)
    axes.plot(sure, right, color=_CURVE, linewidth=0.8, alpha=0.5)
    axes.scatter(sure, right, s=8 + 120 * np.sqrt(rows / rows.max()), color=_CURVE, linewidths=0, clip_on=False)
    axes.set_xlabel("confidence", color=_TEXT, fontsize=12)
    axes.set_ylabel("accuracy", color=_TEXT, fontsize=12)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.04, 1.04)
    return _svg(figure, key)


def share_plot(key: str, plot: ShareCurves) -> str:
    """Curves of shares, the first firm and the others dashed, each named at its end; the x-axis is logarithmic.

    Args:
        key: no other plot of the page has it.
        plot: what is drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _figure()
    from matplotlib.ticker import FuncFormatter

    lines = [{"color": _CURVE, "linewidth": 2}, {**_DASHED, "linewidth": 1.6}]
    for number, (label, points) in enumerate(plot.curves):
        x, y = np.asarray(points, dtype=float).T
        axes.plot(x, y, label=label, **lines[min(number, 1)])
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    axes.set_xlabel(plot.x, color=_TEXT, fontsize=12)
    axes.set_ylabel(plot.y, color=_TEXT, fontsize=12)
    axes.legend(frameon=False, labelcolor=_TEXT, fontsize=11)
    return _svg(figure, key)


def interval_plot(key: str, plot: IntervalPlot) -> str:
    """Data sets as dots with their intervals, and a dashed line where there is no difference.

    Args:
        key: no other plot of the page has it.
        plot: what is drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _figure()
    from matplotlib.ticker import PercentFormatter

    x, y, low, high = np.asarray([point[1:] for point in plot.points], dtype=float).T
    axes.axhline(0, **_DASHED)
    axes.vlines(x, low, high, color=_CURVE, linewidth=1.2, alpha=0.6)
    axes.scatter(x, y, s=22, color=_CURVE, linewidths=0, zorder=3)
    for name, at, value, *_ in plot.points:
        axes.annotate(name, (at, value), (5, 3), textcoords="offset points", color=_TEXT, fontsize=9)
    axes.set_xlabel(plot.x, color=_TEXT, fontsize=12)
    axes.set_ylabel(plot.y, color=_TEXT, fontsize=12)
    axes.set_xlim(left=0)
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return _svg(figure, key)


def _figure() -> tuple["Figure", "Axes"]:
    try:
        import matplotlib  # noqa: F401, says that it is missing where a part of it would say less
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("the report's curves", "eval", "A page without curves works without it.") from error
    figure = Figure(figsize=(5.2, 2.9), layout="constrained")  # a Figure of its own: pyplot keeps none
    axes = figure.subplots()
    axes.tick_params(colors=_TEXT, labelsize=12, length=0, pad=7)
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    return figure, axes


def _svg(figure: "Figure", key: str) -> str:
    """The figure for the page.

    Args:
        figure: drawn in the stand-in colours.
        key: keeps the ids of two plots on one page apart.
    """
    import matplotlib

    drawn = io.StringIO()
    silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # no clock, and no addresses in the page
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"diptych-{key}"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata=silent)
    return _for_the_page(drawn.getvalue())


def _for_the_page(svg: str) -> str:
    box = re.search(r'viewBox="[\d. ]+"', svg)
    assert box, "matplotlib writes a viewBox"
    body = svg[svg.index(">", box.end()) + 1 :]
    body = re.sub(r"<style.*?</style>|<metadata.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # figure_1, axes_1: the same in every plot, and never referred to
    body = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", body)  # a hundredth of a point is enough
    for drawn, variable in _VARIABLES.items():
        body = body.replace(drawn, variable)
    return f"<svg {box[0]}>{body.replace('xlink:href', 'href').strip()}"
