"""The page of `diptych serve`: first grid, a scroll through 100,000 rows, and what thumbnails cost.

    python benchmarks/page.py [--thumbnails]       (Linux, with chromium; some minutes)

- Rows: an index of 100,000 rows is forged: dates over 15 years, cameras, places; features are noise (seed 0). The files
  are links to 40 pictures, so that thumbnails are drawn as those of others are.
- First grid: from the start of the navigation until the cells in the window have their facts, and until the pictures of
  all of them are there; three new tabs, each without a cache.
- Scroll: through all rows in 12 s, 60 steps a second, by the page's own frames; then a jump by the scrubber to each
  year. The longest frame, the 99th of 100, and how many took over 100 ms. The server has the same cores.
- Thumbnails: processor time of 1,000 of ten JPEGs of 12 megapixels (4,000 x 3,000, noise over waves, quality 90), each
  drawn a hundred times by Pillow's plain way (open, decode whole, reduce with LANCZOS), by Pillow's `thumbnail`, which
  scales while it decodes, by ours, and by ours again from the disk. --thumbnails measures these alone.

Writes results/page.json.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import history
from diptych import load
from diptych.data.facts import Facts
from diptych.runtime import hardware
from diptych.search.library import Library
from diptych.search.reading import thumbnail_of
from diptych.search.writing import Entry, Writer
from diptych.serve.gallery import THUMBNAIL
from diptych.serve.thumbnails import Thumbnails

ROWS, PICTURES, SEED = 100_000, 40, 0
MEGAPIXELS = (4_000, 3_000)
COUNT, FILES = 1_000, 10  # thumbnails of 12 megapixels, and files that they are drawn of
THUMBNAILS = "thumbnails, ms of processor time"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
CAMERAS = ("Canon EOS 80D", "Apple iPhone 12", "NIKON D750", "")
PLACES = ((48.86, 2.35), (1.35, 103.8), (40.7, -74.0), (-33.86, 151.2), None)

GRID = """() => {
    const cells = [...document.querySelectorAll('#results li:not([hidden])')];
    const inside = cells.filter(one => one.getBoundingClientRect().top < innerHeight);
    const known = inside.length > 0 && inside.every(one => one.dataset.id);
    return [known, known && inside.every(one => one.querySelector('img').naturalWidth > 0)];
}"""
SCROLL = """(seconds) => new Promise((done) => {
    const frames = [];
    const height = document.documentElement.scrollHeight - innerHeight;
    const start = performance.now();
    let last = start;
    const step = (now) => {
        frames.push(now - last);
        last = now;
        const share = (now - start) / 1000 / seconds;
        scrollTo(0, share * height);
        if (share < 1) requestAnimationFrame(step);
        else done(frames.slice(1));
    };
    requestAnimationFrame(step);
})"""
JUMP = """(count) => new Promise((done) => {
    const frames = [];
    const height = document.documentElement.scrollHeight - innerHeight;
    let last = performance.now();
    let turn = 0;
    const step = (now) => {
        frames.push(now - last);
        last = now;
        if (turn % 30 === 0) scrollTo(0, height * ((turn / 30 * 7) % count) / count);
        turn += 1;
        if (turn < 30 * count) requestAnimationFrame(step);
        else done(frames.slice(1));
    };
    requestAnimationFrame(step);
})"""


def forged(place: Path) -> tuple[Path, Path]:
    """A folder of links, and an index of as many rows."""
    rng = np.random.default_rng(SEED)
    folder, index = place / "pictures", place / "index"
    (folder / "real").mkdir(parents=True)
    for i in range(PICTURES):
        picture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(picture).resize((640, 480), Image.Resampling.BICUBIC).save(folder / "real" / f"{i}.jpg")
    bundle = load()
    with Library.open(folder, bundle, index=index) as library:
        part = index / library._part
        dimensions = bundle.embed_dim
    start = datetime.datetime(2010, 1, 1)
    seconds = np.sort(rng.integers(0, 15 * 365 * 86_400, ROWS))
    with Writer(part, dimensions) as writer:
        for first in range(0, ROWS, 10_000):
            features = rng.standard_normal((10_000, dimensions)).astype(np.float32)
            features /= np.linalg.norm(features, axis=1, keepdims=True)
            entries = []
            for i in range(first, first + 10_000):
                taken = start + datetime.timedelta(seconds=int(seconds[i]))
                path = f"{taken.year}/{taken.month:02}/IMG_{i:06}.jpg"
                place_ = PLACES[rng.integers(len(PLACES))]
                if place_ is not None:
                    place_ = (place_[0] + rng.normal(0, 1), place_[1] + rng.normal(0, 1))
                camera = CAMERAS[rng.integers(len(CAMERAS))]
                facts = Facts(width=640, height=480, taken=taken, camera=camera, place=place_)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).symlink_to(folder / "real" / f"{i % PICTURES}.jpg")
                facts_of_link = (folder / path).lstat()
                entries.append(
                    Entry(
                        path=path,
                        size=facts_of_link.st_size,
                        modified=facts_of_link.st_mtime_ns,
                        digest=i.to_bytes(32, "little"),
                        facts=facts,
                        features=features[i - first][None],
                    )
                )
            writer.write(entries)
    return folder, index


@contextlib.contextmanager
def served(folder: Path, index: Path) -> Iterator[str]:
    """A server of an index as it is: its folder is not walked."""
    code = (
        "import sys\nfrom diptych.search.library import Library\nfrom diptych.search.update import Update\n"
        "Library.update = lambda *_, **__: Update()\nfrom diptych.cli.main import main\nsys.exit(main())"
    )
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--library", str(folder), "--index", str(index)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        line = process.stdout.readline()
        yield line[line.index("http://") :].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def first_grid(playwright: Any, url: str) -> dict[str, float]:
    """S from the start of the navigation, in a new browser."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    tab = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    start = time.perf_counter()
    tab.goto(url, wait_until="commit")
    told: dict[str, float] = {}
    while "pictures" not in told:
        known, drawn = tab.evaluate(GRID)
        now = round(time.perf_counter() - start, 3)
        if known:
            told.setdefault("grid", now)
        if drawn:
            told.setdefault("pictures", now)
    browser.close()
    return told


