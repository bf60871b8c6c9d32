"""What moved: the newest run of each benchmark against the newest one before it on the same hardware.

    python benchmarks/compare.py                 # make benchmarks-compare
    python benchmarks/compare.py loss search --least 1.02

Reads results/*.jsonl and measures nothing. Ratios are new / old, the furthest from 1 first. Two runs on a machine that
others use differ by themselves: run a benchmark again before a ratio is believed.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import Any

import history

LEAST = 1.1  # a ratio nearer to 1, either way, is not shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="benchmarks, as their result files are called; all when none is given")
    parser.add_argument("--least", type=float, default=LEAST, help=f"the smallest factor that is shown; {LEAST}")
    arguments = parser.parse_args()
    for name in arguments.names or sorted(path.stem for path in history.RESULTS.glob("*.jsonl")):
        print("\n".join(report(name, history.read(history.RESULTS / f"{name}.jsonl"), arguments.least)))


def report(name: str, lines: Sequence[dict[str, Any]], least: float) -> Iterator[str]:
    """One benchmark's lines of text."""
    now = lines[-1]
    before = next((line for line in reversed(lines[:-1]) if is_comparable(line, now)), None)
    if before is None:
        yield f"{name}: {now['commit']} of {now['date']} is the first run of its figures on its hardware"
        return
    shared = [figure for figure in now["figures"] if figure in before["figures"]]
    moved = [one for one in (movement(figure, before, now) for figure in shared) if distance(one[0]) >= math.log(least)]
    unknown = "" if before["instructions"] else ", whose instruction sets were not noted"
    yield (
        f"{name}: {before['commit']} of {before['date']}{unknown} -> {now['commit']} of {now['date']}; "
        f"{len(moved)} of {len(shared)} figures moved"
    )
    for ratio, figure, old, new in sorted(moved, key=lambda one: -distance(one[0])):
        yield f"  {ratio:7.3f}  {old:>10.4g} -> {new:<10.4g}  {figure}"


def is_comparable(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Same processor, cores and GPU; same threads and instruction sets, if they were noted; and a figure in common."""
    both = before["hardware"], now["hardware"]
    same = all(both[0].get(fact) == both[1].get(fact) for fact in ("cpu", "cores", "gpu"))
    threads = len({one["threads"] for one in both if "threads" in one}) < 2  # torch's: a run without it notes none
    instructions = not before["instructions"] or before["instructions"] == now["instructions"]
    return same and threads and instructions and not before["figures"].keys().isdisjoint(now["figures"])


def movement(figure: str, before: dict[str, Any], now: dict[str, Any]) -> tuple[float, str, float, float]:
    """New / old, and what it is a ratio of."""
    old, new = before["figures"][figure], now["figures"][figure]
    return (1.0 if old == new else new / old if old else math.inf), figure, old, new


def distance(ratio: float) -> float:
    """How far a ratio is from 1, either way."""
    return abs(math.log(ratio)) if ratio > 0 else math.inf


if __name__ == "__main__":
    main()
