"""Engines at the work they are chosen for: a folder of 1,000 photographs indexed, and a server's answers.

    python benchmarks/engines_at_work.py PHOTOS [--int8 FOLDER]

PHOTOS is a labelled set of at least 1,000 pictures. Each engine encodes the same 1,000 files into a new index
(`diptych index update`), then answers `benchmarks/serve.py`'s clients for --seconds; they take turns, --rounds times.
Of indexing the least time counts, by the clock and of the processor; of serving the most answers a second, as the
clients are on the same cores. torch computes as it does for libraries, in bfloat16 where the processor is quick at it;
"torch, float32" is the same held to float32. --int8 is what `diptych export --dtype int8` wrote.
Writes results/engines_at_work.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import history
import serve
from diptych.runtime import hardware, instruction_sets
from diptych.sets.open import read_labelled

_PHOTOS = 1_000


def write_photos(source: Path, folder: Path) -> None:
    data = read_labelled(source)
    assert len(data) >= _PHOTOS, f"{source} must have {_PHOTOS:,} pictures"
    folder.mkdir()
    for number in range(_PHOTOS):
        data.open(number).save(folder / f"{number:04}.jpg", quality=90)


def indexed(photos: Path, words: list[str]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as index:
        command = [sys.executable, "-m", "diptych", "index", "update", str(photos), "--index", index, *words]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, command
        return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--int8", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--out", type=Path, default=history.RESULTS / "engines_at_work.json")
    options = parser.parse_args()
    engines = {
        "torch": ["--engine", "torch"],
        "torch, float32": ["--engine", "torch", "--dtype", "float32"],
        "onnx, float32": ["--engine", "onnx"],
    }
    if options.int8:
        engines["onnx, int8"] = ["--engine", "onnx", "--model", str(options.int8)]
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        write_photos(options.photos, photos)
        for _ in range(options.rounds):
            for engine, words in engines.items():
                clock, processor = indexed(photos, words)
                answers = serve.measure(words, options.seconds)["answers/s"]
                row = {"index seconds": clock, "index processor seconds": processor, "answers a second": answers}
                found.setdefault(engine, []).append(row)
                print(engine, row, flush=True)
    rows: list[dict[str, Any]] = [
        {
            "engine": engine,
            "index seconds": round(min(row["index seconds"] for row in some), 1),
            "index processor seconds": round(min(row["index processor seconds"] for row in some), 1),
            "answers a second": round(max(row["answers a second"] for row in some), 1),
        }
        for engine, some in found.items()
    ]
    print(json.dumps(rows, indent=1))
    conditions = {"photographs": _PHOTOS, "seconds": options.seconds, "n": options.rounds}
    result = {"hardware": hardware(), "instructions": instruction_sets(), "conditions": conditions, "rows": rows}
    history.write(options.out, result, keys=("engine",))


if __name__ == "__main__":
    main()
