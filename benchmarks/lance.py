"""LanceDB's own indexes beside our scans, on the made-up vectors of benchmarks/search.py.

    OMP_NUM_THREADS=1 python benchmarks/lance.py --rows 100000 --graph-rows 100000

Needs `pip install 'diptych[lance]'`. Builds are LanceDB's defaults; refine_factor 200 scores as many rows again in full
as our own approximate scan does, 2,000. LanceDB works on threads of its own: compare the processor time, which counts
them all. Writes results/lance.json.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import HnswSq, IvfPq

from diptych.search.ann import ApproximateScanner
from diptych.search.index import Scanner
from search import COUNT, D, Sample, Search, draw, measured, parsed, scan, write

LISTS = [{"nprobes": 20, "refine_factor": refine} for refine in (10, 50, 200)]
GRAPH = [{"ef": ef, "refine_factor": 10} for ef in (100, 400)]  # ef must be at least the rows that are refined


def asked(table: Any, query: np.ndarray, settings: dict[str, int]) -> np.ndarray:
    search = table.search(query).distance_type("cosine")
    for name, value in settings.items():
        search = getattr(search, name)(value)
    return search.select(["row", "_distance"]).limit(COUNT).to_arrow()["row"].to_numpy()


def measure(sample: Sample, folder: Path, *, with_graph: bool) -> list[dict[str, Any]]:
    count, features = sample.size, np.array(sample.features)
    rows: list[dict[str, Any]] = []

    def add(way: str, search: Search, **facts: Any) -> None:
        for row in measured(way, search, sample):
            rows.append({**row, **facts})
            print(json.dumps(rows[-1]), flush=True)

    for way, kind in (("8 bits, then float32", Scanner), ("components, then float32", ApproximateScanner)):
        add(way, scan(kind(features), sample))

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
    arguments = parsed([100_000])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.rows:
            sample = draw(count, Path(folder))
            rows += measure(sample, Path(folder), with_graph=count in arguments.graph_rows)
    write("lance", rows, lancedb=lancedb.__version__)


if __name__ == "__main__":
    main()
