"""The page of `diptych serve` in a real browser, over a library of 60 small pictures and a film."""

import base64
import contextlib
import http.server
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from browsing import shoot
from chromium import browser_tab, needs_chromium, until
from opened_page import (
    CELLS,
    COUNT,
    DRAWN,
    DROP,
    OVERFLOW,
    address,
    album,
    first,
    names,
    page,
    saved_model,
    search,
    serving,
    shots,
    status,
)
from serving import Server, latin_bundle, picture_file, running

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
        yield server


def test_all_pictures_are_there_by_month_before_anything_is_asked(server: Server):
    with page(server) as tab:
        until(lambda: status(tab) == f"{COUNT + 2} pictures" and tab.evaluate(DRAWN))
        tab.select_option("#sort", "oldest")
        until(lambda: address(tab) == {"sort": "oldest"} and tab.locator("#months h2").count() > 0)
        until(lambda: tab.locator("#months h2").first.inner_text() == "January 2020")
        # The scrubber: its keys go to the end of time, a press on it to the middle.
        assert names(tab)[0] == "2020/hill/p00.jpg"
        tab.locator("#scrubber").focus()
        tab.keyboard.press("End")
        until(lambda: "film.webm" in names(tab) and "2020/hill/p00.jpg" not in names(tab))
        box = tab.locator("#scrubber").bounding_box()
        tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        until(lambda: any(name.startswith("2021/") for name in names(tab)))
        assert "2020/hill/p00.jpg" not in names(tab)
        # The grid holds what is near the window, whatever is behind it.
        assert tab.locator(CELLS).count() < COUNT
        # The keys go through months, and what has the focus stays.
        tab.evaluate("scrollTo(0, 0)")
        until(lambda: names(tab)[0] == "2020/hill/p00.jpg")
        first(tab).focus()
        for _ in range(4):
            tab.keyboard.press("ArrowRight")
        focused = "document.activeElement.querySelector('img').alt"
        until(lambda: tab.evaluate(focused) == "2020/hill/p04.jpg")
        tab.keyboard.press("End")
        until(lambda: tab.evaluate(focused) in ("film.webm", "copy.jpg"))


def test_counts_are_links_and_every_view_is_one(server: Server):
    with page(server) as tab:
        folder = lambda name: tab.locator("#facets a", has_text=re.compile(f"^{name}")).first  # noqa: E731
        until(lambda: folder("2021").count() > 0)
        count = int(folder("2021").locator(".count").inner_text())
        assert count == sum(shot.name.startswith("2021/") for shot in shots())
        folder("2021").click()
        until(lambda: status(tab) == f"{count} pictures")
        assert address(tab) == {"folder": "2021"}
        folder("Singapore").click()
        until(lambda: address(tab) == {"folder": "2021", "country": "Singapore"})
        until(lambda: tab.locator("#chips .filter").count() == 3)
        narrowed = status(tab)
        first(tab).click()
        until(lambda: tab.locator("#viewer").is_visible())
        there = tab.evaluate("location.href")
        name = tab.locator("#facts").inner_text()
        # Reload, a second tab, Back and Forward.
        for again in (tab.reload, lambda: tab.goto(there)):
            again()
            until(lambda: tab.locator("#viewer").is_visible() and tab.locator("#facts").inner_text() == name)
            assert status(tab) == narrowed
        tab.go_back()
        until(lambda: not tab.locator("#viewer").is_visible())
        tab.go_back()
        until(lambda: address(tab) == {"folder": "2021"} and status(tab) == f"{count} pictures")
        tab.go_forward()
        until(lambda: status(tab) == narrowed)
        tab.locator("#chips .filter").first.click()
        until(lambda: address(tab) == {"country": "Singapore"})
        tab.goto(f"{server.url}/?kind=video")
        until(lambda: names(tab) == ["film.webm"])


