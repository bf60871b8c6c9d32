"""Search among many vectors: time, recall and memory of the exact and the approximate scan, beside a graph.

    OMP_NUM_THREADS=1 python benchmarks/search.py   (100,000 and 1,000,000 rows; 4 GB of memory, 2 GB of disk)
    python benchmarks/search.py --graph-rows 100000 (rows that usearch's graph is built of, too)

The vectors are made up, as features of CLIP models are: 20,000 clusters round a common direction, variance of the i-th
direction proportional to 1 / i (128 of 512 hold 79 % of it). Queries by picture are of the same kind. Queries by words
have their own common direction, a third of a picture's signal, and noise in all directions, so that the best cosine is
0.15. Rows lie in a file that is mapped, as an index has them. On a busy machine look at the processor time of one
thread: threads that wait for each other spend it, too. Writes results/search.json.
"""

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych.files import write_json
from diptych.runtime import generator, hardware
from diptych.search.ann import ApproximateScanner
from diptych.search.index import Scanner, plain_search

D, CLUSTERS, SEED, QUERIES, COUNT, BLOCK = 512, 20_000, 0, 40, 10, 50_000


class Vectors:
    """Made-up features; the same again for the same seed."""

    def __init__(self) -> None:
        self.random = generator(SEED)
        self.spread = normalize(torch.arange(1, D + 1).float().rsqrt(), dim=0)
        self.turn = torch.linalg.qr(self.normal(D))[0]
        self.centres = self.normal(CLUSTERS) * self.spread
        self.common, self.common_text = (normalize(self.normal(1), dim=1) for _ in range(2))

    def normal(self, count: int) -> Tensor:
        return torch.randn(count, D, generator=self.random)

    def pictures(self, count: int) -> Tensor:
        centres = self.centres[torch.randint(CLUSTERS, (count,), generator=self.random)]
        rows = (centres + 0.6 * self.normal(count) * self.spread) / (1 + 0.6**2) ** 0.5
        return normalize(rows @ self.turn + 0.8 * self.common, dim=1)

    def texts(self, count: int) -> Tensor:
        signal = self.pictures(count) - 0.8 * self.common
        return normalize(0.35 * signal + 0.7 * self.common_text + 0.5 * normalize(self.normal(count), dim=1), dim=1)


def memory() -> dict[str, float]:
    """Megabytes of this process: all that is resident, and what no file stands behind."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}


def measured(search: Callable[[np.ndarray], np.ndarray], queries: Tensor, truth: list[np.ndarray]) -> dict[str, Any]:
    search(queries[0].numpy()), search(queries[0].numpy())  # the first scan is a plain one, the second builds
    wall, cpu, hits = [], [], 0
    for query, best in zip(queries.numpy(), truth, strict=True):
        start, start_cpu = time.perf_counter(), time.process_time()
        rows = search(query)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        hits += len(np.intersect1d(rows, best))
    return {
        f"recall@{COUNT}": round(hits / (COUNT * len(queries)), 4),
        "milliseconds": round(1000 * statistics.median(wall), 2),
        "milliseconds, fastest": round(1000 * min(wall), 2),
        "milliseconds of processor": round(1000 * statistics.median(cpu), 2),
    }


def graph(features: np.ndarray) -> tuple[dict[str, Callable[[np.ndarray], np.ndarray]], float]:
    """Searches of usearch's graph by how far they look, and the seconds of processor time it took to build."""
    from usearch.index import Index

    index = Index(ndim=D, metric="ip", dtype="f16")
    start = time.process_time()
    for first in range(0, len(features), BLOCK):
        block = np.asarray(features[first : first + BLOCK])
        index.add(np.arange(first, first + len(block)), block)
    built = time.process_time() - start

    def search(query: np.ndarray, wide: int) -> np.ndarray:
        index.expansion_search = wide
        return np.asarray(index.search(query, COUNT).keys).astype(np.int64)

    return {
        f"usearch, expansion {wide}": lambda query, wide=wide: search(query, wide) for wide in (64, 256, 1024)
    }, built


def best_rows(features: np.ndarray, queries: Tensor) -> list[np.ndarray]:
    """The rows of the best scores of each query, by one matrix product a block."""
    scores = torch.cat(
        [queries @ torch.from_numpy(np.array(features[i : i + BLOCK])).T for i in range(0, len(features), BLOCK)], dim=1
    )
    return list(scores.topk(COUNT).indices.numpy())


def measure(count: int, folder: Path, *, with_graph: bool) -> list[dict[str, Any]]:
    vectors, file = Vectors(), folder / f"{count}.f32"
    with file.open("wb") as opened:
        for _ in range(0, count, BLOCK):
            opened.write(vectors.pictures(min(BLOCK, count)).numpy().tobytes())
    features = np.memmap(file, np.float32, "r", shape=(count, D))
    queries = {"pictures": vectors.pictures(QUERIES), "words": vectors.texts(QUERIES)}
    truth = {kind: best_rows(features, of) for kind, of in queries.items()}
    rows: list[dict[str, Any]] = []

    def add(way: str, search: Callable[[np.ndarray], np.ndarray], **facts: Any) -> None:
        for kind, of in queries.items():
            found = measured(search, of, truth[kind])
            rows.append({"rows": count, "way": way, "queries": kind, **found, **facts})
            print(json.dumps(rows[-1]), flush=True)

    add("plain float32 scan", lambda query: plain_search(features, query, COUNT).rows)
    for way, kind in (("8 bits, then float32", Scanner), ("components, then float32", ApproximateScanner)):
        before, start = memory(), time.process_time()
        scanner = kind(features)
        for _ in range(2):
            scanner.search(queries["pictures"][0].numpy(), COUNT)
        built = time.process_time() - start
        features._mmap.madvise(4)  # MADV_DONTNEED: what building has read is no part of what searching needs
        add(way, lambda query, scanner=scanner: scanner.search(query, COUNT).rows)
        after = memory()
        for row in rows[-2:]:
            row |= {
                "processor seconds to build": round(built, 1),
                "MB held": round(after["RssAnon"] - before["RssAnon"]),
                "MB resident, whole process": round(after["VmRSS"]),
            }
        del scanner
    if with_graph:
        searches, built = graph(features)
        for way, search in searches.items():
            add(way, search, **{"processor seconds to build": round(built, 1)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--graph-rows", type=int, nargs="*", default=[], help="of --rows, those with a graph")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.rows:
            rows += measure(count, Path(folder), with_graph=count in arguments.graph_rows)
    result = {
        "what": f"the {COUNT} best of made-up [N, {D}] features; medians over {QUERIES} queries of each kind",
        "n": QUERIES,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": rows,
    }
    write_json(Path(__file__).parent / "results" / "search.json", result)


if __name__ == "__main__":
    main()