def scrolled(playwright: Any, url: str) -> dict[str, Any]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    tab = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(url)
    while not tab.evaluate(GRID)[0]:
        time.sleep(0.02)
    told = {"steady": tab.evaluate(SCROLL, 12), "jumps": tab.evaluate(JUMP, 15)}
    cells = tab.locator("#results li").count()
    browser.close()
    assert complaints == [], complaints
    return {
        "cells in the page": cells,
        **{
            name: {
                "frames": len(frames),
                "longest ms": round(max(frames), 1),
                "99th of 100, ms": round(float(np.percentile(frames, 99)), 1),
                "over 100 ms": sum(frame > 100 for frame in frames),
            }
            for name, frames in told.items()
        },
    }


def noise_picture(path: Path, rng: np.random.Generator) -> None:
    width, height = MEGAPIXELS
    x, y = np.meshgrid(np.linspace(0, 40, width), np.linspace(0, 30, height))
    waves = 128 + 80 * np.sin(x + rng.uniform(0, 6)) * np.cos(y + rng.uniform(0, 6))
    noise = rng.normal(0, 6, (height, width, 1))
    pixels = np.clip(waves[..., None] + noise + rng.uniform(-30, 30, 3), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def plain(path: Path) -> bytes:
    with Image.open(path) as image:
        image.load()
        scale = THUMBNAIL / max(image.size)
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def pillows_own(path: Path) -> bytes:
    with Image.open(path) as image:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85)
    return file.getvalue()


def thumbnails(place: Path, count: int) -> dict[str, Any]:
    """Processor time, ms a picture."""
    rng = np.random.default_rng(SEED)
    (place / "large").mkdir()
    files = []
    for i in range(min(count, FILES)):
        noise_picture(place / "large" / f"{i}.jpg", rng)
        files.append(place / "large" / f"{i}.jpg")
    files = [files[i % len(files)] for i in range(count)]
    kept = Thumbnails(place / "kept", most=2**30)

    def ours(i: int, path: Path) -> bytes:
        return kept.get((i,), lambda: thumbnail_of(path, side=THUMBNAIL))

    ways = {
        "plain": lambda _, path: plain(path),
        "Pillow's thumbnail": lambda _, path: pillows_own(path),
        "ours": ours,
        "ours, from the disk": ours,
    }
    told: dict[str, Any] = {"bytes of a picture": files[0].stat().st_size, "pictures": count}
    for name, way in ways.items():
        start = time.process_time()
        for i, path in enumerate(files):
            way(i, path)
        told[name] = round(1000 * (time.process_time() - start) / count, 2)
    told["ours of plain"] = round(told["ours"] / told["plain"], 3)
    return told


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--thumbnails", action="store_true")
    options = parser.parse_args()
    out = Path(__file__).parent / "results" / "page.json"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        small = thumbnails(place, options.count)
        print(json.dumps(small), flush=True)
        if options.thumbnails:
            measured = {THUMBNAILS: small}
            history.write(out, {**json.loads(out.read_text()), **measured}, measured=measured)
            return
        folder, index = forged(place)
        with served(folder, index) as url, sync_playwright() as playwright:
            grids = [first_grid(playwright, url) for _ in range(4)]
            print(json.dumps(grids), flush=True)
            scroll = scrolled(playwright, url)
    result = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "load of the machine before": round(os.getloadavg()[2], 1),
        "rows": ROWS,
        "first grid, s": {"first tab": grids[0], "median of three more": _median(grids[1:])},
        "scroll": scroll,
        THUMBNAILS: small,
    }
    history.write(out, result)
    print(json.dumps(result, indent=2))


def _median(tabs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(tab[name] for tab in tabs), 3) for name in tabs[0]}


if __name__ == "__main__":
    main()