def test_words_pictures_and_both_are_searched_for(server: Server, folder: Path):
    with page(server, but="400") as tab:
        # What is typed before the first answer is not lost.
        tab.keyboard.type("a red kite")
        tab.keyboard.press("Enter")
        until(lambda: status(tab) == f"{COUNT + 2} pictures, best first")
        until(lambda: tab.evaluate(DRAWN))
        scores = [float(tab.locator(f'#results li[data-at="{at}"] .score').inner_text()) for at in range(5)]
        assert scores == sorted(scores, reverse=True)
        # The grammar, and how it is read.
        search(tab, '"a red kite" - 2 * "a boat" + p03.jpg')
        until(
            lambda: (
                tab.locator("#terms .term").all_inner_texts() == ["+ a red kite", "− 2 × a boat", "+ picture p03.jpg"]
            )
        )
        search(tab, '"a red')
        until(lambda: "must end" in tab.locator("#terms .bad").inner_text())
        until(lambda: "must end" in status(tab))
        tab.locator("#words").fill("")
        tab.locator("#help-minus").click()
        assert tab.locator("#words").input_value() == '"words" - "words"'
        tab.locator("#words").fill("")
        # A picture that is dropped finds itself; the link holds it.
        tab.evaluate(DROP, base64.b64encode((folder / "2020/sea/p05.jpg").read_bytes()).decode())
        until(lambda: names(tab)[:1] == ["2020/sea/p05.jpg"])
        assert tab.locator('#results li[data-at="0"] .score').inner_text() == "1.000"
        tab.reload()
        until(lambda: names(tab)[:1] == ["2020/sea/p05.jpg"])
        # More like one, by its key: without itself; the focus is not lost.
        first(tab).focus()
        tab.keyboard.press("m")
        until(lambda: status(tab) == f"{COUNT + 1} pictures, like 2020/sea/p05.jpg")
        assert tab.evaluate("document.activeElement.id") == "words"
        assert "2020/sea/p05.jpg" not in names(tab)
        tab.locator("#query-picture button").click()
        until(lambda: status(tab) == f"{COUNT + 2} pictures")


def test_one_picture_large_with_its_facts_its_file_and_its_parts(server: Server, folder: Path):
    with page(server, "?q=a+red+kite&folder=2021") as tab:
        until(lambda: tab.locator(CELLS).count() > 3)
        best, second = names(tab)[:2]
        first(tab).click()
        until(lambda: tab.evaluate("document.getElementById('large').naturalWidth") in (120, 200))
        tab.keyboard.press("ArrowRight")
        until(lambda: second in tab.locator("#facts").inner_text())
        tab.keyboard.press("ArrowLeft")
        until(lambda: best in tab.locator("#facts").inner_text())
        assert "2021-" in tab.locator("#details").inner_text()
        # Zoom by keys and wheel, and back.
        scale = "new DOMMatrix(getComputedStyle(document.getElementById('large')).transform).a"
        tab.keyboard.press("+")
        assert tab.evaluate(scale) == pytest.approx(1.6)
        tab.keyboard.press("0")
        assert tab.evaluate(scale) == 1
        # Why it was found, and back.
        for pressed, path in (("true", "/why "), ("false", "/picture")):
            tab.get_by_role("button", name="Why this?").click()
            assert tab.locator("#why").get_attribute("aria-pressed") == pressed
            until(lambda path=path: path in tab.locator("#large").get_attribute("data-path"))
            until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))
        # The file itself.
        with tab.expect_download() as download:
            tab.locator("#its-download").click()
        assert Path(download.value.path()).read_bytes() == (folder / best).read_bytes()
        # The focus is where the viewer was left in the same breath, not where it was opened.
        left = "document.getElementById('close').click(), document.activeElement.querySelector('img').alt"
        assert tab.evaluate(left) == best
        # A part that is drawn.
        tab.keyboard.press("Enter")
        until(lambda: tab.locator("#viewer").is_visible())
        until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))
        tab.locator("#part").click()
        box = tab.locator("#viewed").bounding_box()
        tab.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.2 * box["height"])
        tab.mouse.down()
        tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.8 * box["height"])
        assert tab.locator("#frame").is_visible()
        tab.mouse.up()
        until(lambda: status(tab).endswith(f"like a part of {best}"))
        assert len(address(tab)["part"].split(",")) == 4


