"""The pictures of the page in the docs: each view in light, in dark and on a phone.

    python benchmarks/page_pictures.py [--only VIEW ...]       (Linux, with chromium; some minutes)

600 drawings of Twemoji (CC BY 4.0, see the data card) on coloured ground, with dates over four years, cameras and
places made up (seed 0), ten of them twice in other sizes. The model is diptych-pictogram.
Writes docs/images/serve-VIEW.webp, serve-VIEW-dark.webp and serve-VIEW-phone.webp.
"""

import argparse
import datetime
import io
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from chromium import browser_tab, until
from diptych.data.embedded import HELD_OUT, data_path
from opened_page import CELLS, DRAWN, first, status
from serving import running

SEED, COUNT = 0, 600
IMAGES = Path(__file__).parent.parent / "docs" / "images"
FOLDERS = ("garden", "trip to the sea", "at home", "market")
CAMERAS = ("NIKON D750", "Apple iPhone 12", "Canon EOS 80D", "")
PLACES = ((48.86, 2.35), (35.7, 139.7), (-33.86, 151.2), (40.7, -74.0), (30.0, 31.2), (-22.9, -43.2), (1.35, 103.8))
GROUND = ((222, 235, 247), (254, 237, 222), (229, 245, 224), (252, 228, 236), (239, 237, 245), (255, 247, 205))
DESK, PHONE = {"width": 1100, "height": 760}, {"width": 390, "height": 780}


