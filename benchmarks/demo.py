"""The demo as a newcomer runs it: trains from scratch and keeps what it measured.

    python benchmarks/demo.py            # about ten minutes on two cores

Writes results/demo.json (a copy of the run's results.json) and leaves the run in runs/demo-benchmark.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import history


def main() -> None:
    out = Path("runs/demo-benchmark")
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "diptych", "demo", "--out", str(out)], check=True)
    history.write(history.RESULTS / "demo.json", json.loads((out / "results.json").read_text()))


if __name__ == "__main__":
    main()
