"""How long a first answer takes, and how much memory: `diptych classify`, and `diptych search` on an index.

    git worktree add /tmp/before COMMIT
    python benchmarks/cold_start.py --before /tmp/before [--light PYTHON] [--pictures 10000] [--rounds 15]

Each command is a new process: one picture and ten labels; one query among --pictures small drawings that were indexed
before. Beside it the same command of an earlier commit (from its src, in this Python), and of this commit in the Python
of an environment without torch. They take turns, so that what else the machine does falls on all; the median counts,
with the lowest and the highest. Memory is the highest resident size of the process. Writes results/cold_start.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import history
from diptych.runtime import hardware, instruction_sets

ROOT = Path(__file__).parent.parent
LABELS = ("a cat", "a dog", "a red apple", "a sailboat", "a mountain", "a street", "a child", "a car", "food", "a face")
PICTURE = ROOT / "docs/images/examples/red-apple.png"


def make_library(folder: Path, count: int) -> Path:
    """Pictures of flat colour with a darker square: small, and no two alike."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:02}" / f"{number:05}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist()))
        x, y, side = rng.integers(0, 40, 3).tolist()
        picture.paste(tuple(rng.integers(0, 256, 3).tolist()), (x, y, x + 8 + side // 2, y + 8 + side // 2))
        picture.save(path, quality=80)
    return folder


def run(python: Path, source: Path | None, words: list[str]) -> tuple[float, int, str]:
    """Seconds, MB at most, and what it printed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": str(source)} if source else {})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else a checkout is compiled each time, what pip installed is not
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(python), "-m", "diptych", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    assert process.stderr is not None
    assert status == 0, process.stderr.read()
    return seconds, usage.ru_maxrss // 1024, printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the commit to compare with")
    parser.add_argument("--light", type=Path, help="a Python without torch, in which this commit is installed")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", type=Path, default=Path("runs/cold-start"))
    parser.add_argument("--out", type=Path, default=history.RESULTS / "cold_start.json")
    options = parser.parse_args()
    work = options.work.resolve()
    library = make_library(work / "library", options.pictures)
    here = Path(sys.executable)
    sides: dict[str, tuple[Path, Path | None]] = {"before": (here, options.before.resolve() / "src")}
    sides["now"] = (here, ROOT / "src")
    if options.light:
        sides["now, no torch installed"] = (options.light.absolute(), None)
    commands: dict[str, list[str]] = {"classify": ["classify", str(PICTURE)]}
    commands["classify"] += [word for label in LABELS for word in ("--labels", label)]
    index = {side: work / f"index of {side}" for side in sides}
    for side, place in index.items():  # by each itself: an earlier commit may have had another format
        if not place.exists():
            run(*sides[side], ["index", "update", str(library), "--index", str(place)])
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    answers: dict[str, set[str]] = {}
    for number in range(options.rounds + 1):
        for name in ("classify", "search"):
            for side, (python, source) in sides.items():
                words = commands.get(name) or ["search", "a red square", str(library), "--index", str(index[side])]
                seconds, megabytes, printed = run(python, source, words)
                if number:  # the first one fills the system's cache
                    found.setdefault((name, side), []).append((seconds, megabytes))
                    answers.setdefault(name, set()).add(printed.strip().split("\n")[0])
        print(f"round {number} of {options.rounds}", flush=True)
    rows: list[dict[str, Any]] = []
    for (name, side), runs in found.items():
        seconds = [one for one, _ in runs]
        row = {"command": name, "side": side, "seconds": round(statistics.median(seconds), 3)}
        row |= {
            "lowest": round(min(seconds), 3),
            "highest": round(max(seconds), 3),
            "MB": max(size for _, size in runs),
        }
        first = next(one for one in rows if one["command"] == name) if any(r["command"] == name for r in rows) else row
        row |= {
            "of before": round(row["seconds"] / first["seconds"], 3),
            "MB of before": round(row["MB"] / first["MB"], 3),
        }
        rows.append(row)
        print(json.dumps(row))
    print({name: sorted(some) for name, some in answers.items()})
    result = {
        "hardware": hardware(),
        "instructions": instruction_sets(),
        "conditions": {"pictures": options.pictures, "labels": len(LABELS), "n": options.rounds},
        "rows": rows,
    }
    history.write(options.out, result, keys=("command", "side"))


if __name__ == "__main__":
    main()
