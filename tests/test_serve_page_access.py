"""Whoever comes to the page of `diptych serve` gets along: by axe-core in every state of it, and by keyboard alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chromium import needs_chromium, until
from opened_page import (
    OVERFLOW,
    address,
    album,
    axe,
    first,
    page,
    saved_model,
    search,
    serving,
    status,
    violations,
)
from serving import Server

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return album(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def server(model: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    index = tmp_path_factory.mktemp("index") / "index"
    with serving("--model", model, "--library", folder, "--index", index, "--allow-trash") as server:
        body = {"name": "a boat by the sea", "link": "q=a+boat&folder=2021"}
        httpx2.post(f"{server.url}/library/shelf/search", json=body).raise_for_status()
        seen = httpx2.post(f"{server.url}/library/view", json={"folder": "2020"}).json()["pictures"]
        body = {"name": "Best of 2020", "add": [one["id"] for one in seen[:4]]}
        httpx2.post(f"{server.url}/library/shelf/album", json=body).raise_for_status()
        body = {"hide": [one["id"] for one in seen[5:7]]}
        httpx2.post(f"{server.url}/library/shelf/hidden", json=body).raise_for_status()
        yield server


def opened(tab: Any) -> None:
    first(tab).click()
    until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))


def keys(tab: Any, *all_: str) -> None:
    for key in all_:
        tab.keyboard.press(key)


def asked(tab: Any, pressed: str) -> None:
    tab.locator(pressed).first.click()
    until(lambda: tab.locator("#asked").is_visible())


def selected(tab: Any) -> None:
    first(tab).focus()
    keys(tab, "x", "Shift+ArrowRight")
    until(lambda: tab.locator("#sel-count").inner_text() == "2 selected")


def filters(tab: Any) -> None:
    def are_shown() -> bool:
        if not tab.locator("#facets").is_visible():  # the page may open or shut them itself while it starts
            tab.locator("summary").click()
        return tab.locator("#shelf a", has_text="Best of 2020").is_visible()

    until(are_shown)


def named(tab: Any, *files: Path) -> None:
    tab.locator("#labels").fill("a red kite\na blue boat")
    tab.locator("#none").fill("99")
    tab.set_input_files("#name-file", files)
    until(lambda: tab.locator("#bars .track, #named li").count() == 2)


def states(folder: Path) -> dict[str, tuple[str, Callable[[Any], object]]]:
    """What of the page is looked at: the address, and what is done there."""
    sea = folder / "2020/sea"
    return {
        "all by month": ("", lambda tab: until(lambda: tab.locator("#months h2").count() > 0)),
        "a month by the scrubber": ("", lambda tab: (tab.locator("#scrubber").focus(), keys(tab, "End"))),
        "filters, albums, saved searches": ("", filters),
        "narrowed": ("?folder=2021&camera=-&after=2021-01-01", filters),
        "found by words": ("?q=a+red+kite", lambda tab: until(lambda: tab.locator("#results .score").count() > 0)),
        "a query of parts": ("?q=%22a%20kite%22+-+%22a%20boat%22", lambda tab: tab.locator("#terms .term").count()),
        "no query": ("?q=%22a", lambda tab: until(lambda: tab.locator("#terms .bad").count() > 0)),
        "help": ("", lambda tab: tab.locator("#words").focus()),
        "nothing found": ("?folder=nowhere", lambda tab: until(lambda: "Nothing" in status(tab))),
        "an album": ("?album=Best+of+2020&sort=oldest", selected),
        "hidden ones": ("?hidden=1", selected),
        "selected": ("?q=a+red+kite", selected),
        "picture": ("?folder=2021", opened),
        "picture that was found": ("?q=a+red+kite", lambda tab: (opened(tab), keys(tab, "+"))),
        "why it was found": ("?q=a+red+kite", lambda tab: (opened(tab), tab.locator("#why").click())),
        "a part of a picture": ("?folder=2021", lambda tab: (opened(tab), tab.locator("#part").click())),
        "film": ("?kind=video", lambda tab: (first(tab).click(), until(lambda: tab.locator("#film").is_visible()))),
        "dialog: keep a search": ("?q=a+red+kite", lambda tab: asked(tab, "#save-search")),
        "dialog: an album": ("", lambda tab: (selected(tab), asked(tab, "#sel-album"))),
        "dialog: of the picture": ("?folder=2021", lambda tab: (opened(tab), asked(tab, "#its-album"))),
        "dialog: trash": ("", lambda tab: (selected(tab), asked(tab, "#sel-trash"))),
        "dialog: forget": ("", lambda tab: (filters(tab), asked(tab, "#shelf button"))),
        "map": ("?tab=map", lambda tab: until(lambda: "area" in tab.locator("#map-only").inner_text())),
        "duplicates": ("?tab=alike", lambda tab: until(lambda: tab.locator(".group").count() > 0)),
        "duplicates, one group done": (
            "?tab=alike",
            lambda tab: (
                until(lambda: tab.locator(".group").count() > 0),
                tab.locator(".group").first.evaluate("one => one.classList.add('done')"),
            ),
        ),
        "names: none yet": ("?tab=name", lambda tab: until(lambda: tab.locator("#labels").input_value() != "")),
        "names: of one picture": ("?tab=name", lambda tab: named(tab, sea / "p01.jpg")),
        "names: of two": ("?tab=name", lambda tab: named(tab, sea / "p01.jpg", sea / "p03.jpg")),
    }


@pytest.mark.parametrize("width", [320, 1200])
def test_every_state_fits_and_passes_axe_in_light_and_dark(server: Server, folder: Path, width: int):
    script = axe()
    options = {"viewport": {"width": width, "height": 760}, "has_touch": width < 640}
    found: dict[str, Any] = {}
    with page(server, but="400", **options) as tab:
        for name, (view, work) in states(folder).items():
            tab.emulate_media(color_scheme="light")
            tab.goto("about:blank")
            tab.goto(f"{server.url}/{view}")
            until(lambda: tab.locator("#about").inner_text().startswith("tiny"))
            until(lambda: "…" not in "".join(tab.locator(".status").all_inner_texts()))
            work(tab)
            found[name, "overflow"] = max(0, tab.evaluate(OVERFLOW)) or []
            tab.evaluate(script)
            found[name, "light"] = violations(tab)
            tab.emulate_media(color_scheme="dark")  # nothing but colours is another one
            found[name, "dark"] = violations(tab, "{ runOnly: ['color-contrast'] }")
    assert {where: what for where, what in found.items() if what} == {}


def test_the_key_dialog_and_an_empty_library_pass_axe(model: Path, tmp_path: Path):
    script = axe()
    (tmp_path / "pictures").mkdir()
    options = ["--model", model, "--library", tmp_path / "pictures", "--index", tmp_path / "index"]
    with serving(*options, DIPTYCH_API_KEY="a-long-enough-key") as server, page(server, but="401") as tab:
        for key in ("a wrong one", "a-long-enough-key"):
            until(lambda: tab.locator("#locked").is_visible() and tab.locator("#key").input_value() == "")
            tab.evaluate(script)
            assert violations(tab) == []
            tab.locator("#key").fill(key)
            tab.locator("#key").press("Enter")
        until(lambda: "no picture yet" in status(tab))
        assert violations(tab) == []


def test_light_and_dark_are_chosen_and_kept(server: Server):
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    for scheme in ("light", "dark"):
        with page(server, color_scheme=scheme, has_touch=True) as tab:

            def is_dark(tab: Any = tab) -> bool:
                return max(tab.evaluate(brightness)) < 100

            assert is_dark() == (scheme == "dark")
            tab.locator("#theme").tap()
            assert is_dark() == (scheme == "light")
            tab.reload()
            until(lambda is_dark=is_dark, scheme=scheme: is_dark() == (scheme == "light"))


# What of the page is in the window, as it is called, with the heading that it stands under.
OFFERS = """() => [...document.querySelectorAll("a, button, summary, input, select, [role=tab], [role=slider]")]
    .filter((one) => {
        const { top, left, width, height } = one.getBoundingClientRect();
        const isThere = one.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && width > 1;
        const isOpen = one.matches("details[open] > summary"); // what it leads to is seen
        return isThere && !isOpen && top < innerHeight && top + height > 0 && left < innerWidth;
    })
    .map((one) => {
        one.dataset.offer = Math.random();
        const name = one.getAttribute("aria-label") ?? (one.textContent.trim() || one.placeholder || "");
        const heading = one.closest(".facet")?.querySelector("h2")?.textContent ?? "";
        return [`${name} ${heading}`.toLowerCase(), one.dataset.offer];
    })"""
TIMELINE = "document.querySelector('#months h2') !== null && !document.getElementById('scrubber').hidden"


def clicks(tab: Any, words: tuple[str, ...], reached: Callable[[], bool], *, most: int = 2) -> int:
    """How many it takes somebody who looks for words like these on what is seen, and clicks what has one."""
    tried: set[str] = set()
    for count in range(most + 1):
        for _ in range(50):
            if reached():
                return count
            tab.wait_for_timeout(20)
        offers = [one for one in tab.evaluate(OFFERS) if any(word in one[0] for word in words) and one[0] not in tried]
        assert offers, (words, tab.evaluate(OFFERS))
        name, number = max(offers, key=lambda one: sum(word in one[0] for word in words))
        tried.add(name)
        tab.locator(f'[data-offer="{number}"]').click()
    raise AssertionError(f"not found by {most} clicks")


@pytest.mark.parametrize("phone", [False, True])
def test_a_stranger_finds_timeline_duplicates_and_a_saved_search_by_what_is_seen(server: Server, phone: bool):
    options = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True} if phone else {}
    with page(server, **options) as tab:

        def begin() -> None:
            tab.goto(server.url)
            until(lambda: status(tab).endswith("pictures") and tab.locator("#shelf a").count() > 0)

        begin()
        assert clicks(tab, ("month", "date", "year", "time"), lambda: tab.evaluate(TIMELINE)) == 0
        group = tab.locator(".group").first
        assert clicks(tab, ("duplicate", "same", "twice", "double", "cop"), group.is_visible) == 1
        begin()
        found = lambda: address(tab).get("q") == "a boat"  # noqa: E731
        assert clicks(tab, ("saved", "kept", "keep", "favourite"), found) == (2 if phone else 1)
        # And how one is saved: the dialog asks for a name.
        begin()
        search(tab, "a red kite")
        until(lambda: status(tab).endswith("best first"))
        asks = tab.locator("#asked").is_visible
        assert clicks(tab, ("save this", "keep this", "save search", "bookmark", "favourite"), asks) == 1


# What has the focus: its name as it is called out, or its id; and whether one sees that it has it.
FOCUS = """() => {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    const around = getComputedStyle(one.closest(".asked, .button") ?? one);
    const isSeen = style.outlineStyle !== "none" || around.outlineStyle !== "none" || one.id === "words";
    const text = one.getAttribute("aria-label") ?? one.id;
    return [one === document.body ? "nothing" : text || one.textContent.trim() || one.outerHTML, isSeen];
}"""


def test_the_whole_page_goes_by_keyboard_and_the_focus_is_never_lost(server: Server):
    choosers: list[Any] = []
    with page(server) as tab:
        tab.on("filechooser", lambda chooser: choosers.append(chooser))
        until(lambda: status(tab).endswith("pictures"))

        def focus() -> str:
            name, is_seen = tab.evaluate(FOCUS)
            assert name != "nothing"
            assert is_seen or name == "Picture", name  # the opened picture fills the window
            return name

        def press(key: str) -> str:
            keys(tab, key)
            return focus()

        def to(wanted: Callable[[str], bool], key: str = "Tab", most: int = 60) -> list[str]:
            """The stops on the way."""
            stops = [focus()]
            while not wanted(stops[-1]):
                assert len(stops) < most, stops
                stops.append(press(key))
            return stops

        is_picture = "document.activeElement.matches('#results .open')"
        picture = "document.activeElement.querySelector('img').alt"
        # Words, then pictures: one stop, whatever their number.
        assert focus() == "Words to search for"
        tab.keyboard.type("a red kite")
        press("Enter")
        until(lambda: status(tab).endswith("best first"))
        while not tab.evaluate(is_picture):
            press("Tab")
        best = tab.evaluate(picture)
        press("Shift+Tab")
        assert not tab.evaluate(is_picture)
        press("Tab")
        # Select, and what is done with the selected; the focus comes back to the pictures.
        keys(tab, "x", "ArrowRight", "x")
        until(lambda: tab.locator("#sel-count").inner_text() == "2 selected")
        to(lambda name: name == "sel-none")
        press("Enter")
        assert tab.evaluate(is_picture)
        # Open one, look at the next, go round within, and leave.
        press("Home")
        assert tab.evaluate(picture) == best
        assert press("Enter") == "Picture"
        press("ArrowRight")
        press("ArrowLeft")
        until(lambda: best in tab.locator("#facts").inner_text())
        stops = to(lambda name: name == "its-hide")
        assert {"Full screen", "Next", "why", "part", "close", "Words to add", "like", "its-original"} <= set(stops)
        inside = "document.activeElement.closest('#viewer') !== null || document.activeElement === document.body"
        for _ in range(4):
            keys(tab, "Tab")
            assert tab.evaluate(inside)
        keys(tab, "Escape")
        assert focus()
        assert tab.evaluate(picture) == best
        # A search is kept, and its dialog left.
        to(lambda name: name == "save-search", "Shift+Tab")
        press("Enter")
        until(lambda: tab.locator("#asked").is_visible())
        keys(tab, "Escape")
        until(lambda: not tab.locator("#asked").is_visible())
        assert focus() == "save-search"
        # The other tabs.
        to(lambda name: name == "tab-search", "Shift+Tab")
        for name, stop in (("map", "Map: "), ("alike", "Keep "), ("name", "drop")):
            assert press("ArrowRight") == f"tab-{name}"
            until(lambda: "…" not in "".join(tab.locator(".status").all_inner_texts()))
            until(lambda name=name: name != "alike" or tab.locator(".group").count() > 0)
            to(lambda text, stop=stop: text.startswith(stop))
            to(lambda text, name=name: text == f"tab-{name}", "Shift+Tab")
        tab.goto(f"{server.url}/?tab=name")
        until(lambda: tab.locator("#labels").input_value() != "")
        keys(tab, "Tab")
        to(lambda text: text == "drop")
        keys(tab, "Enter")
        until(lambda: tab.evaluate("true") and choosers)  # events come in with answers
