"""One evaluation as one self-contained HTML page: pictures on the left, words on the right.

The page asks nothing of the network: pictures are data URLs, curves are inline SVG, fonts are the reader's own, and a
content security policy in the page says so to the browser. It reads in light and dark, on a phone and on paper.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from diptych.data.images import open_image
from diptych.errors import missing_extra
from diptych.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = Image.Image | np.ndarray  # [S, S, 3] uint8
Headline = tuple[str, str, str]  # label, value, note
Confusion = tuple[str, Picture, str, Picture]  # truth, its picture, guessed label, a picture of that class
Hit = tuple[Picture, bool, float]  # picture, whether it is a match, score
Retrieval = tuple[str, Sequence[Hit]]  # query, best first
Point = tuple[float, float]

_MOSAIC = 12  # pictures of the opening panel: divides into rows of 4 and, on a phone, of 6
_LARGEST = 288  # pixels; the largest picture is shown at 144 CSS pixels, twice that on a fine screen
_LOSSLESS_UP_TO = 96  # pixels; a small drawing smears as lossy WebP, and is hardly smaller
# Colours of a plot that stand for the page's own: swapped for CSS variables once matplotlib has drawn.
_VARIABLES = {"#010101": "var(--muted)", "#020202": "var(--line)", "#030303": "var(--accent)"}
_TEXT, _GRID, _CURVE = _VARIABLES


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A picture and what the model says it shows."""

    picture: Picture
    truth: str = ""  # empty: nobody has labelled it
    guesses: tuple[tuple[str, float], ...]  # label and probability in [0, 1], likeliest first


@dataclass(frozen=True, kw_only=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]  # the first cell of each names it
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Shares side by side, e.g. the accuracy of each class."""

    title: str
    note: str = ""
    bars: Sequence[tuple[str, float]]  # label and share in [0, 1]


@dataclass(frozen=True, kw_only=True)
class ReliabilityPlot:
    """How sure a model was, against how often it was right."""

    title: str
    note: str = ""
    points: Sequence[tuple[float, float, int]]  # confidence, accuracy and number of pictures of each bin that has some


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A number of a run, step by step."""

    title: str
    points: Sequence[Point]  # step, value; at least one
    unit: str = ""
    is_share: bool = False  # in [0, 1], shown as per cent


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """What a report says, as plain data. A part that is empty is left out."""

    title: str
    summary: str  # one sentence
    headline: Sequence[Headline] = ()
    table: Table | None = None
    retrieval_table: Table | None = None
    bars: Sequence[Bars] = ()
    reliability: Sequence[ReliabilityPlot] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)  # model, data, pairs seen, seed, hardware, versions
    loss_curve: Sequence[Point] = ()  # step, nats
    accuracy_curve: Sequence[Point] = ()  # position on accuracy_axis, top-1 in [0, 1]
    accuracy_axis: str = "step"  # or "second", "epoch": one of what x counts
    curves: Sequence[Curve] = ()
    time: Sequence[Bars] = ()  # where a run's went
    right: Sequence[Prediction] = ()
    wrong: Sequence[Prediction] = ()
    confusions: Sequence[Confusion] = ()
    retrievals: Sequence[Retrieval] = ()
    classified: Sequence[Prediction] = ()  # free labels, so the truth need not be among the guesses
    credits: str = ""  # plain text, its lines are kept


def write_report(page: ReportPage, path: Path) -> None:
    """Write a report as one HTML file, whole or not at all.

    Raises:
        DataError: the file cannot be written.
        MissingExtraError: there are curves, and matplotlib is not installed.
        ImageError: a picture cannot be used.
    """
    write_text(path, render_report(page))


