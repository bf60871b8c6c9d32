"""LanceDB's own indexes beside our scans, on the made-up vectors of benchmarks/search.py.

    OMP_NUM_THREADS=1 python benchmarks/lance.py --rows 100000 --graph-rows 100000

Needs `pip install 'diptych[lance]'`. Builds are LanceDB's defaults; refine_factor 200 scores as many rows again in full
as our own approximate scan does, 2,000. LanceDB works on threads of its own: compare the processor time, which counts
them all. Writes results/lance.json.
"""

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import HnswSq, IvfPq
from search import BLOCK, COUNT, QUERIES, SEED, D, Vectors, best_rows, measured

from diptych.files import write_json
from diptych.runtime import hardware
from diptych.search.ann import ApproximateScanner
from diptych.search.index import Scanner

LISTS = [{"nprobes": 20, "refine_factor": refine} for refine in (10, 50, 200)]
GRAPH = [{"ef": ef, "refine_factor": 10} for ef in (100, 400)]  # ef must be at least the rows that are refined


def asked(table: Any, query: np.ndarray, settings: dict[str, int]) -> np.ndarray:
    search = table.search(query).distance_type("cosine")
    for name, value in settings.items():
        search = getattr(search, name)(value)
    return search.select(["row", "_distance"]).limit(COUNT).to_arrow()["row"].to_numpy()


def measure(count: int, folder: Path, *, with_graph: bool) -> list[dict[str, Any]]:
    vectors = Vectors()
    features = np.concatenate([vectors.pictures(min(BLOCK, count)).numpy() for _ in range(0, count, BLOCK)])
    queries = {"pictures": vectors.pictures(QUERIES), "words": vectors.texts(QUERIES)}
    truth = {kind: best_rows(features, of) for kind, of in queries.items()}
    rows: list[dict[str, Any]] = []

    def add(way: str, search: Callable[[np.ndarray], np.ndarray], **facts: Any) -> None:
        for kind, of in queries.items():
            rows.append({"rows": count, "way": way, "queries": kind, **measured(search, of, truth[kind]), **facts})
            print(json.dumps(rows[-1]), flush=True)

    for way, kind in (("8 bits, then float32", Scanner), ("components, then float32", ApproximateScanner)):
        scanner = kind(features)
        add(way, lambda query, scanner=scanner: scanner.search(query, COUNT).rows)

    flat = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), D)
    table = lancedb.connect(folder).create_table(f"of_{count}", pa.table({"row": np.arange(count), "features": flat}))
    indexes = [("IVF_PQ", IvfPq(distance_type="cosine"), LISTS)]
    if with_graph:
        indexes.append(("IVF_HNSW_SQ", HnswSq(distance_type="cosine"), GRAPH))
    for name, config, settings in indexes:
        start, start_cpu = time.perf_counter(), time.process_time()
        table.create_index("features", config=config, replace=True)
        built = {
            "processor seconds to build": round(time.process_time() - start_cpu, 1),
            "seconds to build": round(time.perf_counter() - start, 1),
        }
        for setting in settings:
            way = f"LanceDB {name}, {', '.join(f'{key} {value}' for key, value in setting.items())}"
            add(way, lambda query, setting=setting: asked(table, query, setting), **built)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000])
    parser.add_argument("--graph-rows", type=int, nargs="*", default=[], help="of --rows, those with IVF_HNSW_SQ, too")
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
        "lancedb": lancedb.__version__,
        "rows": rows,
    }
    write_json(Path(__file__).parent / "results" / "lance.json", result)


if __name__ == "__main__":
    main()
