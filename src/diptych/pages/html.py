"""A page as one self-contained HTML file: pictures on the left, words on the right.

The page asks nothing of the network: pictures are data URLs, curves are inline SVG, fonts are the reader's own, and a
content security policy in the page says so to the browser. It has no script, and reads in light and dark, on a phone
and on paper.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from diptych.data.images import open_image
from diptych.files import write_text
from diptych.pages.page import (
    Bars,
    CaptionedPicture,
    Headline,
    ImageLike,
    IntervalPlot,
    LinePlot,
    PageSection,
    PageTable,
    PicturePair,
    Prediction,
    RankedPicture,
    ReliabilityPlot,
    ReportPage,
    Retrieval,
    ShareCurves,
)
from diptych.pages.plots import (
    interval_plot,
    line_plot,
    neighbours,
    reliability_plot,
    share_plot,
    without_matplotlib,
)

_MOSAIC = 12  # pictures of the opening panel: divides into rows of 4 and, on a phone, of 6
_LARGEST = 288  # pixels; the largest picture is shown at 144 CSS pixels, twice that on a fine screen
_LOSSLESS_UP_TO = 96  # pixels; a small drawing smears as lossy WebP, and is hardly smaller

_STYLE = Path(__file__).parent / "style.css"

# Mid-tones, so that it can also be the icon of a tab of either colour.
_LOGO = """<svg class="logo" viewBox="0 0 48 36" aria-hidden="true" fill="none" stroke="#4f918a" stroke-width="2.5" \
stroke-linecap="round" stroke-linejoin="round"><path d="M2 4.5 22 2v32L2 31.5zM46 4.5 26 2v32l20-2.5z"/>\
<path d="M22 10h4M22 26h4"/><circle cx="9.5" cy="12" r="2.7"/><path d="m2.5 26 7-7 4.5 4 7.5-8"/>\
<path stroke="#b9814f" d="M31 12.5h9.5M31 18h9.5M31 23.5h6"/></svg>"""


def write_report(page: ReportPage, path: Path) -> str:
    """Write a report as one HTML file, whole or not at all.

    Returns:
        A sentence on what had to be left out: curves, where matplotlib is not installed. Mostly empty.

    Raises:
        DataError: the file cannot be written.
        ImageError: a picture cannot be used.
    """
    write_text(path, render_report(page))
    drawn = [plot for section in page.sections for plot in section.plots if isinstance(plot, ShareCurves)]
    return without_matplotlib() if page.curves or page.reliability or page.intervals or drawn else ""


def render_report(page: ReportPage) -> str:
    """A report as HTML. Equal pages give equal text; curves need matplotlib, and are left out without it.

    Raises:
        ImageError: a picture cannot be used.
    """
    sections = [section for section in _sections(page) if section.parts]
    links = "".join(f'<li><a href="#{section.key}">{section.heading}</a></li>' for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
{_head(page)}
</head>
<body>
<header>
{_opening(page)}
{_tiles(page.headline)}
{f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else ""}
</header>
<main>
{"".join(map(_section, sections))}
</main>
<footer>{_LOGO}<p>Made by diptych: pictures and words in one space. One file, no network.</p></footer>
</body>
</html>
"""


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A part of the page as HTML; without parts it is left out."""

    key: str  # its id
    heading: str
    note: str = ""
    kind: str = ""  # how its parts are laid out, a class of the style sheet
    parts: Sequence[str]


def _sections(page: ReportPage) -> Iterator[_Section]:
    """In the order of the page."""
    yield _Section(key="numbers", heading="Numbers", note=_note_of(page.table), parts=_table(page.table))
    yield _Section(
        key="retrieval",
        heading="Pictures and their texts",
        note=_note_of(page.retrieval_table),
        parts=_table(page.retrieval_table),
    )
    yield _Section(
        key="search",
        heading="Found by words",
        note="Words, looked for among the pictures; best first, with scores." + _found_note(page.retrievals),
        kind="queries",
        parts=[_retrieval(*retrieval) for retrieval in page.retrievals],
    )
    for key, heading, cards in (("right", "Right", page.right), ("wrong", "Wrong", page.wrong)):
        note = "The likeliest labels with their probabilities" + _tick_note(cards)
        yield _Section(key=key, heading=heading, note=note, kind="cards", parts=[_prediction(card) for card in cards])
    yield _Section(
        key="confused",
        heading="Taken for one another",
        note="On the left what a picture shows, on the right what it was taken for.",
        kind="cards",
        parts=[_confusion(*confusion) for confusion in page.confusions],
    )
    yield _Section(
        key="words",
        heading="A few pictures in words",
        note="Labels chosen freely, and the probability the model gives to each.",
        kind="cards",
        parts=[_prediction(card, "guesses free") for card in page.classified],
    )
    for number, group in enumerate(page.pairs):
        yield _Section(
            key=f"pairs-{number}",
            heading=escape(group.heading),
            note=escape(group.note),
            kind="cards",
            parts=[_pair(pair) for pair in group.pairs],
        )
    yield from _plots(page)
    for number, section in enumerate(page.sections):
        yield from _free(f"part-{number}", section)
    yield _Section(key="left-out", heading="Left out", note=_note_of(page.left_out), parts=_table(page.left_out))
    yield _Section(
        key="conditions",
        heading="Conditions",
        note="Every number above holds under these.",
        parts=_conditions(page.conditions),
    )
    credits = [f'<p class="credits">{escape(page.credits)}</p>'] if page.credits else []
    yield _Section(key="credits", heading="Credits", parts=credits)


def _plots(page: ReportPage) -> Iterator[_Section]:
    curves, reliability, intervals = (
        ((), (), ()) if without_matplotlib() else (page.curves, page.reliability, page.intervals)
    )
    yield _Section(
        key="intervals",
        heading="Data set by data set",
        note="A dot is a data set, its line an interval; on the dashed line there is no difference.",
        kind="plots",
        parts=[_intervals(f"intervals-{number}", plot) for number, plot in enumerate(intervals)],
    )
    yield _Section(
        key="classes",
        heading="Class by class",
        note="Share of the pictures of each class that are named right; where there are many, the worst and the best.",
        kind="plots",
        parts=[_bars(some) for some in page.bars],
    )
    yield _Section(
        key="sure",
        heading="Is it as sure as it is right?",
        note="On the dashed line a model is as sure as it is right; below it, surer. A larger dot is more pictures.",
        kind="plots",
        parts=[_reliability(f"reliability-{number}", plot) for number, plot in enumerate(reliability)],
    )
    yield _Section(
        key="rejection",
        heading="When it may hold an answer back",
        note=_note_of(page.rejection),
        parts=_table(page.rejection),
    )
    yield _Section(
        key="learned",
        heading="How it learned",
        kind="plots",
        parts=[_curve(f"curve-{number}", plot) for number, plot in enumerate(curves)],
    )
    yield _Section(key="time", heading="Where the time went", kind="plots", parts=[_bars(some) for some in page.time])


def _free(key: str, section: PageSection) -> Iterator[_Section]:
    """A section under a heading of its own: table, plots, pictures and text below one another."""
    plots = [plot for plot in section.plots if isinstance(plot, Bars) or not without_matplotlib()]
    parts: list[str] = []
    if section.lead:
        parts.append(f'<ul class="lead">{"".join(f"<li>{_prose(one)}</li>" for one in section.lead)}</ul>')
    for table in section.tables:
        inside = "".join(_table(table)) + (f'<p class="note">{escape(table.note)}</p>' if table.note else "")
        fold = f"<details><summary>{escape(table.fold)}</summary>{inside}</details>"
        parts.append(fold if table.fold else inside)
    if plots:
        drawn = [
            _bars(plot) if isinstance(plot, Bars) else _shares(f"{key}-{number}", plot)
            for number, plot in enumerate(plots)
        ]
        parts.append(f'<div class="plots">{"".join(drawn)}</div>')
    if section.captioned:
        parts.append(f'<ul class="cards">{"".join(map(_captioned, section.captioned))}</ul>')
    if section.text:
        parts.append(f'<p class="credits">{escape(section.text)}</p>')
    yield _Section(key=key, heading=escape(section.heading), note=escape(section.note), kind="parts", parts=parts)


def _head(page: ReportPage) -> str:
    icon = base64.b64encode(_LOGO.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"').encode()).decode()
    return f"""<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="{escape(page.summary)}">