def test_a_film_starts_at_the_frame_that_was_found(server: Server):
    with page(server) as tab:
        white = base64.b64encode(picture_file("white", size=(64, 48))).decode()
        until(lambda: tab.locator(CELLS).count() > 3)
        tab.evaluate(DROP, white)
        until(lambda: "picture" in address(tab))
        tab.goto(tab.evaluate("location.href") + "&kind=video")
        until(lambda: names(tab) == ["film.webm"])
        source = tab.locator(f"{CELLS} img").get_attribute("src")
        assert "time=15" in source  # not its first frame
        first(tab).click()
        until(lambda: tab.evaluate("document.getElementById('film').readyState >= 1"))
        until(lambda: tab.evaluate("document.getElementById('film').currentTime") == pytest.approx(15, abs=1))


def test_many_at_once_become_albums_zips_and_hidden(server: Server, folder: Path):
    with page(server, "?folder=2022&sort=oldest") as tab:
        until(lambda: tab.locator(CELLS).count() > 5)
        total = int(status(tab).split()[0])
        tab.locator('#results li[data-at="0"] .choose').click(force=True)
        tab.locator('#results li[data-at="2"] .choose').click(modifiers=["Shift"], force=True)
        until(lambda: tab.locator("#sel-count").inner_text() == "3 selected")
        chosen = names(tab)[:3]
        with tab.expect_download() as download:
            tab.locator("#sel-zip").click()
        with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
            assert sorted(archive.namelist()) == sorted(chosen)
            assert archive.read(chosen[0]) == (folder / chosen[0]).read_bytes()
        tab.locator("#sel-album").click()
        tab.locator("#asked-value").fill("Best of 2022")
        tab.locator("#asked-yes").click()
        album = tab.locator("#shelf a", has_text="Best of 2022")
        until(lambda: album.count() == 1)
        album.click()
        until(lambda: status(tab) == "3 pictures")
        tab.goto(f"{server.url}/?folder=2022&sort=oldest")
        until(lambda: status(tab) == f"{total} pictures")
        first(tab).focus()
        tab.keyboard.press("x")
        tab.locator("#sel-hide").click()
        until(lambda: status(tab) == f"{total - 1} pictures")
        assert (folder / chosen[0]).exists()
        tab.locator("#shelf a", has_text="Hidden pictures").click()
        until(lambda: names(tab) == chosen[:1])
        first(tab).focus()
        tab.keyboard.press("x")
        tab.locator("#sel-hide").click()
        until(lambda: "Nothing passes the filters" in status(tab))
        # A search that is kept is there in another tab.
        tab.goto(f"{server.url}/?q=a+boat&folder=2022")
        until(lambda: "best first" in status(tab))
        tab.locator("#save-search").click()
        tab.locator("#asked-yes").click()
        until(lambda: tab.locator("#shelf a", has_text="a boat").count() == 1)
    with page(server) as tab:
        until(lambda: tab.locator("#shelf a", has_text="a boat").count() == 1)
        tab.locator("#shelf a", has_text="a boat").click()
        until(
            lambda: (
                address(tab) == {"q": "a boat", "folder": "2022"} and tab.locator("#words").input_value() == "a boat"
            )
        )


def test_duplicates_lie_side_by_side_and_all_but_the_best_can_go(server: Server):
    with page(server, "?tab=alike") as tab:
        tab.locator("#threshold").fill("1")
        until(lambda: "group" in tab.locator("#alike-status").inner_text())
        copies = tab.locator(".group", has_text="copy.jpg")
        until(lambda: copies.count() == 1)
        assert copies.locator(".best").count() == 1
        other = copies.locator(".copy:not(.best) .pick")
        other.first.click()
        assert copies.locator(".best .pick").get_attribute("aria-pressed") == "true"
        assert tab.locator("#alike-all-trash").is_visible()


