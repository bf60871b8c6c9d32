"""The demo as a newcomer runs it, on a quiet machine: trains from scratch and keeps what it measured.

    python benchmarks/demo.py                        # about ten minutes on two cores
    python benchmarks/demo.py --seeds 0 1 2
    python benchmarks/demo.py --plain                # as on a processor that has AVX2 alone, and in float32

Writes results/demo.json: one run a seed and machine, runs of earlier times included. Runs lie in runs/demo-benchmark.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import history
from diptych.runtime import instruction_sets

PLAIN = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
RESULT = history.RESULTS / "demo.json"


def run(seed: int, *, plain: bool) -> dict[str, Any]:
    out = Path("runs/demo-benchmark") / f"seed {seed}{', plain' if plain else ''}"
    shutil.rmtree(out, ignore_errors=True)
    settings = [f"seed={seed}", *(["train.precision=float32"] if plain else [])]
    command = [sys.executable, "-m", "diptych", "demo", "--out", str(out)]
    start = time.perf_counter()
    subprocess.run(
        [*command, *(word for one in settings for word in ("--set", one))],
        check=True,
        env={**os.environ, **(PLAIN if plain else {})},
    )
    measured = json.loads((out / "results.json").read_text(encoding="utf-8"))
    machine = "AVX2, float32" if plain else "its own"
    return {"instructions": machine, "command_seconds": round(time.perf_counter() - start, 1), **measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--plain", action="store_true", help="AVX2 alone, float32")
    options = parser.parse_args()
    for seed in options.seeds:
        row = run(seed, plain=options.plain)
        there = json.loads(RESULT.read_text(encoding="utf-8")).get("runs", []) if RESULT.exists() else []
        others = [one for one in there if (one["seed"], one["instructions"]) != (seed, row["instructions"])]
        result = {"runs": [*others, row], "machine": instruction_sets()}
        history.write(RESULT, result, keys=("instructions", "seed"), measured={"runs": [row]})


if __name__ == "__main__":
    main()
