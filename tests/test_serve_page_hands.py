"""The page of `diptych serve` under fingers, and where it goes beyond its window: the screen, the disk, a watch."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsing import PARIS, Shot, jpeg_of, shoot
from chromium import needs_chromium, until
from opened_page import CELLS, COUNT, DRAWN, album, first, names, page, saved_model, serving, shots, status
from serving import Server

pytestmark = needs_chromium

SCALE = "new DOMMatrix(getComputedStyle(document.getElementById('large')).transform).a"
PHONE = {"viewport": {"width": 390, "height": 760}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return album(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def opened_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the file manager that is started in the place of one writes what it was to open."""
    return tmp_path_factory.mktemp("manager") / "opened"


@pytest.fixture(scope="module")
def server(
    model: Path, folder: Path, opened_folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    index = tmp_path_factory.mktemp("index") / "index"
    manager = opened_folders.with_name("xdg-open")
    manager.write_text(f'#!/bin/sh\nprintf %s "$1" > "{opened_folders}"\n')
    manager.chmod(manager.stat().st_mode | stat.S_IXUSR)
    path = f"{manager.parent}{os.pathsep}{os.environ['PATH']}"
    with serving("--model", model, "--library", folder, "--index", index, PATH=path) as server:
        yield server


class Fingers:
    """Fingers on the screen, as the browser's own debugger lays them."""

    def __init__(self, tab: Any) -> None:
        self._tab = tab
        self._debugger = tab.context.new_cdp_session(tab)

    def _send(self, kind: str, points: list[tuple[float, float]]) -> None:
        touches = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        self._debugger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def draw(self, *paths: list[tuple[float, float]]) -> None:
        """A path a finger, all of one length."""
        for i, points in enumerate(zip(*paths, strict=True)):
            self._send("touchMove" if i else "touchStart", list(points))
        self._send("touchEnd", [])


def line(a: tuple[float, float], b: tuple[float, float], steps: int = 8) -> list[tuple[float, float]]:
    shares = [i / steps for i in range(steps + 1)]
    return [(a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])) for share in shares]


def test_fingers_go_on_come_back_zoom_and_leave(server: Server):
    with page(server, "?folder=2021&sort=oldest", **PHONE) as tab:
        until(lambda: tab.locator(CELLS).count() > 3)
        one, two = names(tab)[:2]
        first(tab).tap()
        until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))
        box = tab.locator("#viewed").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        hand = Fingers(tab)
        told = lambda: tab.locator("#facts").inner_text()  # noqa: E731
        hand.draw(line((x + 110, y), (x - 110, y + 5)))
        until(lambda: two in told())
        hand.draw(line((x - 110, y), (x + 110, y - 5)))
        until(lambda: one in told())
        # Two fingers that part: as near as they part, about the point between them, and one finger then moves it.
        hand.draw(line((x - 20, y), (x - 60, y)), line((x + 20, y), (x + 60, y)))
        assert tab.evaluate(SCALE) == pytest.approx(3, rel=0.1)
        moved = "new DOMMatrix(getComputedStyle(document.getElementById('large')).transform).e"
        before = tab.evaluate(moved)
        hand.draw(line((x, y), (x + 60, y)))
        assert tab.evaluate(moved) == pytest.approx(before + 60, abs=2)
        assert one in told()  # it was no swipe
        hand.draw(line((x - 90, y), (x - 20, y)), line((x + 90, y), (x + 20, y)))
        assert tab.evaluate(SCALE) == 1
        # A frame by finger is no swipe either; down leaves.
        tab.locator("#part").tap()
        hand.draw(line((x - 20, y - 60), (x + 20, y + 60)))
        until(lambda: status(tab).endswith(f"like a part of {one}"))
        first(tab).tap()
        until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))
        hand.draw(line((x, y - 80), (x + 5, y + 90)))
        until(lambda: not tab.locator("#viewer").is_visible())
        # The map under two fingers.
        tab.goto(f"{server.url}/?tab=map")
        until(lambda: "area" in tab.locator("#map-only").inner_text())
        box = tab.locator("#world").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        inside = lambda: tab.locator("#map-only").inner_text()  # noqa: E731
        whole = inside()
        hand.draw(line((x - 10, y), (x - 150, y)), line((x + 10, y), (x + 150, y)))
        until(lambda: inside() != whole)
        hand.draw(line((x - 150, y), (x - 10, y)), line((x + 150, y), (x + 10, y)))
        until(lambda: inside() == whole)


def test_the_picture_fills_the_screen_and_comes_back(server: Server):
    with page(server, "?folder=2021") as tab:
        until(lambda: tab.locator(CELLS).count() > 3)
        first(tab).click()
        until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))
        is_full = lambda: tab.evaluate("document.fullscreenElement?.id") == "viewing"  # noqa: E731
        small = tab.locator("#viewed").bounding_box()["height"]
        tab.keyboard.press("f")
        until(is_full)
        until(lambda: tab.locator("#viewed").bounding_box()["height"] > small)
        tab.keyboard.press("ArrowRight")  # what can be done can be done here, too
        until(lambda: not tab.locator("#previous").is_disabled())
        tab.get_by_role("button", name="Full screen").click()
        until(lambda: not is_full())
        assert tab.locator("#viewer").is_visible()
        tab.keyboard.press("f")
        until(is_full)
        tab.locator("#close").click()
        until(lambda: not is_full() and not tab.locator("#viewer").is_visible())