def render_report(page: ReportPage) -> str:
    """A report as HTML. Equal pages give equal text.

    Raises:
        MissingExtraError: there are curves, and matplotlib is not installed.
        ImageError: a picture cannot be used.
    """
    marked = "The likeliest labels with their probabilities; ✓&nbsp;marks the true one."
    sections = [
        ("numbers", "Numbers", escape(page.table.note) if page.table else "", "", _table(page.table)),
        (
            "retrieval",
            "Pictures and their texts",
            escape(page.retrieval_table.note) if page.retrieval_table else "",
            "",
            _table(page.retrieval_table),
        ),
        ("search", "Found by words", _RETRIEVAL_NOTE, "queries", [_retrieval(*r) for r in page.retrievals]),
        ("right", "Right", marked, "cards", [_prediction(p) for p in page.right]),
        ("wrong", "Wrong", marked, "cards", [_prediction(p) for p in page.wrong]),
        ("confused", "Taken for one another", _CONFUSION_NOTE, "cards", [_confusion(*c) for c in page.confusions]),
        (
            "words",
            "A few pictures in words",
            _FREE_NOTE,
            "cards",
            [_prediction(p, "guesses free") for p in page.classified],
        ),
        ("classes", "Class by class", _CLASS_NOTE, "plots", [_bars(some) for some in page.bars]),
        ("sure", "Is it as sure as it is right?", _SURE_NOTE, "plots", _reliability_plots(page.reliability)),
        ("learned", "How it learned", "", "plots", _plots(page)),
        ("time", "Where the time went", "", "plots", [_bars(some) for some in page.time]),
        ("conditions", "Conditions", "Every number above holds under these.", "", _conditions(page.conditions)),
        ("credits", "Credits", "", "", [f'<p class="credits">{escape(page.credits)}</p>'] if page.credits else []),
    ]
    shown = [section for section in sections if section[-1]]
    links = "".join(f'<li><a href="#{key}">{heading}</a></li>' for key, heading, *_ in shown)
    icon = base64.b64encode(_LOGO.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"').encode()).decode()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="{escape(page.summary)}">
<title>{escape(page.title)}</title>
<link rel="icon" href="data:image/svg+xml;base64,{icon}">
<style>{_STYLE}</style>
</head>
<body>
<header>
{_opening(page)}
{_tiles(page.headline)}
{f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(shown) > 1 else ""}
</header>
<main>
{"".join(_section(*section) for section in shown)}
</main>
<footer>{_LOGO}<p>Made by diptych: pictures and words in one space. One file, no network.</p></footer>
</body>
</html>
"""


def _opening(page: ReportPage) -> str:
    pictures = [prediction.picture for prediction in (*page.right, *page.classified, *page.wrong)][:_MOSAIC]
    if len(pictures) == _MOSAIC:
        inside = "".join(_img(picture, "") for picture in pictures)
        left = f'<div class="mosaic" role="img" aria-label="{_MOSAIC} of the pictures below">{inside}</div>'
    else:
        left = f'<div class="emblem">{_LOGO}</div>'
    words = f'<p class="kicker">diptych</p><h1>{escape(page.title)}</h1><p class="lede">{escape(page.summary)}</p>'
    return f'<div class="diptych opening">{left}<div class="words">{words}</div></div>'


def _tiles(headline: Sequence[Headline]) -> str:
    tiles = "".join(
        f'<div><dt>{escape(label)}</dt><dd class="value">{escape(value)}</dd><dd class="note">{escape(note)}</dd></div>'
        for label, value, note in headline
    )
    return f'<dl class="tiles">{tiles}</dl>' if tiles else ""


def _section(key: str, heading: str, note: str, kind: str, parts: Sequence[str]) -> str:
    lede = f'<p class="note">{note}</p>' if note else ""
    tag = "ul" if kind in ("cards", "queries") else "div"
    inside = "\n".join(parts)
    body = f'<{tag} class="{kind}">\n{inside}\n</{tag}>' if kind else inside
    return f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{heading}</h2>{lede}\n{body}\n</section>\n'


def _prediction(prediction: Prediction, kind: str = "guesses") -> str:
    truth = prediction.truth
    guesses = "".join(_guess(label, share, label == truth) for label, share in prediction.guesses)
    alt = f"Picture of {truth}" if truth else "A picture without a label"
    heading = f'<p class="label">{escape(truth)}</p>' if truth else ""
    words = f'<div class="words">{heading}<ol class="{kind}">{guesses}</ol></div>'
    return f'<li class="diptych"><div class="picture">{_img(prediction.picture, alt)}</div>{words}</li>'


def _guess(label: str, share: float, is_truth: bool) -> str:
    mark = '<span class="mark" role="img" aria-label="true label">✓</span> ' if is_truth else ""
    kind = ' class="true"' if is_truth else ""
    words = f'<span class="guess">{mark}{escape(label)}</span><span class="share">{_percent(share)}</span>'
    bar = f'<span class="bar" aria-hidden="true"><i style="width:{_percent(share)}"></i></span>'
    return f"<li{kind}>{words}{bar}</li>"


def _confusion(truth: str, truth_picture: Picture, guess: str, guess_picture: Picture) -> str:
    panels = "".join(
        f"<figure>{_img(picture, f'Picture of {label}')}"
        f'<figcaption><span class="kicker">{kicker}</span> {escape(label)}</figcaption></figure>'
        for kicker, label, picture in (("shows", truth, truth_picture), ("taken for", guess, guess_picture))
    )
    return f'<li class="diptych confusion">{panels}</li>'


def _retrieval(query: str, hits: Sequence[Hit]) -> str:
    found = "".join(_hit(rank, *hit) for rank, hit in enumerate(hits, 1))
    count = f"{sum(is_match for _, is_match, _ in hits)} of {len(hits)} match"
    words = f'<div class="words"><p class="query">{escape(query)}</p><p class="note">{count}</p></div>'
    return f'<li class="diptych query-row">{words}<ol class="hits">{found}</ol></li>'


def _hit(rank: int, picture: Picture, is_match: bool, score: float) -> str:
    kind, mark, verdict = (' class="match"', "✓ ", "a match") if is_match else ("", "", "not a match")
    return f'<li{kind}>{_img(picture, f"Result {rank}, {verdict}")}<span class="score">{mark}{score:.2f}</span></li>'


def _table(table: Table | None) -> list[str]:
    if not table:
        return []
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
    )
    return [f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>']


def _bars(bars: Bars) -> str:
    rows = "".join(_guess(label, share, is_truth=False) for label, share in bars.bars)
    caption = f"<figcaption><b>{escape(bars.title)}</b> {escape(bars.note)}</figcaption>"
    return f'<figure class="plot">{caption}<ol class="guesses">{rows}</ol></figure>'


def _conditions(conditions: Mapping[str, str]) -> list[str]:
    rows = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in conditions.items())
    return [f'<dl class="conditions">{rows}</dl>'] if rows else []


def _img(picture: Picture, alt: str) -> str:
    image = open_image(picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).copy()
    image.thumbnail((_LARGEST, _LARGEST))
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", lossless=max(image.size) <= _LOSSLESS_UP_TO, quality=85, method=4)
    url = "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode()
    return f'<img src="{url}" alt="{escape(alt)}" width="{image.width}" height="{image.height}">'


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _plots(page: ReportPage) -> list[str]:
    plots = []
    if page.loss_curve:
        last = f"{page.loss_curve[-1][1]:.3g} nats at step {page.loss_curve[-1][0]:,.0f}"
        window = max(1, len(page.loss_curve) // 50)
        legend = f" Pale: as logged; firm: mean of {window} neighbours." if window > 1 else ""
        curve = _curve("loss", page.loss_curve, "step", window)
        plots.append(_plot("Training loss", f"Last: {last}.{legend}", curve))
    if page.accuracy_curve:
        last = f"{_percent(page.accuracy_curve[-1][1])} at {page.accuracy_axis} {page.accuracy_curve[-1][0]:,.0f}"
        curve = _curve("accuracy", page.accuracy_curve, page.accuracy_axis, window=1, is_share=True)
        plots.append(_plot("Zero-shot top-1", f"Last: {last}.", curve))
    return plots + [_of_run(number, curve) for number, curve in enumerate(page.curves)]


def _of_run(number: int, curve: Curve) -> str:
    step, value = curve.points[-1]
    last = _percent(value) if curve.is_share else f"{value:.4g} {curve.unit}".rstrip()
    window = max(1, len(curve.points) // 50)
    legend = f" Pale: as logged; firm: mean of {window} neighbours." if window > 1 else ""
    svg = _curve(f"curve-{number}", curve.points, "step", window, is_share=curve.is_share)
    return _plot(escape(curve.title), f"Last: {last} at step {step:,.0f}.{legend}", svg)


def _plot(name: str, note: str, svg: str) -> str:
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{name}, a curve. {escape(note)}"', 1)
    return f'<figure class="plot"><figcaption><b>{name}</b> {escape(note)}</figcaption>{svg}</figure>'


def _reliability_plots(plots: Sequence[ReliabilityPlot]) -> list[str]:
    return [_plot(escape(plot.title), plot.note, _reliability(number, plot)) for number, plot in enumerate(plots)]


def _reliability(number: int, plot: ReliabilityPlot) -> str:
    """Bins as dots, the larger the more pictures; on the diagonal a model is as sure as it is right."""
    figure, axes = _figure()
    sure, right, rows = np.asarray(plot.points, dtype=float).T
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1.2)
    axes.plot(sure, right, color=_CURVE, linewidth=0.8, alpha=0.5)
    axes.scatter(sure, right, s=8 + 120 * np.sqrt(rows / rows.max()), color=_CURVE, linewidths=0)
    axes.set_xlabel("confidence", color=_TEXT, fontsize=12)
    axes.set_ylabel("accuracy", color=_TEXT, fontsize=12)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.04, 1.04)
    return _svg(figure, f"reliability-{number}")


def _curve(key: str, points: Sequence[Point], axis: str, window: int, *, is_share: bool = False) -> str:
    """One curve as inline SVG in the page's own colours and font.

    Args:
        key: no other plot of the page has it.
        points: x and y.
        axis: what x is.
        window: how many neighbours the firm line averages; above 1 the points themselves stay as a pale line.
        is_share: y is shown as per cent.
    """
    figure, axes = _figure()
    from matplotlib.ticker import FuncFormatter, MaxNLocator, StrMethodFormatter

    x, y = np.asarray(points, dtype=float).T
    if window > 1:
        axes.plot(x, y, color=_CURVE, linewidth=0.8, alpha=0.3)
        x, y = (np.convolve(values, np.full(window, 1 / window), mode="valid") for values in (x, y))
    axes.plot(x, y, color=_CURVE, linewidth=2)
    axes.plot(x[-1:], y[-1:], color=_CURVE, marker="o", markersize=5)
    axes.set_xlabel(axis, color=_TEXT, fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=min(0, y.min()))
    if is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    elif np.abs(y).max() < 0.01:  # `_for_the_page` keeps two places of what is written as 0.0005
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1e}" if value else "0"))
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


_RETRIEVAL_NOTE = "Words, looked for among the pictures; best first, with scores. ✓&nbsp;marks a match."
_CONFUSION_NOTE = "On the left what a picture shows, on the right what it was taken for."
_CLASS_NOTE = "Share of the pictures of each class that are named right; where there are many, the worst and the best."
_SURE_NOTE = "On the line a model is as sure as it is right; below it, surer. A larger dot stands for more pictures."
_FREE_NOTE = "Labels chosen freely, and the probability the model gives to each."

# Mid-tones, so that it can also be the icon of a tab of either colour.
_LOGO = """<svg class="logo" viewBox="0 0 48 36" aria-hidden="true" fill="none" stroke="#4f918a" stroke-width="2.5" \
stroke-linecap="round" stroke-linejoin="round"><path d="M2 4.5 22 2v32L2 31.5zM46 4.5 26 2v32l20-2.5z"/>\
<path d="M22 10h4M22 26h4"/><circle cx="9.5" cy="12" r="2.7"/><path d="m2.5 26 7-7 4.5 4 7.5-8"/>\
<path stroke="#b9814f" d="M31 12.5h9.5M31 18h9.5M31 23.5h6"/></svg>"""

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f3ed; --panel: #fff; --ink: #25231f; --muted: #686258; --line: #ddd6c9; --tint: #efeae0;
  --accent: #2b6f6a; --other: #b9814f;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", Georgia, "Liberation Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #16181a; --panel: #1e2123; --ink: #ebe6dc; --muted: #a69f93; --line: #373a3c; --tint: #292d2f;
    --accent: #78bdb4; --other: #cf9a66;
  }
  .picture img, .hits img, .mosaic img, .confusion img { filter: brightness(.93); }
}
*, ::before, ::after { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; padding: clamp(1rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2.5rem); max-width: 76rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 var(--sans); overflow-wrap: anywhere;
}
h1, h2, p, dl, dd, ul, ol, figure { margin: 0; padding: 0; }
ul, ol { list-style: none; }
h1, h2, .lede, .value, .query, .label { font-family: var(--serif); font-weight: 400; text-wrap: balance; }
h1 { font-size: clamp(2rem, 5vw, 3.3rem); line-height: 1.1; letter-spacing: -.015em; }
h2 { font-size: clamp(1.5rem, 3vw, 1.9rem); line-height: 1.2; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
a { color: var(--accent); text-underline-offset: .2em; text-decoration-thickness: 1px; }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
.note { color: var(--muted); font-size: .875rem; }
.kicker { color: var(--muted); font-size: .72rem; letter-spacing: .09em; text-transform: uppercase; }
.logo { display: block; width: 2.5rem; }

/* Two panels and the hinge between them: a line with two knuckles. */
.diptych {
  display: grid; grid-template-columns: 9rem minmax(0, 1fr); background: var(--panel);
  border: 1px solid var(--line); border-radius: 6px;
}
.diptych > * { padding: 1rem; min-width: 0; }
.diptych > :last-child { position: relative; border-left: 1px solid var(--line); }
.diptych > :last-child::before, .diptych > :last-child::after {
  content: ""; position: absolute; left: -2.5px; width: 4px; height: 14px; border-radius: 2px; background: var(--other);
}
.diptych > :last-child::before { top: 18%; }
.diptych > :last-child::after { bottom: 18%; }

.opening { grid-template-columns: 1fr 1fr; }
.opening > * { padding: clamp(1.25rem, 3.5vw, 2.75rem); }
.opening .words { display: flex; flex-direction: column; justify-content: center; gap: 1rem; }
.opening .kicker { font-size: .8rem; color: var(--accent); }
.mosaic {
  display: grid; grid-template-columns: repeat(4, 1fr); gap: clamp(.4rem, 1.2vw, .9rem); align-content: center;
}
.emblem { display: grid; place-items: center; }
.emblem .logo { width: min(14rem, 60%); }
.lede { font-size: clamp(1.1rem, 2vw, 1.3rem); line-height: 1.45; color: var(--muted); text-wrap: pretty; }

.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem 2rem; margin: 2.25rem 0;
}
.tiles > div { border-top: 2px solid var(--accent); padding-top: .7rem; }
.tiles dt { font-size: .9rem; }
.value { font-size: 2.35rem; line-height: 1.2; font-variant-numeric: lining-nums tabular-nums; }
nav ul { display: flex; flex-wrap: wrap; gap: .35rem 1.5rem; font-size: .925rem; margin-top: 1.5rem; }

section { margin-top: clamp(2.75rem, 6vw, 4.25rem); scroll-margin-top: 1rem; }
section > h2 + .note { margin-top: .25rem; max-width: 44rem; }
section > :last-child { margin-top: 1.25rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
.picture { display: grid; align-content: center; }
.cards .words { display: flex; flex-direction: column; justify-content: center; gap: .65rem; }
.label { font-size: 1.15rem; line-height: 1.25; }
.guesses { display: grid; gap: .5rem; font-size: .85rem; line-height: 1.3; }
.guesses li { display: grid; grid-template-columns: 1fr auto; gap: .2rem .75rem; color: var(--muted); }
.guesses .true, .guesses li:first-child { color: var(--ink); }
.share, .score { white-space: nowrap; font-variant-numeric: tabular-nums; }
.mark, .match .score { color: var(--accent); font-weight: 700; }
.bar { grid-column: 1 / -1; height: 5px; border-radius: 3px; background: var(--tint); overflow: hidden; }
.bar i { display: block; height: 100%; max-width: 100%; border-radius: 3px; background: var(--other); }
.true .bar i, .free li:first-child .bar i { background: var(--accent); }

.confusion { grid-template-columns: 1fr 1fr; }
.confusion figure { display: grid; grid-template-rows: auto 1fr; gap: .75rem; }
.confusion img { max-width: 9rem; margin: 0 auto; }
.confusion figcaption { font-size: .925rem; line-height: 1.3; }
.confusion .kicker { display: block; }

.queries { display: grid; gap: 1rem; }
.query-row { grid-template-columns: minmax(0, 15rem) minmax(0, 1fr); }
.query-row .words { display: flex; flex-direction: column; justify-content: center; gap: .35rem; }
.query { font-size: 1.3rem; line-height: 1.25; font-style: italic; }
.query::before { content: "\\201c"; } .query::after { content: "\\201d"; }
.hits { display: grid; grid-template-columns: repeat(auto-fit, minmax(4.75rem, 1fr)); gap: .75rem; }
.hits li { max-width: 7rem; font-size: .8rem; text-align: center; color: var(--muted); }
.hits img { padding: 2px; outline: 1px solid var(--line); margin-bottom: .3rem; }
.hits .match img { outline: 3px solid var(--accent); }

.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem; }
.plot { max-width: 40rem; }
.plot figcaption { color: var(--muted); font-size: .875rem; margin-bottom: .5rem; }
.plot figcaption b { color: var(--ink); font-weight: 600; display: block; }
.plot svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
.plot text { font-family: var(--sans) !important; }

.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .925rem; }
th, td { text-align: right; padding: .45rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 400; color: var(--muted); }
tbody th { color: var(--ink); }
th:first-child { text-align: left; padding-left: 0; }

.conditions { border-top: 1px solid var(--line); }
.conditions > div {
  display: grid; grid-template-columns: minmax(7rem, 15rem) 1fr; gap: 1rem; padding: .55rem 0;
  border-bottom: 1px solid var(--line);
}
.conditions dt { color: var(--muted); }
.credits { white-space: pre-line; font-size: .875rem; color: var(--muted); max-width: 48rem; }
footer {
  display: flex; align-items: center; gap: .9rem; margin-top: 4rem; padding-top: 1.25rem;
  border-top: 1px solid var(--line); color: var(--muted); font-size: .85rem;
}

@media (max-width: 44rem) {
  .opening, .query-row { grid-template-columns: 1fr; }
  .opening > :last-child, .query-row > :last-child { border-left: 0; border-top: 1px solid var(--line); }
  .opening > :last-child::before, .opening > :last-child::after,
  .query-row > :last-child::before, .query-row > :last-child::after {
    top: -2.5px; bottom: auto; left: 18%; width: 14px; height: 4px;
  }
  .opening > :last-child::after, .query-row > :last-child::after { left: auto; right: 18%; }
  .mosaic { grid-template-columns: repeat(6, 1fr); }
  .tiles { grid-template-columns: 1fr 1fr; gap: 1rem; }
  .diptych:not(.opening, .query-row, .confusion) { grid-template-columns: 8rem minmax(0, 1fr); }
  .hits { grid-template-columns: repeat(4, 1fr); }
  .conditions > div { grid-template-columns: 7rem 1fr; }
}
@media print {
  @page { margin: 14mm; }
  html { font-size: 9pt; }
  :root { --paper: #fff; --panel: #fff; color-scheme: light; }
  body { padding: 0; max-width: none; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  nav { display: none; }
  .diptych, .tiles > div, .plot, .conditions > div { break-inside: avoid; }
  h2, h2 + .note { break-after: avoid; }
}
"""
