"""What the tests of the page share: a library of 60 small pictures and a film, and a tab that shows it."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import numpy as np
import pytest

from browsing import PARIS, SINGAPORE, Shot, jpeg_of, shoot
from chromium import browser_tab, until
from serving import Server, running, tiny_bundle

CELLS = "#results li:not([hidden])"
DRAWN = "[...document.querySelectorAll('#results li:not([hidden]) img')].every(i => i.naturalWidth > 0)"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
COUNT = 60
STILL = "document.getAnimations().every(one => one.playState !== 'running')"  # colours are another meanwhile

DROP = """(text) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "dropped.png"));
    dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
}"""


def shots() -> tuple[Shot, ...]:
    """One every twenty days from 2020 on."""
    made = []
    for i in range(COUNT):
        day = datetime.datetime(2020, 1, 3, 12) + datetime.timedelta(days=20 * i)
        colour = f"hsl({i * 6 % 360}, 70%, {30 + i % 5 * 10}%)"
        camera = ("Canon EOS", "Pixel 4", "")[i % 3]
        place = (PARIS, SINGAPORE, None)[i % 3]
        name = f"{day.year}/{'sea' if i % 2 else 'hill'}/p{i:02}.jpg"
        size = (200, 120) if i % 4 else (120, 200)
        made.append(Shot(name, colour, day.strftime("%Y:%m:%d %H:%M:%S"), camera, place, size))
    return tuple(made)


def film(path: Path) -> None:
    """20 s, a frame a second: black, then white."""
    av = pytest.importorskip("av", reason="needs av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libvpx", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 if i >= 10 else 0, np.uint8))
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def saved_model(place: Path) -> Path:
    tiny_bundle().save(place / "tiny")
    return place / "tiny"


def album(place: Path) -> Path:
    """A folder of the pictures, one of them twice, and the film."""
    folder = shoot(place / "Album", shots())
    (folder / "copy.jpg").write_bytes(jpeg_of(shots()[7]))
    film(folder / "film.webm")
    return folder


@contextlib.contextmanager
def serving(*options: str | Path, **environment: str) -> Iterator[Server]:
    """A server whose libraries are indexed."""
    with running(*options, **environment) as server:
        until(lambda: not httpx2.get(f"{server.url}/health").json()["indexing"])
        yield server


@contextlib.contextmanager
def page(server: Server, address: str = "", *, but: str = "nothing", **options: Any) -> Iterator[Any]:
    """A tab that must complain of nothing, but for what says a word, and ask nobody else."""
    options = {"viewport": {"width": 1200, "height": 800}, **options}
    with browser_tab(**options) as (tab, complaints, asked):
        tab.goto(f"{server.url}/{address}")
        yield tab
        assert {url.split("/")[2] for url in asked if url.startswith("http")} == {server.url.split("/")[2]}
        assert [text for text in complaints if but not in text] == []


def status(tab: Any) -> str:
    return tab.locator("#search-status").inner_text()


def names(tab: Any) -> list[str]:
    """Of the pictures that are there, in their order."""
    script = "all => all.sort((a, b) => a.dataset.at - b.dataset.at).map(one => one.querySelector('img').alt)"
    return tab.locator(CELLS).evaluate_all(script)


def first(tab: Any) -> Any:
    return tab.locator('#results li[data-at="0"] .open')


def address(tab: Any) -> dict[str, str]:
    return {name: value[0] for name, value in parse_qs(tab.evaluate("location.search").removeprefix("?")).items()}


def search(tab: Any, words: str) -> None:
    tab.locator("#words").fill(words)
    tab.locator("#words").press("Enter")


def axe() -> str:
    """What a tab is to evaluate before `violations`."""
    module = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    return (Path(module.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(tab: Any, options: str = "") -> list[Any]:
    """What axe finds: rules, and where."""
    until(lambda: tab.evaluate(STILL))
    found = tab.evaluate(f"axe.run({options}).then(found => found.violations)")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
