"""Search among many vectors: time, recall and memory of the exact and the approximate scan, beside a graph.

    python benchmarks/search.py                     (10,000, 100,000 and 1,000,000 rows; 2 GB of memory, 2 GB of disk)
    python benchmarks/search.py --graph-rows 100000 (rows that usearch's graph is built of, too)
    OPENBLAS_CORETYPE=Haswell python benchmarks/search.py --avx2    (as a processor without AVX-512 would; Linux)

The vectors are made up, as features of CLIP models are: 20,000 clusters round a common direction, variance of the i-th
direction proportional to 1 / i (128 of 512 hold 79 % of it). Queries by picture are of the same kind. Queries by words
have their own common direction, a third of a picture's signal, and noise in all directions, so that the best cosine is
0.15. Rows lie in a file that is mapped, as an index has them. Each way is measured in a process of its own, and memory
is all that this takes, Python included. On a busy machine look at the processor time: others make the clock go on.
Duplicates are looked for among so many rows, of which one in fifty is a copy of another with a little noise. Writes
results/search.json.
"""

import argparse
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simsimd

import history
from diptych.runtime import hardware
from diptych.search.ann import ApproximateScanner
from diptych.search.duplicates import alike
from diptych.search.index import Scanner, blocks_of, plain_search

Search = Callable[[np.ndarray], np.ndarray]  # [D] to the rows that answer

D, CLUSTERS, SEED, QUERIES, COUNT, BLOCK = 512, 20_000, 0, 40, 10, 50_000


def normalize(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class Vectors:
    """Made-up features, [N, dimensions] float32; the same again for the same seed."""

    def __init__(self, dimensions: int) -> None:
        self.random = np.random.default_rng(SEED)
        self.dimensions = dimensions
        self.spread = normalize(np.arange(1, dimensions + 1, dtype=np.float32) ** -0.5)
        self.turn = np.linalg.qr(self.normal(dimensions))[0]
        self.centres = self.normal(CLUSTERS) * self.spread
        self.common, self.common_text = (normalize(self.normal(1)) for _ in range(2))

    def normal(self, count: int) -> np.ndarray:
        return self.random.standard_normal((count, self.dimensions), np.float32)

    def pictures(self, count: int) -> np.ndarray:
        centres = self.centres[self.random.integers(CLUSTERS, size=count)]
        rows = (centres + 0.6 * self.normal(count) * self.spread) / (1 + 0.6**2) ** 0.5
        return normalize(rows @ self.turn + 0.8 * self.common)

    def texts(self, count: int) -> np.ndarray:
        signal = self.pictures(count) - 0.8 * self.common
        return normalize(0.35 * signal + 0.7 * self.common_text + 0.5 * normalize(self.normal(count)))


class Sample(NamedTuple):
    """What is searched, what is asked, and what is right."""

    file: Path
    size: int  # N
    queries: dict[str, np.ndarray]  # [Q, D] by kind
    truth: dict[str, np.ndarray]  # [Q, COUNT], rows
    dimensions: int = D
    avx2: bool = False  # no instructions beyond it

    @property
    def features(self) -> np.memmap:
        """[N, D], mapped."""
        return np.memmap(self.file, np.float32, "r", shape=(self.size, self.dimensions))

    def facts(self, way: str) -> dict[str, Any]:
        """What tells the rows of the result apart."""
        return {
            "rows": self.size,
            "dimensions": self.dimensions,
            "way": way,
            "instructions": "avx2 at most" if self.avx2 else "all",
        }


def draw(count: int, folder: Path, dimensions: int = D, *, avx2: bool = False) -> Sample:
    vectors, file = Vectors(dimensions), folder / f"{count}-{dimensions}.f32"
    with file.open("wb") as opened:
        for _ in range(0, count, BLOCK):
            opened.write(vectors.pictures(min(BLOCK, count)).tobytes())
    queries = {"pictures": vectors.pictures(QUERIES), "words": vectors.texts(QUERIES)}
    sample = Sample(file, count, queries, {}, dimensions, avx2)
    for kind, of_kind in sample.queries.items():
        scores = np.concatenate([of_kind @ block.T for _, block in blocks_of(sample.features)], axis=1)
        sample.truth[kind] = np.argpartition(-scores, COUNT, axis=1)[:, :COUNT]
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
            "milliseconds of processor, fewest": round(1000 * min(cpu), 2),
        }
        rows.append({**sample.facts(way), "queries": kind, **facts})
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


def only_avx2() -> None:
    """As if the processor had nothing beyond it; the environment has to ask the same of OpenBLAS."""
    for instructions in ("skylake", "ice", "genoa", "sapphire", "turin"):
        simsimd.disable_capability(instructions)
    assert os.environ.get("OPENBLAS_CORETYPE") == "Haswell", "--avx2 needs OPENBLAS_CORETYPE=Haswell"


def duplicates(sample: Sample) -> dict[str, Any]:
    """Time of comparing all pairs; the best of some."""
    if sample.avx2:
        only_avx2()
    features = np.array(sample.features)
    copies, random = len(features) // 50, np.random.default_rng(SEED)
    noise = random.standard_normal((copies, sample.dimensions), np.float32)
    features[-copies:] = normalize(features[:copies] + 0.004 * noise)
    wall, cpu = [], []
    for _ in range(5):
        start, start_cpu = time.perf_counter(), time.process_time()
        found = alike(features, 0.97)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    assert len(found) >= copies // 2
    seconds = {"seconds, fastest": round(min(wall), 2), "seconds of processor, fewest": round(min(cpu), 2)}
    return {**sample.facts("duplicates at 0.97"), "queries": "", **seconds, **memory()}


def measure(build: Callable[[Sample], dict[str, Search]], sample: Sample) -> list[dict[str, Any]]:
    """All that a process of its own tells of one way."""
    if sample.avx2:
        only_avx2()
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
    parser.add_argument("--dimensions", type=int, nargs="*", default=[D])
    parser.add_argument(
        "--duplicates", type=int, nargs="*", default=[20_000], help="rows of which all pairs are compared"
    )
    parser.add_argument("--avx2", action="store_true", help="no instructions beyond AVX2")
    parser.add_argument("--graph-rows", type=int, nargs="*", default=[], help="of --rows, those with a graph")
    return parser.parse_args()


def write(name: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """The result file."""
    result = {
        "what": f"the {COUNT} best of made-up [N, D] features; medians over {QUERIES} queries of each kind",
        "n": QUERIES,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instructions": history.instruction_sets(),
        "engine": {"simsimd": importlib.metadata.version("simsimd"), "numpy": np.__version__},
        **facts,
        "rows": rows,
    }
    history.write(
        history.RESULTS / f"{name}.json", result, keys=("rows", "dimensions", "way", "queries", "instructions")
    )


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
        return another.submit(function, *arguments).result()


def main() -> None:
    arguments = parsed([10_000, 100_000, 1_000_000])
    rows = []
    for dimensions in arguments.dimensions:
        for count in arguments.rows:
            with tempfile.TemporaryDirectory() as folder:
                sample = draw(count, Path(folder), dimensions, avx2=arguments.avx2)
                for build in (plain, eight_bits, components, *([graph] if count in arguments.graph_rows else [])):
                    rows += alone(measure, build, sample)
                    print(json.dumps(rows[-1]), flush=True)
        for count in arguments.duplicates:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(alone(duplicates, draw(count, Path(folder), dimensions, avx2=arguments.avx2)))
                print(json.dumps(rows[-1]), flush=True)
    write("search-avx2" if arguments.avx2 else "search", rows)


if __name__ == "__main__":
    main()
