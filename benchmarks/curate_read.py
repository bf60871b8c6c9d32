"""How fast sources of pairs are read: pages of WARC files, records of WAT files, rows of tables.

    nice .venv/bin/python benchmarks/curate_read.py [--pages 2000] [--rows 200000] [--rounds 5]

Pages are made from a seed: 36 kB of HTML with 12 pictures on average, all with an address and an alt text, in a gzipped
WARC file with a request before each answer, as crawlers write them; a WAT record tells of each of them, with as many
other links. Rows are an address and a text of four to thirteen words. Measured is the processor time of one thread from
the open file to the table of rows, the best of the rounds; reading is one pass that keeps every pair.
Writes results/curate_read.json.
"""

import argparse
import datetime
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import history
from diptych.crawl.read import PairSource, pieces, read_piece
from diptych.runtime import hardware

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from warcs import answer, warc, wat

SEED, PAGE_BYTES = 0, 36_000
WORDS = ("the", "a", "dog", "cat", "runs", "over", "green", "hills", "with", "red", "boat", "old", "house", "river")


def page(draw: random.Random, number: int) -> tuple[str, list[dict[str, str]]]:
    """HTML, and its links as a WAT file has them."""
    parts, links, size = [], list[dict[str, str]](), 0
    while size < PAGE_BYTES:
        if draw.random() < 0.07:
            address, text = f"/pictures/{number}/{len(links)}.jpg", " ".join(draw.choices(WORDS, k=8))
            parts.append(f'<figure><a href="/v"><img src="{address}" width=300 height=200 alt="{text}"></a></figure>')
            links.append({"path": "IMG@/src", "url": address, "alt": text})
        else:
            words = " ".join(draw.choices(WORDS, k=30))
            parts.append(f'<p class="text wide">{words} <a href="/more/{len(parts)}">more</a></p>')
            if len(parts) % 12 == 0:
                links.append({"path": "A@/href", "url": f"/more/{len(parts)}", "text": "more"})
        size += len(parts[-1])
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="robots" content="index"></head><body>'
    )
    return head + "".join(parts), links


def write_files(folder: Path, pages: int, rows: int) -> dict[str, int]:
    """Files to read, each with how many pages, records or rows it has."""
    draw = random.Random(SEED)
    made = [(f"https://site{n % 97}.example/{n}", *page(draw, n)) for n in range(pages)]
    (folder / "pages.warc.gz").write_bytes(warc([answer(html, url=url) for url, html, _ in made]))
    told = [
        (url, {"Response-Message": {"Status": "200"}, "HTML-Metadata": {"Head": {}, "Links": links}})
        for url, _, links in made
    ]
    (folder / "pages.wat.gz").write_bytes(wat(told))
    urls = [f"https://host{draw.randrange(9999)}.example/pictures/{n}.jpg" for n in range(rows)]
    texts = [" ".join(draw.choices(WORDS, k=draw.randrange(4, 14))) for _ in urls]
    pairs = list(zip(urls, texts, strict=True))
    (folder / "rows.tsv").write_text("url\ttext\n" + "".join(f"{url}\t{text}\n" for url, text in pairs))
    (folder / "rows.csv").write_text("url,text\n" + "".join(f'{url},"{text}"\n' for url, text in pairs))
    (folder / "rows.jsonl").write_text("".join(json.dumps({"url": url, "text": text}) + "\n" for url, text in pairs))
    pq.write_table(pa.table({"url": urls, "text": texts}), folder / "rows.parquet", row_group_size=50_000)
    counts = dict.fromkeys(("pages.warc.gz", "pages.wat.gz"), pages)
    return counts | dict.fromkeys(("rows.tsv", "rows.csv", "rows.jsonl", "rows.parquet"), rows)


def measured(path: Path, count: int, rounds: int) -> dict[str, Any]:
    """Speed of planning and reading one file."""
    best, pairs = float("inf"), 0
    for _ in range(rounds):
        start = time.thread_time()
        sources = [PairSource(path=str(path))]
        judged = [read_piece(piece, sources) for piece in pieces(sources, 50_000)]
        best = min(best, time.thread_time() - start)
        pairs = sum(len(one.kept) for one in judged)
        assert not any(len(one.dropped) for one in judged)
    return {
        "file": path.name,
        "read": count,
        "pairs": pairs,
        "read/s": round(count / best),
        "pairs/s": round(pairs / best),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = write_files(Path(folder), args.pages, args.rows)
        rows = [measured(Path(folder) / name, count, args.rounds) for name, count in counts.items()]
    for row in rows:
        print(row)
    facts = {"date": datetime.date.today().isoformat(), "hardware": hardware(), "seed": SEED, "rounds": args.rounds}
    history.write(Path(__file__).parent / "results" / "curate_read.json", {**facts, "rows": rows}, keys=("file",))


if __name__ == "__main__":
    main()
