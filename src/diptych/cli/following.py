"""Checkpoints of a run measured as they come: result files, a curve, and a table at the end."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.console import complain, print_table, tell
from diptych.errors import DataError, WeightsError

if TYPE_CHECKING:
    from diptych.cli.options import ModelOptions
    from diptych.eval.features import ModelFeatures
    from diptych.eval.result import Result
    from diptych.eval.suite import Asked

CURVE = "curve.jsonl"
_EVERY = 5.0  # seconds between two looks

Measure = Callable[["ModelFeatures", Path, "Asked"], Iterable["Result"]]


def follow_run(run: Path, out: Path | None, options: "ModelOptions", asked: "Asked", measure: Measure) -> None:
    """Measure each checkpoint of a run, into a folder of its own, until the run has ended.

    Args:
        run: folder of `diptych train`.
        out: gets step-NNNNNNNN/ with result files, and the curve of all.
        options: of the command.
        asked: how to measure, but for what the model is called.
        measure: gets a model's features, the folder of its results, and how to measure.
    """
    from diptych.train.follow import follow, load_measured

    if options.model is not None:
        raise DataError("--follow measures the checkpoints of a run. Leave --model out.")
    if out is None or out.suffix == ".json":
        raise DataError("--follow needs --out, a folder for the results of all checkpoints.")
    measured = 0
    for checkpoint in follow(run, every=_EVERY):
        try:
            bundle = load_measured(checkpoint)
        except WeightsError as error:
            if checkpoint.is_dir():
                raise
            complain(
                f"{checkpoint.name} was removed before it could be measured ({error}) Raise train.keep_checkpoints."
            )
            continue
        named = replace(asked, model=f"{run.resolve().name}/{checkpoint.name}")
        for result in measure(options.features(bundle=bundle), out / checkpoint.name, named):
            number = f"{result.metric} {result.value:.2%}"
            tell(f"{checkpoint.name}  {result.data.title}, {result.measurement}: {number}")
            measured += 1
        _write_curve(out)
    if not measured and not (out / CURVE).is_file():
        raise DataError(f"{run} has ended without a checkpoint. See train.checkpoint_every.")
    _print_curve(out)


def _write_curve(out: Path) -> None:
    """One JSON object a checkpoint, from all result files that are there, also of a command before."""
    from diptych.eval.result_file import result_at
    from diptych.files import write_text

    lines = []
    for folder in sorted(out.glob("step-*")):
        found = [result for path in sorted(folder.glob("*.json")) if (result := result_at(path))]
        numbers = {f"{one.data.name}/{one.measurement}/{one.metric}": one.value for one in found}
        lines.append(json.dumps({"step": int(folder.name.removeprefix("step-"))} | numbers) + "\n")
    write_text(out / CURVE, "".join(lines))


def _print_curve(out: Path) -> None:
    from diptych.cli.curves import blocks

    lines = [json.loads(line) for line in (out / CURVE).read_text(encoding="utf-8").splitlines()]
    draws = "utf" in (sys.stdout.encoding or "").lower()
    rows = []
    for name in sorted({name for line in lines for name in line if name != "step"}):
        points = [(line["step"], line[name]) for line in lines if name in line]
        best_step, best = max(points, key=lambda point: point[1])
        last_step, last = points[-1]
        curve = blocks(points, 24) if draws else ""
        rows.append((name, f"{last:.2%}", f"{last_step:,}", f"{best:.2%}", f"{best_step:,}", curve))
    print_table(rows, header=("measured", "last", "at step", "best", "at step", ""), numbers=(1, 2, 3, 4))
