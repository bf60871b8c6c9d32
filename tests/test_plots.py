import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from diptych.errors import MissingExtraError
from diptych.pages.page import LinePlot, ReliabilityPlot, ShareCurves
from diptych.pages.plots import line_figure, line_plot, neighbours, reliability_plot, share_plot


def curve(*points: tuple[float, float], is_share: bool = False, chance: float | None = None) -> LinePlot:
    return LinePlot(title="t", points=points, is_share=is_share, chance=chance)


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_curve_is_drawn_through_its_points_in_colours_of_the_page():
    svg = line_plot("k", curve((0, 0.0), (50, 0.1), (100, 0.4), is_share=True))
    line = re.search(r'd="M (\S+) (\S+)\s+L (\S+) (\S+)\s+L (\S+) (\S+)\s*"[^>]*var\(--accent\)', svg)
    assert line
    x0, y0, x1, y1, x2, y2 = map(float, line.groups())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)  # evenly spaced steps
    assert y0 - y1 == pytest.approx((y0 - y2) / 4, abs=0.02)  # a quarter of the way up; y points down in SVG
    assert "var(--muted)" in svg
    assert not re.search(r"#0[123]0[123]0[123]", svg)


@pytest.mark.parametrize(
    "values",
    [
        (5.45, 4.57),
        (14.21, 14.06),
        (0.002, 0.0),
        (0.0, 0.0),
        (0.5, 0.5),
        (0.97, 0.1),
        (1.0, 0.2),
        (-0.5, 1.0),
        (-2, -1),
    ],
)
@pytest.mark.parametrize("is_share", [False, True])
def test_above_the_highest_and_below_the_lowest_point_of_a_curve_is_room(values, is_share):
    [axes] = line_figure(curve(*enumerate(values, 1), is_share=is_share)).axes
    low, high = axes.get_ylim()
    span = max(0, *values) - min(0, *values)
    assert high - max(0, *values) >= 0.079 * span
    assert high > max(values)
    assert low == 0 if min(values) >= 0 else min(values) - low >= 0.079 * span
    assert axes.get_xlim()[0] == 0 < max(axes.get_xlim()) - len(values)
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert 0 in [round(tick, 9) for tick in ticks]
    if is_share:
        assert max(ticks) <= 1  # no more than all of them
    else:
        assert max(ticks) >= max(values)


def test_a_tick_stands_above_the_highest_point_also_of_a_smoothed_curve():
    points = [(step, 3 + step % 2) for step in range(200)]
    assert neighbours(points) == 4
    [axes] = line_figure(curve(*points)).axes
    pale, firm, _ = axes.lines
    assert np.asarray(pale.get_ydata()).tolist() == [y for _, y in points]
    assert set(np.asarray(firm.get_ydata())) == {3.5}
    assert axes.get_ylim()[1] == max(axes.get_yticks()) > 4


def test_chance_is_a_dashed_line_where_it_is_known_and_is_within_the_plot():
    plain = line_figure(curve((0, 0.01), (10, 0.02), is_share=True)).axes[0]
    assert not any(line.is_dashed() for line in plain.lines)
    [axes] = line_figure(curve((0, 0.01), (10, 0.02), is_share=True, chance=0.1)).axes
    [chance] = [line for line in axes.lines if line.is_dashed()]
    assert np.asarray(chance.get_ydata()).tolist() == [0.1, 0.1]
    assert axes.get_ylim()[1] > 0.1
    assert "stroke-dasharray" in line_plot("k", curve((0, 0.01), (10, 0.02), is_share=True, chance=0.1))


@pytest.mark.parametrize("points", [[(10, 0.5)], [(0, 0.0), (10, 0.0)], [(0, 0.25)], [(5, 0.25)] * 3])
def test_short_and_flat_curves_are_drawn(points: list[tuple[float, float]]):
    svg = line_plot("k", curve(*points))
    HTMLParser().feed(svg)
    assert "var(--accent)" in svg
    assert "nan" not in svg


def test_numbers_are_written_as_they_are_read():
    assert {"0%", "20%", "40%"} <= set(texts(line_plot("k", curve((0, 0.0), (1000, 0.4), is_share=True))))
    assert {"0", "1.0e-03", "1,000"} <= set(texts(line_plot("k", curve((0, 0.0), (1000, 0.002)))))


def test_a_bin_of_the_reliability_plot_is_a_dot_where_it_belongs():
    svg = reliability_plot("k", ReliabilityPlot(title="t", points=[(0.25, 0.5, 4), (0.75, 1.0, 16)]))
    dots = []  # the middle of each circle
    for path in re.findall(r'd="([^"]*)" style="fill: var\(--accent\)"', svg):
        x, y = (sorted(map(float, re.findall(r"\d+\.?\d*", path)[place::2])) for place in (0, 1))
        dots.append(((x[0] + x[-1]) / 2, (y[0] + y[-1]) / 2, x[-1] - x[0]))
    (x0, y0, width0), (x1, y1, width1) = dots
    line = re.search(r'd="M (\S+) (\S+)\s+L (\S+) (\S+)\s*"[^>]*stroke-dasharray[^>]*var\(--muted\)', svg)
    assert line
    left, bottom, right, top = map(float, line.groups())
    assert [(x0 - left) / (right - left), (x1 - left) / (right - left)] == pytest.approx([0.25, 0.75], abs=0.01)
    assert [(bottom - y0) / (bottom - top), (bottom - y1) / (bottom - top)] == pytest.approx([0.5, 1.0], abs=0.01)
    assert 4 < width0 < width1
    assert {"confidence", "accuracy"} <= set(texts(svg))


def test_two_plots_of_a_page_share_no_id():
    one, other = (line_plot(key, curve((0, 1.0), (10, 2.0))) for key in ("a", "b"))
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'"#([^"]+)"', one)) <= ids[0]


def test_plots_leave_no_trace_in_matplotlib():
    import matplotlib

    before = dict(matplotlib.rcParams)
    pyplot = "matplotlib.pyplot" in sys.modules
    assert line_plot("k", curve((0, 1.0), (10, 2.0))) == line_plot("k", curve((0, 1.0), (10, 2.0)))
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_a_plot_without_matplotlib_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"the report's curves needs an extra: pip install 'diptych\[eval\]'"):
        line_plot("k", curve((0, 1.0)))


def test_curves_of_shares_are_named_and_their_axis_is_logarithmic():
    points = [(0.001, 0.5), (0.1, 0.8), (1.0, 1.0)]
    plot = ShareCurves(title="t", x="share of the queries", y="matches", curves=[("after", points), ("before", points)])
    svg = share_plot("k", plot)
    for text in ("share of the queries", "matches", "after", "before", "0.1%", "1%", "10%", "100%"):
        assert f">{text}</text>" in svg