<title>{escape(page.title)}</title>
<link rel="icon" href="data:image/svg+xml;base64,{icon}">
<style>
{_STYLE.read_text(encoding="utf-8")}</style>"""


def _opening(page: ReportPage) -> str:
    pictures = [one.picture for one in (*page.right, *page.classified, *page.wrong)]
    # One of each section, then the next of each.
    captioned = zip_longest(*([one.picture for one in section.captioned] for section in page.sections))
    pictures += [picture for some in captioned for picture in some if picture is not None]
    pictures = pictures[:_MOSAIC]
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


def _section(section: _Section) -> str:
    key, kind = section.key, section.kind
    lede = f'<p class="note">{section.note}</p>' if section.note else ""
    tag = "ul" if kind in ("cards", "queries") else "div"
    inside = "\n".join(section.parts)
    body = f'<{tag} class="{kind}">\n{inside}\n</{tag}>' if kind else inside
    heading = f'<h2 id="{key}-h">{section.heading}</h2>'
    return f'<section id="{key}" aria-labelledby="{key}-h">{heading}{lede}\n{body}\n</section>\n'


def _tick_note(cards: Sequence[Prediction]) -> str:
    has_tick = any(card.truth == label for card in cards for label, _ in card.guesses)
    return "; ✓&nbsp;marks the true one." if has_tick else "."


def _found_note(retrievals: Sequence[Retrieval]) -> str:
    found = [hit for _, hits in retrievals for hit in hits]
    match = " ✓&nbsp;marks a match." if any(hit.is_match for hit in found) else ""
    maps = " <i>Why these?</i> shows which part of a picture speaks most for the words: a hint, and no mask."
    return match + (maps if any(hit.why is not None for hit in found) else "")


def _prediction(prediction: Prediction, kind: str = "guesses") -> str:
    truth = prediction.truth
    guesses = "".join(_guess(label, share, is_truth=label == truth) for label, share in prediction.guesses)
    alt = f"Picture of {truth}" if truth else "A picture without a label"
    heading = f'<p class="label">{escape(truth)}</p>' if truth else ""
    words = f'<div class="words">{heading}<ol class="{kind}">{guesses}</ol></div>'
    return f'<li class="diptych"><div class="picture">{_img(prediction.picture, alt)}</div>{words}</li>'


def _guess(label: str, share: float, *, is_truth: bool) -> str:
    mark = '<span class="mark" role="img" aria-label="true label">✓</span> ' if is_truth else ""
    kind = ' class="true"' if is_truth else ""
    words = f'<span class="guess">{mark}{escape(label)}</span><span class="share">{_percent(share)}</span>'
    bar = f'<span class="bar" aria-hidden="true"><i style="width:{_percent(share)}"></i></span>'
    return f"<li{kind}>{words}{bar}</li>"


def _confusion(truth: str, truth_picture: ImageLike, guess: str, guess_picture: ImageLike) -> str:
    panels = "".join(
        f"<figure>{_img(picture, f'Picture of {label}')}"
        f'<figcaption><span class="kicker">{kicker}</span> {escape(label)}</figcaption></figure>'
        for kicker, label, picture in (("shows", truth, truth_picture), ("taken for", guess, guess_picture))
    )
    return f'<li class="diptych confusion">{panels}</li>'


def _pair(pair: PicturePair) -> str:
    panels = "".join(
        f"<figure>{_img(picture, f'Picture of {label}')}<figcaption>{escape(label)}</figcaption></figure>"
        for label, picture in ((pair.left_label, pair.left), (pair.right_label, pair.right))
    )
    return f'<li><div class="diptych confusion">{panels}</div><p class="note">{escape(pair.note)}</p></li>'


def _captioned(captioned: CaptionedPicture) -> str:
    picture = _img(captioned.picture, "The picture of these words") if captioned.picture is not None else ""
    note = f'<p class="note">{escape(captioned.note)}</p>' if captioned.note else ""
    words = f'<div class="words"><p class="label" dir="auto">{escape(captioned.caption)}</p>{note}</div>'
    return f'<li class="diptych"><div class="picture">{picture}</div>{words}</li>'


def _retrieval(query: str, hits: Sequence[RankedPicture]) -> str:
    found = "".join(_hit(rank, hit) for rank, hit in enumerate(hits, 1))
    known = [hit.is_match for hit in hits if hit.is_match is not None]
    count = f'<p class="note">{sum(known)} of {len(known)} match</p>' if known else ""
    words = f'<div class="words"><p class="query">{escape(query)}</p>{count}</div>'
    return f'<li class="diptych query-row">{words}<div><ol class="hits">{found}</ol>{_why(query, hits)}</div></li>'


def _hit(rank: int, hit: RankedPicture) -> str:
    verdict = {None: "", True: ", a match", False: ", not a match"}[hit.is_match]
    kind, mark = (' class="match"', "✓ ") if hit.is_match else ("", "")
    picture = _img(hit.picture, f"Result {rank}{verdict}")
    return f'<li{kind}>{picture}<span class="score">{mark}{hit.score:.2f}</span></li>'


def _why(query: str, hits: Sequence[RankedPicture]) -> str:
    """The maps of what was found, folded away; nothing where there are none."""
    maps = "".join(
        f"<li>{_img(hit.why, f'Result {rank}: where it speaks for {query}')}</li>"
        for rank, hit in enumerate(hits, 1)
        if hit.why is not None
    )
    return f'<details><summary>Why these?</summary><ol class="hits">{maps}</ol></details>' if maps else ""


def _note_of(table: PageTable | None) -> str:
    return escape(table.note) if table else ""


def _table(table: PageTable | None) -> list[str]:
    if not table:
        return []
    said = _prose if table.is_prose else escape
    of_words = [_is_of_words(column) for column in zip(*table.rows, strict=True)] or [False] * len(table.header)
    kinds = [' class="words"' if one else "" for one in of_words]
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(table.header, kinds, strict=True))
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        f"{''.join(f'<td{kind}>{said(cell)}</td>' for cell, kind in zip(row[1:], kinds[1:], strict=True))}</tr>"
        for row in table.rows
    )
    # In the tab order, as a wide one scrolls sideways where the screen is narrow.
    kind = "table prose" if table.is_prose else "table"
    frame = f'<div class="{kind}" role="region" aria-label="Table: {escape(table.header[0])}" tabindex="0">'
    return [f"{frame}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"]


def _prose(sentence: str) -> str:
    """A sentence in which no line ends between a number and what it is of."""
    return escape(sentence).replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")


def _is_of_words(cells: Sequence[str]) -> bool:
    """Whether no cell of a column starts with a number, so that it reads from the left."""
    return not any(cell.lstrip("+-−.")[:1].isdigit() for cell in cells) and any(cell.strip("- ") for cell in cells)


def _bars(bars: Bars) -> str:
    rows = "".join(_guess(label, share, is_truth=False) for label, share in bars.bars)
    caption = f"<figcaption><b>{escape(bars.title)}</b> {escape(bars.note)}</figcaption>"
    return f'<figure class="plot">{caption}<ol class="guesses">{rows}</ol></figure>'


def _conditions(conditions: Mapping[str, str]) -> list[str]:
    rows = "".join(
        f"<div><dt>{_breakable(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in conditions.items()
    )
    return [f'<dl class="conditions">{rows}</dl>'] if rows else []


def _breakable(name: str) -> str:
    """A dotted name breaks after its dots where it must, not within a word."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _curve(key: str, plot: LinePlot) -> str:
    step, value = plot.points[-1]
    number = _percent(value) if plot.is_share else f"{value:.4g} {plot.unit}".rstrip()
    note = f"Last: {number} at step {step:,.0f}."
    if plot.chance is not None:
        note += f" Dashed: chance, {f'{plot.chance:.2%}' if plot.is_share else f'{plot.chance:.4g}'}."
    if (window := neighbours(plot.points)) > 1:
        note += f" Pale: as logged; firm: mean of {window} neighbours."
    return _plot(plot.title, "a curve", note, line_plot(key, plot))


def _reliability(key: str, plot: ReliabilityPlot) -> str:
    return _plot(plot.title, "accuracy by confidence", plot.note, reliability_plot(key, plot))


def _intervals(key: str, plot: IntervalPlot) -> str:
    return _plot(plot.title, f"{plot.y} by {plot.x}", plot.note, interval_plot(key, plot))


def _shares(key: str, plot: ShareCurves) -> str:
    return _plot(plot.title, f"{plot.y} by {plot.x}", plot.note, share_plot(key, plot))


def _plot(title: str, what: str, note: str, svg: str) -> str:
    title, note = escape(title), escape(note)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}, {what}. {note}"', 1)
    return f'<figure class="plot"><figcaption><b>{title}</b> {note}</figcaption>{svg}</figure>'


def _img(picture: ImageLike, alt: str) -> str:
    image = open_image(picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).copy()
    image.thumbnail((_LARGEST, _LARGEST))
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", lossless=max(image.size) <= _LOSSLESS_UP_TO, quality=85, method=4)
    url = "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode()
    return f'<img src="{url}" alt="{escape(alt)}" width="{image.width}" height="{image.height}">'


def _percent(share: float) -> str:
    return f"{share:.1%}"