def test_the_map_leads_to_the_pictures_of_an_area(server: Server):
    with page(server, "?tab=map&folder=2021") as tab:
        placed = sum(shot.name.startswith("2021/") and shot.place is not None for shot in shots())
        until(lambda: tab.locator("#map-status").inner_text() == f"{placed} pictures tell where they were taken.")
        until(lambda: tab.locator("#map-only").inner_text() == f"Show the {placed} of this area")
        tab.locator("#world").focus()
        for key in ("ArrowRight", "ArrowLeft", "+", "-"):
            tab.keyboard.press(key)
        tab.keyboard.press("Enter")
        until(lambda: status(tab) == f"{placed} pictures" and "area" in address(tab))


def test_pictures_are_named_by_labels_that_suit_or_by_none(server: Server, folder: Path):
    with page(server, "?tab=name") as tab:
        until(lambda: tab.locator("#labels").input_value() != "")
        assert "crying" not in tab.locator("#labels").input_value()  # it is no model of drawings
        tab.locator("#template").fill("{}")
        tab.locator("#labels").fill("a red kite\na blue boat")
        tab.set_input_files("#name-file", folder / "2020/hill/p00.jpg")
        until(lambda: tab.locator("#bars li").count() == 2)
        shares = [
            float(text.removesuffix(" %")) for text in tab.locator("#bars .row span:last-child").all_inner_texts()
        ]
        assert sum(shares) == pytest.approx(100, abs=0.2)
        tab.locator("#none").fill("100")
        until(lambda: tab.locator("#bars .none").count() == 1)
        tab.set_input_files("#name-file", [folder / "2020/sea/p01.jpg", folder / "2020/hill/p02.jpg"])
        until(lambda: tab.locator("#named li").count() == 3)
        with tab.expect_download() as download:
            tab.locator("#name-csv").click()
        lines = Path(download.value.path()).read_text().splitlines()
        assert lines[0] == "picture,label,a red kite,a blue boat"
        assert [line.split(",")[:2] for line in lines[1:]] == [[f"p0{i}.jpg", "none of these"] for i in range(3)]


