"""Search among many vectors: time, recall and memory of the exact and the approximate scan, beside a graph.

    OMP_NUM_THREADS=1 python benchmarks/search.py   (100,000 and 1,000,000 rows; 2 GB of memory, 2 GB of disk)
    python benchmarks/search.py --graph-rows 100000 (rows that usearch's graph is built of, too)

The vectors are made up, as features of CLIP models are: 20,000 clusters round a common direction, variance of the i-th
direction proportional to 1 / i (128 of 512 hold 79 % of it). Queries by picture are of the same kind. Queries by words
have their own common direction, a third of a picture's signal, and noise in all directions, so that the best cosine is
0.15. Rows lie in a file that is mapped, as an index has them. Each way is measured in a process of its own, and memory
is all that this takes, Python and torch included. On a busy machine look at the processor time of one thread: threads
that wait for each other spend it, too. Writes results/search.json.
"""

import argparse
import datetime
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import history
from diptych.runtime import hardware
from diptych.search.ann import ApproximateScanner
from diptych.search.index import Scanner, blocks_of, plain_search
from diptych.torch_runtime import generator

Search = Callable[[np.ndarray], np.ndarray]  # [D] to the rows that answer

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


class Sample(NamedTuple):
    """What is searched, what is asked, and what is right."""

    file: Path
    size: int  # N
    queries: dict[str, np.ndarray]  # [Q, D] by kind
    truth: dict[str, np.ndarray]  # [Q, COUNT], rows

    @property
    def features(self) -> np.memmap:
        """[N, D], mapped."""
        return np.memmap(self.file, np.float32, "r", shape=(self.size, D))


def draw(count: int, folder: Path) -> Sample:
    vectors, file = Vectors(), folder / f"{count}.f32"
    with file.open("wb") as opened:
        for _ in range(0, count, BLOCK):
            opened.write(vectors.pictures(min(BLOCK, count)).numpy().tobytes())
    sample = Sample(
        file, count, {"pictures": vectors.pictures(QUERIES).numpy(), "words": vectors.texts(QUERIES).numpy()}, {}
    )
    for kind, queries in sample.queries.items():
        scores = np.concatenate([queries @ block.T for _, block in blocks_of(sample.features)], axis=1)
        sample.truth[kind] = torch.from_numpy(scores).topk(COUNT).indices.numpy()
    return sample


def memory() -> dict[str, int]:
    """Megabytes of this process: resident now, those of them that lie in files, too, and resident at most so far."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"VmRSS": "MB resident", "RssFile": "MB of it mapped files", "VmHWM": "MB resident at most"}
    return {name: round(int(fields[field].split()[0]) / 1024) for field, name in names.items()}


def measured(way: str, search: Search, sample: Sample) -> list[dict[str, Any]]:
    """One way's times and recall for each kind of query. The first two searches are not counted: the second builds."""
    rows = []
    for kind, queries in sample.queries.items():
        for _ in range(2):
            search(queries[0])
        wall, cpu, hits = [], [], 0
        for query, best in zip(queries, sample.truth[kind], strict=True):
            start, start_cpu = time.perf_counter(), time.process_time()
            found = search(query)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
            hits += len(np.intersect1d(found, best))
        facts = {
            f"recall@{COUNT}": round(hits / (COUNT * len(queries)), 4),
            "milliseconds": round(1000 * statistics.median(wall), 2),
            "milliseconds, fastest": round(1000 * min(wall), 2),
            "milliseconds of processor": round(1000 * statistics.median(cpu), 2),
        }
        rows.append({"rows": sample.size, "way": way, "queries": kind, **facts})
    return rows


def plain(sample: Sample) -> dict[str, Search]:
    features = sample.features
    return {"plain float32 scan": lambda query: plain_search(features, query, COUNT).rows}


def eight_bits(sample: Sample) -> dict[str, Search]:
    return {"8 bits, then float32": scan(Scanner(sample.features), sample)}


def components(sample: Sample) -> dict[str, Search]:
    return {"components, then float32": scan(ApproximateScanner(sample.features), sample)}


def scan(scanner: Scanner, sample: Sample) -> Search:
    for _ in range(2):
        scanner.search(sample.queries["pictures"][0], COUNT)
    return lambda query: scanner.search(query, COUNT).rows


def graph(sample: Sample) -> dict[str, Search]:
    """Searches of usearch's graph, by how far they look."""
    from usearch.index import Index

    index = Index(ndim=D, metric="ip", dtype="f16")
    for where, block in blocks_of(sample.features):
        index.add(np.arange(where.start, where.stop), block)

    def search(query: np.ndarray, wide: int) -> np.ndarray:
        index.expansion_search = wide
        return np.asarray(index.search(query, COUNT).keys).astype(np.int64)

    return {f"usearch, expansion {wide}": lambda query, wide=wide: search(query, wide) for wide in (64, 256, 1024)}


def measure(build: Callable[[Sample], dict[str, Search]], sample: Sample) -> list[dict[str, Any]]:
    """All that a process of its own tells of one way."""
    before, start = memory(), time.process_time()
    searches = build(sample)
    built = round(time.process_time() - start, 1)
    rows = []
    for way, search in searches.items():
        found = measured(way, search, sample)
        held = {"MB resident before": before["MB resident"], **memory()}
        rows += [{**row, "processor seconds to build": built, **held} for row in found]
    return rows


def parsed(rows: list[int]) -> argparse.Namespace:
    """Which numbers of rows are measured, and with a graph of which."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=rows)
    parser.add_argument("--graph-rows", type=int, nargs="*", default=[], help="of --rows, those with a graph")
    return parser.parse_args()


def write(name: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """The result file."""
    result = {
        "what": f"the {COUNT} best of made-up [N, {D}] features; medians over {QUERIES} queries of each kind",
        "n": QUERIES,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        **facts,
        "rows": rows,
    }
    history.write(history.RESULTS / f"{name}.json", result, keys=("rows", "way", "queries"))


def main() -> None:
    arguments = parsed([100_000, 1_000_000])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.rows:
            sample = draw(count, Path(folder))
            for build in (plain, eight_bits, components, *([graph] if count in arguments.graph_rows else [])):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
                    rows += another.submit(measure, build, sample).result()
                print(json.dumps(rows[-1]), flush=True)
    write("search", rows)


if __name__ == "__main__":
    main()
