"""What benchmarks have measured so far: results/NAME.json is the newest run, results/NAME.jsonl has a line a run.

A line holds the commit, the date, the machine and its instruction sets, and each number under one name, e.g.
`rows/clip_loss, 256/milliseconds, clock/tiles`. `make benchmarks-compare` tells what moved.

Lines without instruction sets were made afterwards, from result files that git has: the sets had not been noted, and
the commit is the one that brought the result.
"""

import datetime
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_NO_FIGURES = ("seed", "n", "hardware", "versions")


def write(
    out: Path, result: dict[str, Any], *, keys: Sequence[str] = (), measured: dict[str, Any] | None = None
) -> None:
    """Write a result file, and add what this run measured to the history beside it.

    Args:
        out: results/NAME.json.
        result: its content.
        keys: columns that tell rows of a list apart; without them their positions do.
        measured: the part of `result` that this run measured, where rows of earlier runs stay in it; else all.
    """
    from diptych.files import write_json  # not at the top: `compare` reads a history without the package
    from diptych.runtime import hardware, instruction_sets

    write_json(out, result)
    line = {
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instructions": instruction_sets(),
        "figures": dict(figures(result if measured is None else measured, keys)),
    }
    with out.with_suffix(".jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def figures(value: Any, keys: Sequence[str] = (), name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a result, each under the path that leads to it."""
    if isinstance(value, dict):
        parts = [(part, item) for part, item in value.items() if part not in _NO_FIGURES]
        parts = [(part, item) for part, item in parts if part not in keys or isinstance(item, list | dict)]
    elif isinstance(value, list):
        parts = [(_label(item, keys) or str(position), item) for position, item in enumerate(value)]
        assert len(dict(parts)) == len(parts), f"{keys} must tell the rows of {name} apart"
    else:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
        return
    for part, item in parts:
        yield from figures(item, keys, f"{name}/{part}" if name else part)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a history, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _label(row: Any, keys: Sequence[str]) -> str:
    return ", ".join(str(row[key]) for key in keys if key in row) if isinstance(row, dict) else ""


def _commit() -> str:
    """The commit that was measured, with a + where the code in the working tree was another."""
    git, limit = ["git", "-C", RESULTS.parent.parent], {"check": True, "timeout": 60}
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, **limit)
    changes = [*git, "status", "--porcelain", "--", "src", "benchmarks/*.py"]
    changed = subprocess.run(changes, capture_output=True, text=True, **limit)
    return head.stdout.strip() + "+" * bool(changed.stdout)
