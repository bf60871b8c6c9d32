"""Do runs of several processes come to the weights of one? The tables of docs/how-to/distributed.md.

    python benchmarks/ranks.py [--at-once 12] [--groups 2] [--part 1/1] [--again]

Towers, objectives, ddp and fsdp, each with each, and options with objectives, as tests/rank_table.py lists them. A run
has 20 steps of tiny models, in float64 but where the option is a precision, and is started anew from its checkpoint
after 10. Without an option two processes go on as four from whole checkpoints, and four as two from those in shares;
with an option two go on as two. The loss of every step and all weights in the end, heads included, are held to those of
one process without a restart. gloo. Writes results/ranks.json, after each few runs what is known so far.
"""

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import history
from diptych.files import write_json
from diptych.runtime import hardware

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rank_table import BOUNDS, SEED, STEPS, Combination, Outcome, Table, all_combinations, tables

RESULT = Path(__file__).parent / "results" / "ranks.json"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--at-once", type=int, default=12, help="runs for which processes are started once")
    parser.add_argument("--groups", type=int, default=2, help="of processes, side by side")
    parser.add_argument("--part", default="1/1", help="of the runs, e.g. 2/3; those of others stay in the result")
    parser.add_argument("--again", action="store_true", help="only runs that differed, or that the result lacks")
    options = parser.parse_args()
    part, parts = (int(number) for number in options.part.split("/"))
    wanted = list(all_combinations())
    outcomes = known() if parts > 1 or options.again else {}
    right = [one for one, outcome in outcomes.items() if options.again and outcome.word(one) in ("same", "refused")]
    runs = [one for one in wanted if one not in right]
    chunks = [runs[first : first + options.at_once] for first in range(0, len(runs), options.at_once)]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.groups) as pool:
        table = Table(Path(folder))
        under_way = {pool.submit(table.outcomes, chunk, seconds=3000.0): chunk for chunk in chunks[part - 1 :: parts]}
        for done in as_completed(under_way):
            if error := done.exception():  # a process died; the others are looked at all the same
                print(f"{under_way[done][0]} ... {under_way[done][-1]}: {error}", flush=True)
                continue
            outcomes |= done.result()
            for one, outcome in done.result().items():
                if outcome.word(one) not in ("same", "refused"):
                    print(f"{one}: {outcome}", flush=True)
            print(f"{len(outcomes)} of {len(wanted)} after {time.monotonic() - start:.0f} s", flush=True)
            write_json(RESULT, summary(outcomes, wanted))
    result = summary(outcomes, wanted)
    print(tables(outcomes))
    history.write(RESULT, result, measured={name: value for name, value in result.items() if name != "rows"})


def known() -> dict[Combination, Outcome]:
    """What the result says so far."""
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else []
    return {Combination(**row["combination"]): Outcome(**row["outcome"]) for row in rows}


def summary(outcomes: Mapping[Combination, Outcome], wanted: Sequence[Combination]) -> dict[str, Any]:
    doubles = [outcome for one, outcome in outcomes.items() if one.option not in BOUNDS and not outcome.refused]
    return {
        "what": "the largest difference of a weight and of a loss between runs of two and four processes and of one",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "seed": SEED,
        "steps": STEPS,
        "runs": len(outcomes),
        "not_tried": [str(one) for one in wanted if one not in outcomes],
        "refused": sum(bool(outcome.refused) for outcome in outcomes.values()),
        "furthest_in_float64": max((max(outcome[1:]) for outcome in doubles), default=0.0),
        "rows": [
            {"combination": one._asdict(), "is": outcome.word(one), "outcome": outcome._asdict()}
            for one in wanted
            if (outcome := outcomes.get(one))
        ],
    }


if __name__ == "__main__":
    main()
