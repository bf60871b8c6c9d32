"""Fetching pictures: diptych beside img2dataset, from one local server that behaves as the web does.

    python3 -m venv /tmp/i2d && /tmp/i2d/bin/pip install img2dataset==1.47.0
    python benchmarks/curate_fetch.py --img2dataset /tmp/i2d/bin/python

5,000 addresses on 22 hosts (127.0.0.1 to 127.0.0.22; the server is `tests/bad_server.py`, in a process of its own):
good pictures (JPEG, PNG, WebP, photographs that lie on their side as phones store them), pictures that come at the
second try (500, 429, a connection cut), behind redirects, packed though nobody asked, and of addresses with spaces and
umlauts; missing, forbidden, cut short, web pages under the name of a picture, silent hosts; pictures that a header or
robots.txt asks not to take; addresses that come twice. Each program runs in settings of its README: with bytes kept,
and with pictures made anew with a longest side of 256 px; one process, shards of 1,000, 3 s for a host that is silent
(10 by default in both: the server is near), turn by turn. Processor time is that of the
program and all its processes, start included, and not the server's; memory is the highest sum of their PSS. A picture
stands upright where red is on top for a reader that ignores EXIF, and for one that follows it. What a site asks not to
take is no success: it is counted apart. Writes results/curate_fetch.json.
"""

import argparse
import asyncio
import contextlib
import datetime
import io
import json
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

import history
from diptych.crawl.fetch import FetchPictures
from diptych.crawl.fetch_options import Fetch
from diptych.rows.columns import PICTURE, pair_key, pairs_table
from diptych.rows.stage import Whole
from diptych.runtime import hardware

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bad_server import BadServer

SEED, COUNT, ROUNDS, SHARD, SIDE, PICTURES, SECONDS = 0, 5_000, 2, 1_000, 256, 120, 3
GOOD_HOSTS = [f"127.0.0.{n}" for n in range(1, 21)]
SILENT_HOST, CLOSED_HOST = "127.0.0.21", "127.0.0.22"  # that has robots.txt which closes a folder
LIMIT = 900  # seconds of one run