def album(folder: Path) -> None:
    """The pictures."""
    rng = np.random.default_rng(SEED)
    data = data_path(HELD_OUT)
    with tarfile.open(data / "test" / "0.tar.gz") as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        files = {name: file.read() for name, file in members.items() if file}
    pictures = sorted(name for name in files if name.endswith((".png", ".webp", ".jpg")))
    start = datetime.datetime(2021, 3, 1, 9)
    for i, number in enumerate(sorted(rng.choice(len(pictures), COUNT, replace=False).tolist())):
        name = pictures[number]
        taken = start + datetime.timedelta(minutes=int(rng.integers(0, 4 * 365 * 1440)))
        drawing = Image.open(io.BytesIO(files[name])).convert("RGBA")
        white = np.asarray(drawing.convert("RGB"))[..., None, :].min(axis=-1).reshape(drawing.size[::-1]) > 245
        pixels = np.array(drawing)
        pixels[..., 3] = np.where(white & _outside(white), 0, pixels[..., 3])
        drawing = Image.fromarray(pixels).resize((420, 420), Image.Resampling.LANCZOS)
        size = ((640, 480), (480, 640))[int(rng.integers(2))]
        picture = Image.new("RGB", size, GROUND[rng.integers(len(GROUND))])
        picture.paste(drawing, ((size[0] - 420) // 2, (size[1] - 420) // 2), drawing)
        exif = Image.Exif()
        exif[Base.Model] = CAMERAS[rng.integers(len(CAMERAS))]
        exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = taken.strftime("%Y:%m:%d %H:%M:%S")
        if rng.random() < 0.7:
            latitude, longitude = np.add(PLACES[rng.integers(len(PLACES))], rng.normal(0, 1.5, 2)).tolist()
            marks = {1: "N" if latitude > 0 else "S", 3: "E" if longitude > 0 else "W"}
            exif.get_ifd(IFD.GPSInfo).update({**marks, 2: (abs(latitude), 0.0, 0.0), 4: (abs(longitude), 0.0, 0.0)})
        path = folder / f"{taken.year}" / FOLDERS[rng.integers(4)] / f"{Path(name).stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=90, exif=exif)
        if i % 60 == 0:
            (folder / "from the phone").mkdir(exist_ok=True)
            smaller = picture.resize((size[0] // 2, size[1] // 2), Image.Resampling.LANCZOS)
            smaller.save(folder / "from the phone" / f"IMG_{i:04}.jpg", quality=60, exif=exif)


def _outside(white: np.ndarray) -> np.ndarray:
    """[H, W] bool, what of the white reaches the edge."""
    reached = np.zeros_like(white)
    reached[0], reached[-1], reached[:, 0], reached[:, -1] = white[0], white[-1], white[:, 0], white[:, -1]
    while True:
        wider = reached.copy()
        wider[1:] |= reached[:-1]
        wider[:-1] |= reached[1:]
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= white
        if (wider == reached).all():
            return reached
        reached = wider


def drawn(tab: Any) -> None:
    until(lambda: tab.locator(CELLS).count() > 0 and tab.evaluate(DRAWN))


def opened(tab: Any) -> None:
    drawn(tab)
    first(tab).click()
    until(lambda: tab.evaluate("document.getElementById('large').naturalWidth > 0"))


def part(tab: Any) -> None:
    opened(tab)
    tab.locator("#part").click()
    box = tab.locator("#viewed").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x - 60, y - 90)
    tab.mouse.down()
    tab.mouse.move(x + 70, y + 10, steps=4)


def selected(tab: Any) -> None:
    drawn(tab)
    first(tab).focus()
    for key in ("x", "Shift+ArrowRight", "Shift+ArrowRight"):
        tab.keyboard.press(key)
    until(lambda: tab.locator("#sel-count").inner_text() == "3 selected")


def asked(tab: Any) -> None:
    drawn(tab)
    tab.locator("#save-search").click()


def shelved(tab: Any) -> None:
    drawn(tab)
    if not tab.locator("#facets").is_visible():
        tab.locator("summary").click()
    until(lambda: tab.locator("#shelf a").count() > 1)


def mapped(tab: Any) -> None:
    until(lambda: "area" in tab.locator("#map-only").inner_text())


def compared(tab: Any) -> None:
    images = "[...document.querySelectorAll('.group img')].slice(0, 4).every(i => i.naturalWidth > 0)"
    until(lambda: tab.locator(".group").count() > 0 and tab.evaluate(images))


def named(folder: Path) -> Callable[[Any], None]:
    def work(tab: Any) -> None:
        until(lambda: tab.locator("#labels").input_value() != "")
        tab.locator("#labels").fill("an animal\nfood\na vehicle\na face\na flag")
        tab.set_input_files("#name-file", sorted(folder.glob("2022/*/*.jpg"))[3])
        until(lambda: tab.locator("#bars .track").count() == 5)

    return work


def views(folder: Path) -> dict[str, tuple[str, Callable[[Any], None]]]:
    return {
        "browse": ("", drawn),
        "search": ("?q=%22a+car%22+-+%22red%22", drawn),
        "view": ("?q=a+car", opened),
        "part": ("?folder=2022", part),
        "selected": ("?folder=2023", selected),
        "keep": ("?q=a+vehicle&after=2022-01-01&before=2023-01-01", asked),
        "shelf": ("?album=Wheels", shelved),
        "map": ("?tab=map", mapped),
        "alike": ("?tab=alike", compared),
        "name": ("?tab=name", named(folder)),
    }


def keep(url: str) -> None:
    """A search and an album that are there already."""
    body = {"name": "vehicles of 2022", "link": "q=a+vehicle&after=2022-01-01&before=2023-01-01"}
    httpx2.post(f"{url}/library/shelf/search", json=body).raise_for_status()
    seen = httpx2.post(f"{url}/library/view", json={"folder": "2022", "query": "a vehicle"}).json()["pictures"]
    body = {"name": "Wheels", "add": [one["id"] for one in seen[:9]]}
    httpx2.post(f"{url}/library/shelf/album", json=body).raise_for_status()


def shown(url: str, views_: dict[str, tuple[str, Callable[[Any], None]]], end: str, **options: Any) -> None:
    with browser_tab(**options) as (tab, complaints, _):
        for name, (address, work) in views_.items():
            tab.goto("about:blank")
            tab.goto(f"{url}/{address}")
            until(lambda: "pictures" in tab.locator("#about").inner_text())
            until(lambda: "…" not in "".join(tab.locator(".status").all_inner_texts()) and status(tab) is not None)
            work(tab)
            tab.wait_for_timeout(400)  # what fades has faded
            image = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
            image.save(IMAGES / f"serve-{name}{end}.webp", quality=55, method=6)
            print(name, end, flush=True)
        assert complaints == [], complaints


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[])
    wanted = parser.parse_args().only
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "Pictures"
        album(folder)
        index = Path(name) / "index"
        options = ("--library", folder, "--index", index, "--model", "diptych-pictogram", "--allow-trash")
        with running(*options) as server:
            until(lambda: not httpx2.get(f"{server.url}/health").json()["indexing"])
            keep(server.url)
            all_ = {one: view for one, view in views(folder).items() if not wanted or one in wanted}
            shown(server.url, all_, "", viewport=DESK, color_scheme="light")
            shown(server.url, all_, "-dark", viewport=DESK, color_scheme="dark")
            shown(server.url, all_, "-phone", viewport=PHONE, color_scheme="light", has_touch=True, is_mobile=True)


if __name__ == "__main__":
    main()