def test_the_folder_of_a_picture_is_opened_on_this_machine(server: Server, folder: Path, opened_folders: Path):
    with page(server, "?folder=2021/sea") as tab:
        until(lambda: tab.locator(CELLS).count() > 3)
        first(tab).click()
        tab.get_by_role("button", name="Show in its folder").click()
        until(opened_folders.exists)
        until(lambda: opened_folders.read_text() == str(folder / "2021/sea"))


def test_a_photo_of_17_megabytes_is_made_small_before_it_is_sent(server: Server, folder: Path, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png", compress_level=0)
    assert (tmp_path / "large.png").stat().st_size > 15e6
    sent: list[int] = []
    with page(server) as tab:
        until(lambda: status(tab).endswith("pictures"))
        tab.on("request", lambda request: sent.append(len(request.post_data_buffer or b"")))
        tab.set_input_files("#query-file", tmp_path / "large.png")
        until(lambda: status(tab) == f"{COUNT + 2} pictures, best first")
        tab.get_by_role("tab", name="Name it").click()
        tab.locator("#labels").fill("a kite\na boat")
        tab.set_input_files("#name-file", tmp_path / "large.png")
        until(lambda: tab.locator("#bars li").count() > 1)
    assert 100_000 < max(sent) < 3_000_000


def test_a_watched_folder_is_followed_by_the_page(model: Path, tmp_path: Path):
    folder = shoot(tmp_path / "pictures", shots()[:5])
    new = Shot("2030/new.jpg", "hotpink", "2030:01:02 03:04:05", "Canon EOS", PARIS)
    with (
        serving("--model", model, "--library", folder, "--index", tmp_path / "index", "--watch") as server,
        page(server, but="404") as tab,  # of a picture that is asked for while it moves
    ):
        until(lambda: status(tab) == "5 pictures" and tab.evaluate(DRAWN))
        (folder / "2030").mkdir()
        (folder / new.name).write_bytes(jpeg_of(new))
        until(lambda: status(tab) == "6 pictures" and names(tab)[0] == new.name)
        until(lambda: tab.evaluate(DRAWN))
        (folder / new.name).rename(folder / "moved.jpg")
        until(lambda: "moved.jpg" in names(tab) and status(tab) == "6 pictures")
        (folder / "moved.jpg").unlink()
        until(lambda: status(tab) == "5 pictures")


def test_what_goes_meanwhile_is_said_and_two_tabs_change_one_album(model: Path, tmp_path: Path):
    folder = shoot(tmp_path / "pictures", shots()[:6])
    options = ("--model", model, "--library", folder, "--index", tmp_path / "index", "--allow-trash")
    elsewhere = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    with serving(*options, **elsewhere) as server, page(server, but="404") as tab:
        until(lambda: status(tab) == "6 pictures")
        first(tab).focus()
        for key in ("x", "Shift+ArrowRight", "Shift+ArrowRight"):
            tab.keyboard.press(key)
        until(lambda: tab.locator("#sel-count").inner_text() == "3 selected")
        tab.locator("#sel-album").click()
        tab.locator("#asked-value").fill("100 % / ours?#")
        tab.locator("#asked-yes").click()
        tab.locator("#shelf a", has_text="100 % / ours?#").click()
        second = tab.context.new_page()
        second.goto(tab.evaluate("location.href"))
        for one in (tab, second):
            until(lambda one=one: status(one) == "3 pictures")
        for one, at in ((tab, 0), (second, 1)):  # the second knows nothing of what the first has done
            one.locator(f'#results li[data-at="{at}"] .choose').click(force=True)
            one.locator("#sel-out").click()
        until(lambda: status(second) == "1 picture")
        second.close()
        # A picture that went to the trash, by the link to it and by Back.
        tab.goto(server.url)
        until(lambda: status(tab) == "6 pictures")
        gone = names(tab)[0]
        first(tab).click()
        until(lambda: tab.locator("#viewer").is_visible())
        tab.keyboard.press("Escape")
        tab.keyboard.press("x")
        tab.locator("#sel-trash").click()
        tab.locator("#asked-yes").click()
        until(lambda: status(tab) == "5 pictures" and not (folder / gone).exists())
        assert tab.evaluate("document.activeElement.matches('#results li[data-at=\"0\"] .open')")
        tab.go_back()
        until(lambda: tab.locator("#viewer").is_visible())
        tab.reload()  # else the browser has the picture still
        until(lambda: "its file is gone" in tab.locator("#toast").inner_text())
        tab.keyboard.press("Escape")
        # The folder is away for a while.
        folder.rename(tmp_path / "away")
        until(lambda: "is not there now" in tab.locator("#away").inner_text())
        (tmp_path / "away").rename(folder)
        until(lambda: not tab.locator("#away").is_visible())
