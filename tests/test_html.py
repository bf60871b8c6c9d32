import base64
import dataclasses
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from chromium import browser_tab, needs_chromium
from diptych.errors import ImageError
from diptych.pages.html import render_report, write_report
from diptych.pages.page import (
    Bars,
    CaptionedPicture,
    LinePlot,
    PageSection,
    PageTable,
    Prediction,
    RankedPicture,
    ReliabilityPlot,
    ReportPage,
)  # fmt: skip

VOID = {"meta", "link", "img", "br", "hr", "input"}
NASTY = '<script>alert("1 & 2")</script>'


class Reader(HTMLParser):
    """Checks that tags are balanced; keeps every element's attributes and the text between."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"closed out of order: {tag}"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def picture(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def prediction(seed: int, truth: str = "owl") -> Prediction:
    return Prediction(picture=picture(seed), truth=truth, guesses=(("owl", 0.612), ("teapot", 0.25), ("harp", 0.0049)))


def ranked(seed: int, score: float, **more: Any) -> RankedPicture:
    return RankedPicture(picture=picture(seed), score=score, **more)


def decode(url: str | None) -> Image.Image:
    assert url
    head, _, body = url.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True))).convert("RGB")


@pytest.fixture(scope="module")
def page() -> ReportPage:
    return ReportPage(
        title="Pictograms & words",
        summary="A model names drawings it has never seen.",
        headline=[("top-1", "41.2 %", "95 % interval 39.0-43.4; chance 0.05 %"), ("top-5", "68.7 %", "")],
        conditions={"Model": "diptych-pictogram-small", "Seed": "17"},
        curves=[
            LinePlot(
                title="Training loss", points=[(step, 8 / (1 + step / 100)) for step in range(0, 1001, 10)], unit="nats"
            ),
            LinePlot(
                title="Zero-shot top-1", points=[(60, 0.05), (120, 0.25), (3000, 0.4117)], is_share=True, chance=0.0005
            ),
        ],
        right=[prediction(1)],
        wrong=[prediction(2, truth="harp")],
        confusions=[("owl", picture(3), "teapot", picture(4))],
        retrievals=[
            ("a red fruit", [ranked(5, 0.314, is_match=True), ranked(6, -0.052, is_match=False)]),
            ("something odd", [ranked(8, 0.271)]),
        ],
        classified=[prediction(7, truth="")],
        credits="Noto Emoji: Apache-2.0\nTwemoji: CC BY 4.0, https://example.org/twemoji",
    )


@pytest.fixture(scope="module")
def html(page: ReportPage) -> str:
    return render_report(page)


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    return Reader(html)


def test_every_word_and_number_of_the_page_is_in_it(read: Reader):
    for part in (
        "Pictograms & words", "A model names drawings it has never seen.",
        "top-1 41.2 % 95 % interval 39.0-43.4; chance 0.05 %", "top-5 68.7 %",
        "Seed 17", "a red fruit", "1 of 2 match", "✓ 0.31", "-0.05",
        "shows owl", "taken for teapot", "teapot 25.0%", "harp 0.5%",
        "something odd 0.27",
        "Last: 0.7273 nats at step 1,000. Pale: as logged; firm: mean of 2 neighbours.",
        "Last: 41.2% at step 3,000. Dashed: chance, 0.05%.",
        "Noto Emoji: Apache-2.0", "https://example.org/twemoji",
    ):  # fmt: skip
        assert part in read.text


def test_the_mark_of_truth_stands_at_the_true_guess_alone(read: Reader):
    assert "owl ✓ owl 61.2% teapot 25.0% harp 0.5%" in read.text  # right
    assert "harp owl 61.2% teapot 25.0% ✓ harp 0.5%" in read.text  # wrong
    assert read.text.count("✓ owl") == 1
    assert read.text.count("✓ harp") == 1


def test_a_bar_is_as_wide_as_its_probability(read: Reader):
    assert [bar["style"] for bar in read.all("i")[:3]] == ["width:61.2%", "width:25.0%", "width:0.5%"]


def test_nothing_is_fetched(html: str, read: Reader):
    for tag, attributes in read.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("data:", "#")), f"<{tag} {name}={target}>"
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", html.replace("https://example.org/twemoji", ""))
    assert not read.all("script")
    policy = next(meta for meta in read.all("meta") if "http-equiv" in meta)
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:")


def test_links_lead_to_ids_and_ids_are_unique(read: Reader):
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [str(attributes.get("href")) for _, attributes in read.elements]
    inside = {target[1:] for target in targets if target.startswith("#")}
    assert inside >= {"search", "right", "wrong", "confused", "words", "learned", "conditions", "credits"}
    assert inside <= set(ids)


def test_pictures_come_out_as_they_went_in_and_say_what_they_show(read: Reader):
    images = read.all("img")
    assert [image["alt"] for image in images] == [
        "Result 1, a match", "Result 2, not a match", "Result 1", "Picture of owl", "Picture of harp",
        "Picture of owl", "Picture of teapot", "A picture without a label",
    ]  # fmt: skip
    for image, seed in zip(images, (5, 6, 8, 1, 2, 3, 4, 7), strict=True):
        np.testing.assert_array_equal(np.asarray(decode(image["src"])), picture(seed))


def test_a_large_picture_is_made_smaller_and_alpha_lies_over_white():
    clear = Image.new("RGBA", (1000, 500), (255, 0, 0, 0))
    html = render_report(ReportPage(title="t", summary="s", right=[Prediction(picture=clear, truth="x", guesses=())]))
    (image,) = Reader(html).all("img")
    shown = decode(image["src"])
    assert shown.size == (288, 144) == (int(image["width"] or 0), int(image["height"] or 0))
    assert shown.getpixel((100, 100)) == (255, 255, 255)
    assert clear.size == (1000, 500)


def test_a_picture_that_cannot_be_used_is_named():
    empty = Prediction(picture=Image.new("RGB", (0, 4)), guesses=())
    with pytest.raises(ImageError):
        render_report(ReportPage(title="t", summary="s", right=[empty]))


def test_the_opening_shows_twelve_pictures_once_there_are_twelve():
    def mosaic(count: int) -> int:
        page = ReportPage(title="t", summary="s", right=[prediction(1)] * count)
        return sum(image["alt"] == "" for image in Reader(render_report(page)).all("img"))

    assert [mosaic(11), mosaic(12), mosaic(13)] == [0, 12, 12]


def test_everything_from_outside_is_escaped(html: str):
    nasty = Prediction(picture=picture(0), truth=NASTY, guesses=((NASTY, 0.5),))
    hostile = ReportPage(
        title=NASTY,
        summary=NASTY,
        headline=[(NASTY, NASTY, NASTY)],
        conditions={NASTY: NASTY},
        table=PageTable(header=[NASTY], rows=[[NASTY]], note=NASTY),
        bars=[Bars(title=NASTY, note=NASTY, bars=[(NASTY, 0.5)])],
        reliability=[ReliabilityPlot(title=NASTY, note=NASTY, points=[(0.5, 0.5, 1)])],
        curves=[LinePlot(title=NASTY, points=[(1, 0.5)], unit=NASTY)],
        right=[nasty],
        wrong=[nasty],
        confusions=[(NASTY, picture(1), NASTY, picture(2))],
        retrievals=[(NASTY, [ranked(3, 1.0, is_match=True, why=picture(3))])],
        classified=[nasty],
        credits=NASTY,
    )
    read = Reader(render_report(hostile))
    assert not read.all("script")
    assert "<script" not in render_report(hostile)
    # title twice, summary, 3 of the headline, 3 of the table, 3 of the bars, 2 of the reliability plot, title and unit
    # of the curve, 2 conditions, 2 of a prediction three times, 2 of a confusion, the query, credits
    assert read.text.count(NASTY) == 2 + 1 + 3 + 3 + 3 + 2 + 2 + 2 + 3 * 2 + 2 + 1 + 1


def test_a_page_with_nothing_to_show_is_a_page_without_sections():
    read = Reader(render_report(ReportPage(title="Bare", summary="Nothing yet.")))
    assert "Nothing yet." in read.text
    assert not read.all("section")
    assert not read.all("nav")
    assert not read.all("dl")
    assert not read.all("img")


@pytest.mark.parametrize(
    ("truths", "note"),
    [
        (("owl", "lyre"), "The likeliest labels with their probabilities; ✓ marks the true one."),
        (("lyre", "drum"), "The likeliest labels with their probabilities."),
    ],
)
def test_the_tick_is_explained_where_a_card_has_one(truths: tuple[str, ...], note: str):
    cards = [prediction(number, truth) for number, truth in enumerate(truths)]
    read = Reader(render_report(ReportPage(title="t", summary="s", wrong=cards)))
    assert f"Wrong {note} {truths[0]}" in read.text.replace("\xa0", " ")
    assert ("true label" in [span.get("aria-label") for span in read.all("span")]) == ("✓" in note)


@pytest.mark.parametrize(
    ("is_match", "note", "count", "alt"),
    [
        (True, "with scores. ✓ marks a match. ", "1 of 1 match", "Result 1, a match"),
        (False, "with scores. ", "0 of 1 match", "Result 1, not a match"),
        (None, "with scores. ", "", "Result 1"),
    ],
)
def test_matches_are_counted_where_they_are_known(is_match: bool | None, note: str, count: str, alt: str):
    page = ReportPage(title="t", summary="s", retrievals=[("words", [ranked(1, 0.25, is_match=is_match)])])
    read = Reader(render_report(page))
    assert f"{note}words {count}".rstrip() in read.text.replace("\xa0", " ")
    assert ("match" in read.text) == bool(count)
    assert [image["alt"] for image in read.all("img")] == [alt]


def test_curves_of_a_run_and_where_its_time_went_have_their_places():
    page = ReportPage(
        title="t",
        summary="s",
        curves=[
            LinePlot(title="<loss>", points=[(10, 3.0), (20, 2.5)], unit="nats"),
            LinePlot(title="set/top1", points=[(20, 0.125)], is_share=True),
            LinePlot(title="below zero", points=[(10, -0.5), (20, 1.0)]),
        ],
        time=[Bars(title="Main thread", bars=[("waiting", 0.62), ("computing", 0.38)])],
        left_out=PageTable(header=["samples", "count"], rows=[["truncated", "3"]], note="Of 100."),
    )
    html = render_report(page)
    read = Reader(html)
    labels = [str(svg["aria-label"]) for svg in read.all("svg") if svg.get("role") == "img"]
    assert labels == [
        "<loss>, a curve. Last: 2.5 nats at step 20.",
        "set/top1, a curve. Last: 12.5% at step 20.",
        "below zero, a curve. Last: 1 at step 20.",
    ]
    assert [str(section["id"]) for section in read.all("section")] == ["learned", "time", "left-out"]
    assert "62.0%" in html
    assert "Left out Of 100. samples count truncated 3" in read.text


def test_a_wide_table_can_be_scrolled_from_the_keyboard():
    table = PageTable(header=["data", "top-1"], rows=[["owls", "50 %"]])
    read = Reader(render_report(ReportPage(title="t", summary="s", table=table)))
    [frame] = [div for div in read.all("div") if div.get("class") == "table"]
    assert (frame["role"], frame["tabindex"], frame["aria-label"]) == ("region", "0", "Table: data")


def test_words_of_a_section_come_first_and_a_long_table_is_folded_behind_its_own():
    table = PageTable(header=("case", "which", "value"), rows=[("a", "light", "1.5%"), ("b", "dark", "-")])
    section = PageSection(
        heading="Found", lead=["Of n = 30 <b> 2.0 % are."], tables=[dataclasses.replace(table, fold="Both"), table]
    )
    html = render_report(ReportPage(title="t", summary="s", sections=[section]))
    at = [
        html.index(part) for part in ("<li>Of n\u00a0=\u00a030 &lt;b&gt; 2.0\u00a0% are.", "<summary>Both<", "<table>")
    ]
    assert at == sorted(at)
    assert html.count("<details>") == html.count("</details>") == 1
    assert html.count('<div class="table"') == 2
    # A column reads from the left where none of its cells is a number.
    assert html.count('<td class="words">light</td>') == 2
    assert "<td>1.5%</td>" in html


def test_sentences_in_a_table_are_laid_out_as_such():
    table = PageTable(header=("chapter", "found"), rows=[("a", "It is right in 3.1 %.")], is_prose=True)
    html = render_report(ReportPage(title="t", summary="s", sections=[PageSection(heading="h", tables=[table])]))
    assert '<div class="table prose"' in html
    assert "It is right in 3.1\u00a0%." in html


def test_the_opening_shows_a_picture_of_each_section_before_the_second_of_any():
    def section(shade: int) -> PageSection:
        one = CaptionedPicture(picture=np.full((4, 4, 3), shade, np.uint8), caption="c")
        return PageSection(heading=f"of {shade}", captioned=[one] * 6)

    html = render_report(ReportPage(title="t", summary="s", sections=[section(0), section(100), section(200)]))
    shown = html[html.index('<div class="mosaic"') : html.index('<div class="words"')]
    shades = [np.asarray(decode(one.split('"')[0]))[0, 0, 0] for one in shown.split('src="')[1:]]
    assert shades == [0, 100, 200] * 4


def test_long_curves_and_many_pictures_stay_below_two_megabytes():
    noise = list(enumerate(np.random.default_rng(0).normal(3, 0.3, 50_000).tolist()))
    soft = [Image.fromarray(picture(seed, side=8)).resize((64, 64), Image.Resampling.BICUBIC) for seed in range(150)]
    page = ReportPage(
        title="t",
        summary="s",
        curves=[LinePlot(title="loss", points=noise)],
        right=[Prediction(picture=picture, truth="owl", guesses=(("owl", 0.5),)) for picture in soft],
    )
    assert len(render_report(page).encode()) < 2_000_000


def test_without_matplotlib_curves_alone_are_left_out_and_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plain = ReportPage(title="t", summary="s", right=[prediction(1)])
    curved = dataclasses.replace(plain, curves=[LinePlot(title="loss", points=[(1, 2.0)])])
    assert write_report(plain, tmp_path / "plain.html") == ""
    assert write_report(curved, tmp_path / "curved.html") == (
        "drawing curves needs an extra: pip install 'diptych[eval]'. "
        "They are left out; the rest of the page is as usual."
    )
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("plain.html", "curved.html")]
    assert pages[0] == pages[1]


def test_a_report_is_written_as_utf8(tmp_path, page: ReportPage, html: str):
    write_report(page, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == html
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_style_sheet_is_the_file_beside_the_code(html: str):
    sheet = (Path(diptych.__file__).parent / "pages" / "style.css").read_text(encoding="utf-8")
    assert f"<style>\n{sheet}</style>" in html
    assert "prefers-color-scheme: dark" in sheet
    assert "@media print" in sheet
    assert sheet.count("{") == sheet.count("}")
    used = set(re.findall(r"var\((--[a-z]+)\)", html))
    assert used == set(re.findall(r"(--[a-z]+):", sheet))  # none without a value, none for nothing


@needs_chromium
def test_in_a_browser_what_is_folded_away_comes_when_it_is_asked_for(tmp_path: Path):
    hits = [ranked(5, 0.3, is_match=True, why=picture(6)), ranked(7, 0.2, is_match=False, why=picture(8))]
    table = PageTable(header=("case", "value"), rows=[("a", "1.5%")], fold="All 1 numbers")
    sentences = PageTable(header=("chapter", "found"), rows=[("a", "It is right. " * 60)], is_prose=True)
    sections = [PageSection(heading="h", lead=["One."], tables=[table, sentences])]
    page = ReportPage(title="t", summary="s", retrievals=[("a red fruit", hits)], sections=sections)
    write_report(page, tmp_path / "report.html")
    with browser_tab(viewport={"width": 700, "height": 900}) as (tab, complaints, asked):
        tab.goto((tmp_path / "report.html").as_uri())
        maps = tab.locator("#search details img")
        assert maps.count() == 2
        assert not maps.first.is_visible()
        tab.get_by_text("Why these?").last.click()
        assert maps.first.is_visible()
        assert maps.evaluate_all("all => all.map((one) => one.naturalWidth)") == [64, 64]
        assert maps.last.get_attribute("alt") == "Result 2: where it speaks for a red fruit"
        assert not tab.get_by_role("cell", name="1.5%").is_visible()
        tab.get_by_text("All 1 numbers").focus()
        tab.keyboard.press("Enter")
        assert tab.get_by_role("cell", name="1.5%").is_visible()
        # Sentences are broken into lines, so that nothing of them is beyond the edge.
        assert tab.evaluate("document.documentElement.scrollWidth") == 700
        assert tab.locator(".prose").evaluate("one => one.scrollWidth <= one.clientWidth")
        assert complaints == []
        assert len(asked) == 1
