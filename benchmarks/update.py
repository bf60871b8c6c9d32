"""Bringing an index in step after one new file among 100,000, and the first search after it.

    python benchmarks/update.py

The files are empty but for the new one, and their features are drawn at random: of known files an update looks at
names, sizes and times alone. Writes results/update.json.
"""

import datetime
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import diptych
import history
from diptych.data.walk import walk_folder
from diptych.runtime import hardware
from diptych.search.library import Library
from diptych.search.writing import Entry, Writer

FILES, FOLDERS, SEED, ROUNDS = 100_000, 200, 0, 5


def main() -> None:
    draw = np.random.default_rng(SEED)
    bundle = diptych.load("diptych-pictogram-small")
    dimensions = bundle.model.config.embed_dim
    with tempfile.TemporaryDirectory() as name:
        folder, index = Path(name) / "pictures", Path(name) / "index"
        for i in range(FOLDERS):
            (folder / f"{i:03}").mkdir(parents=True)
            for j in range(FILES // FOLDERS):
                (folder / f"{i:03}" / f"{j:05}.jpg").touch()
        library = Library.open(folder, bundle, index=index)
        features = draw.standard_normal((FILES, dimensions), dtype=np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        with Writer(index / bundle.fingerprint()[:16], dimensions) as writer:
            writer.write(
                [
                    Entry(
                        path=found.path,
                        size=found.size,
                        modified=found.modified,
                        changed=found.changed,
                        digest=i.to_bytes(32),
                        features=features[i : i + 1],
                    )
                    for i, found in enumerate(walk_folder(folder).files.values())
                ]
            )
        updates, searches, cpu = [], [], []
        for round_ in range(ROUNDS):
            pixels = draw.integers(0, 256, (480, 640, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"new{round_}.jpg")
            library = Library.open(folder, bundle, index=index)  # as a new command would
            start, start_cpu = time.perf_counter(), time.process_time()
            update = library.update()
            updates.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
            assert (update.added, update.changed, update.deleted) == (1, 0, 0)
            start = time.perf_counter()
            assert library.like(f"new{round_}.jpg", count=10)
            searches.append(time.perf_counter() - start)
            library.close()
    result = {
        "what": f"one new file among {FILES:,}; medians of {ROUNDS}; opening the model is not counted",
        "n": ROUNDS,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "dimensions": dimensions,
        "seconds": round(statistics.median(updates), 3),
        "seconds, fastest": round(min(updates), 3),
        "seconds of processor": round(statistics.median(cpu), 3),
        "seconds of the first search": round(statistics.median(searches), 3),
    }
    history.write(history.RESULTS / "update.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