@contextlib.contextmanager
def behind_a_proxy(server: Server, below: str) -> Iterator[str]:
    """A proxy that puts a server below a path of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(below):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {"content-type": self.headers.get("content-type", "")}
            url = f"{server.url}/{self.path.removeprefix(below)}"
            answer = httpx2.request(self.command, url, content=body, headers=headers, timeout=60)
            self.send_response(answer.status_code)
            for name in ("content-type", "content-length"):
                self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}{below}"
        proxy.shutdown()


def test_the_page_works_below_a_path_of_a_proxy(server: Server):
    with behind_a_proxy(server, "/my/clip/") as url, browser_tab() as (tab, complaints, _):
        tab.goto(url)
        until(lambda: tab.locator("#about").inner_text() == f"tiny · {COUNT + 2} pictures")
        search(tab, "a red kite")
        until(lambda: status(tab).endswith("best first") and tab.evaluate(DRAWN))
        assert complaints == []


ODD_NAMES = (
    "'\"><img src=x onerror=\"document.title='run'\">.png",
    "<script>document.title='run'<script>.png",
    "two\nlines.png",
    "\u202egnp.turned.png",
    "$&{{}}`${document.title='run'}`.png",
    f"{'long' * 60}.png",
)


def test_the_page_shows_names_as_names_and_says_what_the_model_does_not_read(tmp_path: Path):
    latin_bundle().save(tmp_path / "latin")
    (tmp_path / "pictures").mkdir()
    for name in ODD_NAMES:
        (tmp_path / "pictures" / name).write_bytes(picture_file())
    upload = tmp_path / "red.png"
    upload.write_bytes(picture_file())
    options = ["--model", tmp_path / "latin", "--library", tmp_path / "pictures", "--index", tmp_path / "index"]
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
    with running(*options) as server, browser_tab(**phone) as (tab, complaints, asked):
        until(lambda: not httpx2.get(f"{server.url}/health").json()["indexing"])
        tab.goto(server.url)
        tab.locator("#words").fill("cat 犬")
        tab.locator("#words").press("Enter")
        until(lambda: "does not know 1 of 2 words of 'cat 犬'." in status(tab))
        assert status(tab).startswith("6 pictures, best first. This model")
        until(lambda: tab.evaluate(DRAWN))
        assert set(tab.locator(f"{CELLS} .file").evaluate_all("all => all.map(one => one.title)")) == set(ODD_NAMES)
        until(lambda: tab.locator("#terms mark").all_text_contents() == ["犬 (not known to the model)"])
        assert tab.evaluate(OVERFLOW) <= 0
        # The viewer: what follows a name is not turned with it, and the picture before never stands beside it.
        tab.locator("#results .open").first.tap()
        seen: set[str] = set()
        for i in range(len(ODD_NAMES)):
            told = lambda: tab.locator("#facts bdi").all_inner_texts()  # noqa: E731
            until(lambda: told() and told()[0] not in seen)  # noqa: B023
            facts = told()
            assert (len(facts), facts[1]) == (3, "40 × 30")
            assert tab.evaluate(OVERFLOW) <= 0
            seen.add(facts[0])
            if i + 1 < len(ODD_NAMES):
                tab.locator("#next").tap()
        tab.keyboard.press("Escape")
        tab.locator("#words").fill("犬")
        tab.locator("#words").press("Enter")
        until(lambda: "'犬' is no text to this model" in status(tab))
        tab.get_by_role("tab", name="Name it").tap()
        tab.set_input_files("#name-file", upload)
        tab.locator("#labels").fill("the cat\n<b>cat</b> 犬")
        until(lambda: "words of '<b>cat</b> 犬'" in tab.locator("#name-status").inner_text())
        assert set(tab.locator("#bars bdi").all_inner_texts()) == {"the cat", "<b>cat</b> 犬"}
        tab.locator("#labels").fill("犬\n車")
        until(lambda: "'犬' is no text to this model" in tab.locator("#name-status").inner_text())
        assert tab.locator("#bars li").count() == 0
        assert tab.title() == "diptych"
        assert {url.split("/")[2] for url in asked if url.startswith("http")} == {server.url.split("/")[2]}
        assert [text for text in complaints if "400" not in text] == []


def test_the_page_asks_for_the_key_and_drops_it_with_the_tab(model: Path, tmp_path: Path):
    folder = shoot(tmp_path / "pictures", shots()[:5])
    options = ["--model", model, "--library", folder, "--index", tmp_path / "index"]
    with running(*options, DIPTYCH_API_KEY="a-long-enough-key") as server, browser_tab() as (tab, complaints, asked):
        tab.goto(f"{server.url}/?q=a+red+kite")
        until(lambda: tab.locator("#locked").is_visible())
        assert tab.locator("#locked-status").inner_text() == ""
        tab.locator("#key").fill("ein Schlüssel, 犬")  # no header holds it
        tab.locator("#key").press("Enter")
        until(lambda: tab.locator("#locked").is_visible() and tab.locator("#key").input_value() == "")
        tab.locator("#key").fill("a wrong one")
        tab.locator("#key").press("Enter")
        until(lambda: tab.locator("#locked").is_visible() and tab.locator("#key").input_value() == "")
        assert tab.locator("#locked-status").inner_text() == "That is not the key of this server."
        tab.locator("#key").fill("a-long-enough-key")
        tab.locator("#key").press("Enter")
        until(lambda: status(tab) == "5 pictures, best first")
        until(lambda: tab.evaluate(DRAWN))
        first(tab).click()
        until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))
        assert not any("long" in url for url in asked)
        assert tab.evaluate("Object.values(localStorage).join()").find("long") < 0
        assert [text for text in complaints if "401" not in text] == []
