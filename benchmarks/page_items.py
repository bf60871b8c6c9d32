"""All that the page of `diptych serve` does, done in Chromium: with 2,000 photos, and with 100,000 forged rows.

    python benchmarks/page_items.py --data FOLDER       (Linux, with chromium; about ten minutes)
    python benchmarks/page_items.py --rows              (the rows alone)

- Photos: 1,500 of Caltech-101's and 500 of flowers5's from FOLDER (WebDataset evaluation folders), in folders by class.
  Nine of ten get a date over twelve years, a camera or none, and every second a place (seed 0); 20 copies, 20 smaller
  ones and a film of 20 s are added. The server indexes them with the model in the package while the page is open.
- Rows: those of `benchmarks/page.py`, whose files are links to 40 pictures.
- Every item is done by what a person has: mouse, keys, files. It fails where the page does something else than it says;
  at each stop axe-core looks at the page in light, dark and at the width of a phone, and nothing may complain.

Writes results/page_items.json: seconds of each item, with axe-core's turns within, and how many stops it had.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import history
import page as rows_of_noise
from chromium import browser_tab, until
from diptych.runtime import hardware
from opened_page import CELLS, DRAWN, address, axe, film, first, names, search, status, violations
from serving import Server, running

SEED, YEARS = 0, 12
SETS = {"caltech101/test": 1_500, "flowers5/train": 500}
CAMERAS = ("Canon EOS 80D", "Apple iPhone 12", "NIKON D750", "")
PLACES = ((48.86, 2.35), (1.35, 103.8), (40.7, -74.0), (-33.86, 151.2))
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def photos(data: Path, folder: Path) -> int:
    """The folder; how many files it has."""
    rng = np.random.default_rng(SEED)
    start = datetime.datetime(2012, 1, 1)
    made: list[Path] = []
    for name, count in SETS.items():
        classes = (data / name).parent.joinpath("classnames.txt").read_text().splitlines()
        with tarfile.open(next((data / name).glob("*.tar"))) as archive:
            files = {member.name: member for member in archive.getmembers()}
            for member in sorted(one for one in files if one.endswith(".jpg"))[:count]:
                of = int(archive.extractfile(files[f"{member[:-4]}.cls"]).read())  # type: ignore[union-attr]
                path = folder / classes[of].replace("/", " ") / f"{name.split('/')[0]}-{member}"
                path.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(io.BytesIO(archive.extractfile(files[member]).read())) as image:  # type: ignore[union-attr]
                    exif = Image.Exif()
                    if rng.random() < 0.9:
                        taken = start + datetime.timedelta(seconds=int(rng.integers(0, YEARS * 365 * 86_400)))
                        exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = taken.strftime("%Y:%m:%d %H:%M:%S")
                    exif[Base.Model] = CAMERAS[rng.integers(len(CAMERAS))]
                    if rng.random() < 0.5:
                        latitude, longitude = np.add(PLACES[rng.integers(4)], rng.normal(0, 0.5, 2)).tolist()
                        marks = {1: "N" if latitude > 0 else "S", 3: "E" if longitude > 0 else "W"}
                        where = {2: (abs(latitude), 0.0, 0.0), 4: (abs(longitude), 0.0, 0.0)}
                        exif.get_ifd(IFD.GPSInfo).update({**marks, **where})
                    image.convert("RGB").save(path, quality=90, exif=exif)
                made.append(path)
    (folder / "copies").mkdir()
    for path in made[:20]:
        shutil.copy(path, folder / "copies" / path.name)
        with Image.open(path) as image:
            image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(folder / "copies" / f"small-{path.name}")
    film(folder / "film.webm")
    return len(made) + 41


class Walk:
    """One tab, what was done in it, and what axe said of it."""

    def __init__(self, tab: Any, url: str, folder: Path, total: int, away: Path) -> None:
        self.tab, self.url, self.folder, self.total, self.away = tab, url, folder, total, away
        self.axe = axe()
        self.found: list[Any] = []
        self.stops = 0

    def to(self, address_: str = "") -> None:
        self.tab.goto("about:blank")
        self.tab.goto(f"{self.url}{address_}")
        until(lambda: "pictures" in self.tab.locator("#about").inner_text())
        until(lambda: "…" not in "".join(self.tab.locator(".status").all_inner_texts()))

    def look(self, what: str) -> None:
        """Axe-core in light, dark and as on a phone."""
        self.tab.evaluate(self.axe)
        size = self.tab.viewport_size
        for scheme, width in (("light", size["width"]), ("dark", size["width"]), ("dark", 360), ("light", 360)):
            self.tab.emulate_media(color_scheme=scheme)
            self.tab.set_viewport_size({"width": width, "height": size["height"]})
            self.found += [(what, scheme, width, one) for one in violations(self.tab)]
            overflow = self.tab.evaluate(OVERFLOW)
            self.found += [(what, width, f"{overflow} px too wide")] if overflow > 0 else []
            self.stops += 1
        self.tab.set_viewport_size(size)

    def count(self) -> int:
        """Pictures of the view; -1 while it is not known."""
        number_ = status(self.tab).split(" ")[0].replace(",", "")
        return int(number_) if number_.isdecimal() else -1

    def opened(self) -> str:
        """The first picture, large; its name."""
        until(lambda: first(self.tab).count() > 0 and names(self.tab))
        first(self.tab).click()
        until(lambda: self.tab.evaluate("document.getElementById('large').naturalWidth > 0"))
        return self.tab.locator("#facts bdi").first.inner_text()


def looked_through(walk: Walk) -> None:
    tab = walk.tab
    walk.to()
    assert walk.count() == walk.total
    until(lambda: tab.evaluate(DRAWN))
    assert tab.locator(CELLS).count() < 200
    walk.look("timeline")
    top = names(tab)[0]
    tab.locator("#scrubber").focus()
    tab.keyboard.press("End")
    until(lambda: top not in names(tab) and tab.locator(CELLS).count() > 0)
    until(lambda: tab.evaluate(DRAWN))
    box = tab.locator("#scrubber").bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(20):
        tab.mouse.wheel(0, 1_500)
    until(lambda: tab.evaluate(DRAWN))
    walk.to()
    for group in ("Folders", "Years", "Cameras", "Places"):
        line = tab.locator(".facet", has_text=group).locator("a").first
        until(lambda line=line: line.count() > 0)
        count = int(line.locator(".count").inner_text().replace(",", ""))
        line.click()
        until(lambda count=count: walk.count() == count)
        tab.go_back()
        until(lambda: walk.count() == walk.total)


def linked(walk: Walk) -> None:
    tab = walk.tab
    walk.to("?kind=picture")
    search(tab, "a yellow flower")
    until(lambda: status(tab).endswith("best first"))
    tab.select_option("#sort", "latest")
    until(lambda: status(tab).endswith("by date"))
    name = walk.opened()
    assert set(address(tab)) == {"kind", "q", "sort", "open"}
    link = tab.evaluate("location.href")
    tab.reload()
    until(lambda: tab.locator("#viewer").is_visible() and name in tab.locator("#facts").inner_text())
    second = tab.context.new_page()
    second.goto(link)
    until(lambda: second.locator("#viewer").is_visible() and name in second.locator("#facts").inner_text())
    second.close()
    tab.go_back()
    until(lambda: not tab.locator("#viewer").is_visible() and status(tab).endswith("by date"))
    tab.locator("#save-search").click()
    walk.look("dialog of a search")
    tab.locator("#asked-yes").click()
    until(lambda: tab.locator("#shelf a", has_text="a yellow flower").count() == 1)
    walk.to()
    tab.locator("#shelf a", has_text="a yellow flower").click()
    until(lambda: set(address(tab)) == {"kind", "q", "sort"} and status(tab).endswith("by date"))


def opened(walk: Walk) -> None:
    tab = walk.tab
    walk.to("?q=a+yellow+flower&kind=picture")
    name = walk.opened()
    walk.look("opened picture")
    tab.locator("#why").click()
    until(lambda: "/why" in tab.locator("#large").get_attribute("data-path"))
    until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))
    tab.locator("#why").click()
    tab.keyboard.press("+")
    box = tab.locator("#viewed").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.wheel(0, -300)
    tab.keyboard.press("0")
    tab.keyboard.press("f")
    until(lambda: tab.evaluate("document.fullscreenElement?.id") == "viewing")
    walk.look("full screen")
    tab.keyboard.press("f")
    until(lambda: tab.evaluate("document.fullscreenElement === null"))
    # To the next by a swipe, and back by a key.
    tab.mouse.move(x + 100, y)
    tab.mouse.down()
    tab.mouse.move(x - 100, y, steps=5)
    tab.mouse.up()
    until(lambda: name not in tab.locator("#facts").inner_text())
    tab.keyboard.press("ArrowLeft")
    until(lambda: name in tab.locator("#facts").inner_text())
    with tab.expect_download() as download:
        tab.keyboard.press("d")
    assert Path(download.value.path()).read_bytes() == (walk.folder / name).read_bytes()
    tab.locator("#its-path").click()
    until(lambda: tab.evaluate("navigator.clipboard.readText()") == str(walk.folder / name))
    tab.locator("#its-place").click()
    until(lambda: walk.away.exists() and walk.away.read_text() == str((walk.folder / name).parent))
    tab.locator("#like-words").fill("at night")
    tab.locator("#like").click()
    until(lambda: address(tab).get("q") == "at night" and f"like {name}" in status(tab))
    part_of = walk.opened()
    tab.locator("#part").click()
    tab.mouse.move(x - 60, y - 60)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 60, steps=4)
    walk.look("a part")
    tab.mouse.up()
    until(lambda: status(tab).endswith(f"like a part of {part_of}"))


def played(walk: Walk) -> None:
    """A film, from the frame that was found: its second half is white."""
    tab = walk.tab
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "white").save(file, "PNG")
    walk.to()
    tab.set_input_files("#query-file", {"name": "white.png", "mimeType": "image/png", "buffer": file.getvalue()})
    until(lambda: "picture" in address(tab))
    walk.to(tab.evaluate("location.search") + "&kind=video")
    first(tab).click()
    until(lambda: tab.evaluate("document.getElementById('film').currentTime") > 9)
    walk.look("film")


def mapped(walk: Walk) -> None:
    tab = walk.tab
    walk.to("?tab=map")
    until(lambda: "area" in tab.locator("#map-only").inner_text())
    placed = int(tab.locator("#map-status").inner_text().split()[0].replace(",", ""))
    assert 0 < placed < walk.total
    walk.look("map")
    box = tab.locator("#world").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.wheel(0, -200)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2 - 60, box["y"] + box["height"] / 2, steps=4)
    tab.mouse.up()
    tab.locator("#map-out").click()
    tab.locator("#map-out").click()
    until(lambda: tab.locator("#map-only").is_enabled())
    told = tab.locator("#map-only").inner_text()
    tab.locator("#map-only").click()
    until(lambda: "area" in address(tab) and f"{walk.count():,} of" in told)


def chosen(walk: Walk) -> None:
    tab = walk.tab
    walk.to("?kind=picture&sort=oldest")
    total = walk.count()
    tab.locator('#results li[data-at="0"] .choose').click(force=True)
    tab.locator('#results li[data-at="9"] .choose').click(modifiers=["Shift"], force=True)
    until(lambda: tab.locator("#sel-count").inner_text() == "10 selected")
    some = names(tab)[:10]
    walk.look("selection")
    with tab.expect_download() as download:
        tab.locator("#sel-zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == sorted(some)
        assert archive.read(some[0]) == (walk.folder / some[0]).read_bytes()
    tab.locator("#sel-paths").click()
    wanted = "\n".join(str(walk.folder / name) for name in some)
    until(lambda: tab.evaluate("navigator.clipboard.readText()") == wanted)
    tab.locator("#sel-album").click()
    walk.look("dialog of an album")
    tab.locator("#asked-value").fill("Ten old ones")
    tab.locator("#asked-yes").click()
    tab.locator("#shelf a", has_text="Ten old ones").click()
    until(lambda: walk.count() == 10)
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download the list of Ten old ones").click()
    assert Path(download.value.path()).read_text().split("\n")[:-1] == wanted.split("\n")
    walk.to("?kind=picture&sort=oldest")
    first(tab).focus()
    tab.keyboard.press("x")
    tab.locator("#sel-hide").click()
    until(lambda: walk.count() == total - 1)
    tab.locator("#shelf a", has_text="Hidden pictures").click()
    until(lambda: walk.count() == 1)
    walk.look("hidden")
    first(tab).focus()
    tab.keyboard.press("x")
    tab.locator("#sel-hide").click()
    until(lambda: "shown again" in tab.locator("#toast").inner_text())
    walk.to("?kind=picture&sort=oldest")
    assert walk.count() == total
    name = names(tab)[0]
    first(tab).focus()
    tab.keyboard.press("x")
    tab.locator("#sel-trash").click()
    walk.look("dialog of the trash")
    tab.locator("#asked-yes").click()
    until(lambda: not os.path.lexists(walk.folder / name))
    until(lambda: walk.count() == total - 1)
    walk.total -= 1


def compared(walk: Walk, groups: int) -> None:
    tab = walk.tab
    walk.to("?tab=alike")
    until(lambda: "group" in tab.locator("#alike-status").inner_text())
    found = int(tab.locator("#alike-status").inner_text().split()[0].replace(",", ""))
    assert found >= groups
    walk.look("duplicates")
    group = tab.locator(".group").first
    sizes = [text.split(" · ")[0].split(" × ") for text in group.locator(".told").all_inner_texts()]
    pixels = [int(width.replace(",", "")) * int(height.replace(",", "")) for width, height in sizes]
    assert pixels[0] == max(pixels)
    group.locator(".copy:not(.best) .pick").first.click()
    assert group.locator(".copy").first.locator(".pick").get_attribute("aria-pressed") == "false"
    group.locator(".copy .pick").first.click()
    group.get_by_role("button", name="Others: to an album").click()
    tab.locator("#asked-value").fill("Copies")
    tab.locator("#asked-yes").click()
    until(lambda: group.get_attribute("class") == "group done")
    walk.look("duplicates, one group done")


def compared_noise(walk: Walk) -> None:
    """Features that are noise have no duplicates: all pairs are compared for that."""
    walk.to("?tab=alike")
    end = time.monotonic() + 900
    while "No two pictures" not in walk.tab.locator("#alike-status").inner_text():
        assert time.monotonic() < end
        time.sleep(0.2)
    walk.look("no duplicates")


def asked(walk: Walk) -> None:
    tab = walk.tab
    walk.to()
    picture = names(tab)[0].split("/")[-1]
    search(tab, '"a flower" - 2 * "a butterfly" + ' + picture)
    until(lambda: tab.locator("#terms .term").count() == 3)
    assert tab.locator("#terms .minus").inner_text() == "− 2 × a butterfly"
    walk.look("query")
    for press, sign in (("#help-minus", "-"), ("#help-plus", "+"), ("#help-times", "2 *")):
        tab.locator("#words").fill("a flower")
        tab.locator(press).click()
        assert f'"a flower" {sign}'.replace("2 *", "+ 2 *") in tab.locator("#words").input_value()
    search(tab, "a flower 犬")
    until(lambda: tab.locator("#terms mark").count() == 1)
    walk.look("a word that is not known")
    search(tab, "a flower")
    until(lambda: status(tab).endswith("best first") and walk.count() == min(2_000, walk.total))
    tab.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = str(walk.count() - 1)
    until(lambda: tab.locator(f'#results li[data-at="{last}"] .score').count() == 1)
    until(lambda: tab.evaluate(DRAWN))


def named(walk: Walk) -> None:
    tab = walk.tab
    walk.to("?tab=name")
    until(lambda: tab.locator("#labels").input_value() != "")
    walk.look("labels")
    files = sorted(path for path in walk.folder.rglob("*.jpg"))[:200:50]
    tab.set_input_files("#name-file", files[0])
    until(lambda: tab.locator("#bars .track").count() == 8)
    walk.look("one picture named")
    tab.locator("#template").fill("a photo of {}.|a drawing of {}.")
    tab.locator("#none").fill("100")
    until(lambda: tab.locator("#bars .none").count() == 1)
    tab.set_input_files("#name-file", files[1:])
    until(lambda: tab.locator("#named li").count() == 4)
    walk.look("four pictures named")
    with tab.expect_download() as download:
        tab.locator("#name-csv").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 5
    assert all(",none of these," in line for line in lines[1:])


def done(walk: Walk, items: dict[str, Callable[[Walk], object]]) -> dict[str, float]:
    seconds = {}
    for name, item in items.items():
        start = time.perf_counter()
        item(walk)
        seconds[name] = round(time.perf_counter() - start, 1)
        print(f"{name}: {seconds[name]} s", flush=True)
    return seconds


@contextlib.contextmanager
def tab_of(server: Server) -> Iterator[Any]:
    """A tab that may read the clipboard; nothing may complain, nobody else be asked."""
    with browser_tab(viewport={"width": 1280, "height": 800}) as (tab, complaints, asked_of):
        tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield tab
        assert complaints == [], complaints
        assert {url.split("/")[2] for url in asked_of if url.startswith("http")} == {server.url.split("/")[2]}


def followed(server: Server, tab: Any, folder: Path, total: int) -> dict[str, Any]:
    """The first indexing, seen from the page; then one file more, and a second library."""
    start = time.perf_counter()
    answers = []
    tab.goto(server.url)
    until(lambda: tab.locator("#progress").is_visible())
    until(lambda: " of " in tab.locator("#progress span").inner_text())
    while httpx2.get(f"{server.url}/health").json()["indexing"]:
        asked_at = time.perf_counter()
        httpx2.get(f"{server.url}/health").raise_for_status()
        answers.append(time.perf_counter() - asked_at)
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    until(lambda: status(tab).split(" ")[0].replace(",", "") == str(total))
    one = next(folder.rglob("*.jpg"))
    with Image.open(one) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "a new one.jpg")
    start = time.perf_counter()
    until(lambda: status(tab).split(" ")[0].replace(",", "") == str(total + 1))
    seen = time.perf_counter() - start
    tab.select_option("#library", index=1)
    until(lambda: status(tab) == "3 pictures")
    tab.select_option("#library", index=0)
    until(lambda: status(tab).split(" ")[0].replace(",", "") == str(total + 1))
    return {
        "indexing, s": round(seconds, 1),
        "/health while it indexes, slowest s": round(max(answers), 2),
        "a new file is seen after, s": round(seen, 1),
    }


def environment(place: Path) -> tuple[dict[str, str], Path]:
    """A trash and a file manager of its own, which writes what it was to open."""
    (place / "bin").mkdir()
    manager, opened_ = place / "bin" / "xdg-open", place / "opened"
    manager.write_text(f'#!/bin/sh\nprintf %s "$1" > "{opened_}"\n')
    manager.chmod(manager.stat().st_mode | stat.S_IXUSR)
    path = f"{manager.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "XDG_DATA_HOME": str(place / "data"), "HOME": str(place)}, opened_


def with_photos(place: Path, data: Path, items: dict[str, Callable[[Walk], object]]) -> dict[str, Any]:
    folder = place / "photos"
    total = photos(data, folder)
    for i in range(3):
        (place / "other").mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), ("red", "green", "blue")[i]).save(place / "other" / f"{i}.png")
    variables, away = environment(place)
    variables["DIPTYCH_INDEXES"] = str(place / "indexes")
    options = ("--library", folder, "--library", place / "other", "--watch", "--allow-trash")
    with running(*options, **variables) as server, tab_of(server) as tab:
        kept = followed(server, tab, folder, total)
        walk = Walk(tab, f"{server.url}/", folder, total + 1, away)
        seconds = done(walk, items)
    assert walk.found == [], walk.found
    return {"pictures": walk.total, "indexing and watch": kept, "items, s": seconds, "stops of axe": walk.stops}


def with_rows(place: Path, items: dict[str, Callable[[Walk], object]]) -> dict[str, Any]:
    folder, index = rows_of_noise.forged(place)
    variables, away = environment(place)
    as_it_is = (
        "from diptych.search.library import Library\nfrom diptych.search.update import Update\n"
        "Library.update = lambda *_, **__: Update()"
    )
    options = ("--library", folder, "--index", index, "--allow-trash")
    with running(*options, first=as_it_is, **variables) as server, tab_of(server) as tab:
        walk = Walk(tab, f"{server.url}/", folder, rows_of_noise.ROWS, away)
        seconds = done(walk, items)
    assert walk.found == [], walk.found
    return {"rows": walk.total, "items, s": seconds, "stops of axe": walk.stops}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    if not options.rows and options.data is None:
        parser.error("the photos are in --data FOLDER; --rows does without")
    items: dict[str, Callable[[Walk], object]] = {
        "1 looked through": looked_through,
        "2 views are links": linked,
        "3 the picture": opened,
        "4 map": mapped,
        "5 many at once": chosen,
        "7 queries": asked,
        "8 names": named,
    }
    of_photos = {"3 a film": played, "6 duplicates": lambda walk: compared(walk, 20)}
    result = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "load of the machine before": round(os.getloadavg()[2], 1),
    }
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "a").mkdir()
        (Path(name) / "b").mkdir()
        if not options.rows:
            measured["photos"] = with_photos(Path(name) / "a", options.data, {**items, **of_photos})
        measured["forged rows"] = with_rows(Path(name) / "b", {**items, "6 duplicates": compared_noise})
    out = Path(__file__).parent / "results" / "page_items.json"
    before = json.loads(out.read_text()) if options.rows else {}
    history.write(out, {**before, **result, **measured}, measured=measured)


if __name__ == "__main__":
    main()