# How often each kind comes among 1,000, its path, and whether a program that behaves can have it.
KINDS: Sequence[tuple[str, int, str, bool]] = (
    ("jpeg", 340, "/file/{n}.jpg", True),
    ("png", 90, "/file/{n}.png", True),
    ("webp", 90, "/file/{n}.webp", True),
    ("phone", 80, "/file/{n}-phone.jpg", True),
    ("500 once", 40, "/once/500/file/{n}.jpg", True),
    ("429 once", 40, "/once/429/file/{n}.jpg", True),
    ("cut once", 20, "/once/reset/file/{n}.jpg", True),
    ("redirect", 30, "/to/%2Ffile%2F{n}.jpg", True),
    ("chunked", 20, "/chunked/{n}.jpg", True),
    ("packed", 10, "/packed/{n}.jpg", True),
    ("space and umlaut", 20, "/file/ä {n}.jpg", True),
    ("http 404", 80, "/status/404", False),
    ("http 403", 10, "/status/403", False),
    ("page", 30, "/page", False),
    ("short", 20, "/short/{n}.jpg", False),
    ("circle", 5, "/circle", False),
    ("silent", 15, "/silence", False),
    ("noai", 30, "/tag/X-Robots-Tag: noai/{n}.jpg", False),
    ("robots", 30, "/file/{n}.jpg", False),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run left: the picture of each address that it has, and the cause of each other that it names."""

    pictures: Mapping[str, bytes]
    causes: Mapping[str, str]


def files() -> dict[str, bytes]:
    """Pictures as photographs are large: smooth, with a little noise; red above, blue below, once upright."""
    draw = np.random.default_rng(SEED)
    made = {}
    for n in range(PICTURES):
        height, width = 480, 640
        pixels = np.zeros((height, width, 3))
        pixels[: height // 2, :, 0] = pixels[height // 2 :, :, 2] = 200
        pixels[:, :, 1] = np.linspace(0, 80, width)
        pixels += draw.normal(0, 6, pixels.shape)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        made[f"{n}.jpg"] = made[f"ä {n}.jpg"] = encoded(image, "JPEG", quality=90)
        made[f"{n}.webp"] = encoded(image, "WEBP", quality=85)
        made[f"{n}.png"] = encoded(image.resize((160, 120)), "PNG")
        exif = Image.Exif()
        exif[0x0112] = 6
        made[f"{n}-phone.jpg"] = encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)
    return made


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def addresses(port: int, again: str) -> list[tuple[str, str]]:
    """Kind and address of each row. `again` makes those of one run unlike another's, which the server remembers."""
    draw = random.Random(SEED)
    kinds = {kind: path for kind, _, path, _ in KINDS}
    names = draw.choices(list(kinds), [share for _, share, _, _ in KINDS], k=COUNT * 19 // 20)
    rows = []
    for number, kind in enumerate(names):
        host = {"silent": SILENT_HOST, "robots": CLOSED_HOST}.get(kind, draw.choice(GOOD_HOSTS))
        path = kinds[kind].format(n=draw.randrange(PICTURES))
        rows.append((kind, f"http://{host}:{port}{path}?{again}={number}"))
    rows += draw.choices([row for row in rows if row[0] in ("jpeg", "png", "webp", "phone")], k=COUNT - len(rows))
    draw.shuffle(rows)
    return rows


def serve(port: int, ready: Any) -> None:
    robots = (200, "User-agent: *\nDisallow: /file/\n")
    server = BadServer(files(), {(CLOSED_HOST, "/robots.txt"): robots})

    async def run() -> None:
        await asyncio.start_server(server.answer, [*GOOD_HOSTS, SILENT_HOST, CLOSED_HOST], port, backlog=1024)
        ready.set()
        await asyncio.sleep(4 * LIMIT * ROUNDS)

    asyncio.run(run())


def fetch_with_diptych(table: Path, out: Path, reencode: bool) -> None:
    """The work of the stage's runner: threads make parts with pictures and a ledger of parts of rows."""
    rows = pq.read_table(table)
    urls = rows["url"].to_pylist()
    port = urls[0].split(":")[2].split("/")[0]
    options = Fetch(
        part_rows=SHARD,
        allow_hosts=tuple(f"127.0.0.{n}:{port}" for n in range(1, 23)),
        reencode="all" if reencode else "",
        longest_side=SIDE if reencode else 0,
        seconds_silent=SECONDS,
    )
    stage = FetchPictures(options=options)

    def judge(part: int) -> None:
        some = urls[part : part + SHARD]
        keyed = [{"key": pair_key(url, str(i)), "text": str(i), "url": url, "source": 0} for i, url in enumerate(some)]
        judged = stage.apply(pairs_table(keyed), Whole())
        pq.write_table(judged.kept, out / f"{part}.parquet", compression="none")
        pq.write_table(judged.dropped, out / f"{part}-dropped.parquet")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(judge, range(0, len(urls), SHARD)))


def left_by_diptych(out: Path, urls: Sequence[str]) -> Outcome:
    pictures, causes = {}, {}
    for part in range(0, len(urls), SHARD):
        kept, gone = pq.read_table(out / f"{part}.parquet"), pq.read_table(out / f"{part}-dropped.parquet")
        pictures |= dict(zip(kept["url"].to_pylist(), kept[PICTURE].to_pylist(), strict=True))
        keys = {pair_key(url, str(i)): url for i, url in enumerate(urls[part : part + SHARD])}
        causes |= {keys[row["key"]]: row["cause"] for row in gone.to_pylist()}
    return Outcome(pictures=pictures, causes=causes)


IMG2DATASET = """
import sys
from img2dataset import download
table, out, reencode = sys.argv[1], sys.argv[2], sys.argv[3] == "anew"
if __name__ == "__main__":
    made = dict(image_size={side}, resize_mode="keep_ratio_largest", resize_only_if_bigger=True)
    kept = dict(resize_mode="no", skip_reencode=True)
    download(
        url_list=table, input_format="parquet", url_col="url", caption_col="caption", output_folder=out,
        output_format="webdataset", processes_count=1, thread_count=64, number_sample_per_shard={shard}, retries=2,
        timeout={seconds}, enable_wandb=False, **(made if reencode else kept),
    )
"""


def left_by_img2dataset(out: Path) -> Outcome:
    pictures, causes = {}, {}
    for path in sorted(out.glob("*.parquet")):
        with tarfile.open(path.with_suffix(".tar")) as tar:
            members = {
                Path(member.name).stem: member for member in tar if member.name.endswith((".jpg", ".webp", ".png"))
            }
            for row in pq.read_table(path).to_pylist():
                if row["status"] == "success":
                    content = tar.extractfile(members[row["key"]])
                    pictures[row["url"]] = content.read() if content else b""
                else:
                    causes[row["url"]] = row["error_message"] or row["status"]
    return Outcome(pictures=pictures, causes=causes)


def measured(command: Sequence[str]) -> dict[str, float]:
    """Run a command to its end; its processor time, its time, its memory, with all processes that it starts."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, done = 0, 0
    while not done:
        if time.monotonic() - begun > LIMIT:
            process.kill()
        peak = max(peak, memory(process.pid))
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        time.sleep(0.1)
    assert status == 0, f"{command} ended with {status}"
    return {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_s": round(time.monotonic() - begun, 1),
        "memory_mb": round(peak / 1e6),
    }


def memory(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


def judged(outcome: Outcome, rows: Sequence[tuple[str, str]]) -> dict[str, Any]:
    obtainable = {kind for kind, _, _, may in KINDS if may}
    urls = dict(zip((url for _, url in rows), (kind for kind, _ in rows), strict=True))
    wanted = [url for url, kind in urls.items() if kind in obtainable]
    got = Counter(urls[url] for url in outcome.pictures)
    phones = [outcome.pictures[url] for url, kind in urls.items() if kind == "phone" and url in outcome.pictures]
    return {
        "of_obtainable": round(sum(url in outcome.pictures for url in wanted) / len(wanted), 4),
        "lost_without_a_word": len(urls.keys() - outcome.pictures.keys() - outcome.causes.keys()),
        "taken_against_the_sites_word": got["noai"] + got["robots"],
        "damaged_kept": sum(not readable(data) for data in outcome.pictures.values()),
        "upright_without_exif": round(sum(red_above(data, follow=False) for data in phones) / max(1, len(phones)), 3),
        "upright_with_exif": round(sum(red_above(data, follow=True) for data in phones) / max(1, len(phones)), 3),
        "missed": dict(sorted((Counter(urls[url] for url in wanted) - got).items())),
        "causes": len(set(outcome.causes.values())),
    }


def readable(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception:
        return False
    return True


def red_above(data: bytes, *, follow: bool) -> bool:
    image = Image.open(io.BytesIO(data))
    image = (ImageOps.exif_transpose(image) if follow else image).convert("RGB")
    red, _, blue = image.resize((1, 4), Image.Resampling.BOX).getpixel((0, 0))  # type: ignore[misc]
    return red > 2 * blue


@contextlib.contextmanager
def server_on(port: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=serve, args=(port, ready), daemon=True)
    process.start()
    assert ready.wait(120)
    try:
        yield
    finally:
        process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img2dataset", help="a Python that has img2dataset 1.47.0")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        fetch_with_diptych(Path(given.child[0]), Path(given.child[1]), given.child[2] == "anew")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    programs = ["diptych", *(["img2dataset"] if given.img2dataset else [])]
    with server_on(port), tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "fetch.py")
        script.write_text(IMG2DATASET.format(side=SIDE, shard=SHARD, seconds=SECONDS), encoding="utf-8")
        for number in range(given.rounds):
            for how in ("kept", "anew"):
                for program in programs:
                    name = f"{program}-{how}-{number}"
                    rows = addresses(port, name)
                    urls = [url for _, url in rows]
                    table, out = Path(folder, f"{name}.parquet"), Path(folder, name)
                    pq.write_table(pa.table({"url": urls, "caption": ["a picture"] * len(urls)}), table)
                    out.mkdir()
                    mine = [sys.executable, __file__, "--child"]
                    command = mine if program == "diptych" else [given.img2dataset, str(script)]
                    used = measured([*command, str(table), str(out), how])
                    left = left_by_diptych(out, urls) if program == "diptych" else left_by_img2dataset(out)
                    told = judged(left, rows)
                    rate = len(left.pictures) / used["cpu_s"]
                    runs.setdefault((program, how), []).append(used | {"pictures_per_cpu_s": round(rate)} | told)
                    print(name, json.dumps(runs[program, how][-1]), flush=True)
    medians = [
        {"program": program, "pictures": how}
        | {name: statistics.median(run[name] for run in some) for name in some[0] if name != "missed"}
        | {"missed": some[-1]["missed"]}
        for (program, how), some in runs.items()
    ]
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "seed": SEED,
        "n": given.rounds,
        "addresses": COUNT,
        "versions": {"img2dataset": "1.47.0"},
        "rows": medians,
    }
    history.write(history.RESULTS / "curate_fetch.json", result, keys=("program", "pictures"))


if __name__ == "__main__":
    main()
