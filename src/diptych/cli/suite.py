"""`diptych evaluate suite`: a folder of data sets in, one result file each and a table out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, one_line, print_table
from diptych.cli.options import Precision
from diptych.errors import DataError

if TYPE_CHECKING:
    from diptych.eval.suite import SuiteResult

_RECALLS = [("image_to_text", "texts"), ("text_to_image", "pictures")]


def suite(
    *,
    data: Path,
    out: Path,
    tasks: list[str] | None = None,
    model: str | None = None,
    cache: Path | None = None,
    precision: Precision = "float32",
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Measure a model on every data set in a folder: class names alone, a linear probe, retrieval both ways.

    Each result is a file of its own as soon as it is there. The same command goes on where it was stopped, and keeps
    what it finds measured under the same conditions.

    Parameters
    ----------
    data
        A folder with a folder for each data set, under its usual name or any other, in the layouts that
        `diptych evaluate zero-shot` and `diptych evaluate retrieval` read.
    out
        A folder for the result files, SET.TASK.json.
    tasks
        Names of data sets; may be given several times. By default all.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    cache
        A folder for features, which other commands and runs use again. By default OUT/features.
    precision
        What the model computes in: float32, bfloat16, or auto, the faster of the two on this machine.
    seed
        Of the intervals and of the validation pictures of probes.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from rich.console import Console
    from rich.progress import Progress

    from diptych.eval.features import ModelFeatures
    from diptych.eval.suite import ALL, find_sets, run_suite
    from diptych.weights.registry import DEFAULT_MODEL, load

    sets = find_sets(data, tasks or [ALL])
    console = Console(stderr=True)
    results: list[SuiteResult] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        features = ModelFeatures(
            load(model),
            cache=cache or out / "features",
            precision=precision,
            batch_size=batch_size,
            on_note=complain,
            on_progress=lambda done, all_: bar.update(task, completed=done, total=all_),
        )
        for result in run_suite(
            features,
            sets,
            out,
            model=model or DEFAULT_MODEL,
            seed=seed,
            on_start=lambda title: bar.update(task, description=one_line(title), completed=0, total=None),
        ):
            results.append(result)
            if result.error:
                complain(f"{result.title}: {result.error}")
            else:
                done = "kept" if result.kept else "measured"
                print(f"{one_line(result.title)}: {_short(result)}, {done}", file=sys.stderr)
    _print_classified(results)
    _print_retrieved(results)
    failed = [result for result in results if result.error]
    if failed:
        raise DataError(f"{len(failed)} of {len(results)} measurements failed. What could be measured is in {out}.")


def _short(result: "SuiteResult") -> str:
    values = result.values
    assert values
    if result.task == "retrieval":
        return ", ".join(f"recall@1 of {name} {values[way]['recall']['1']:.2%}" for way, name in _RECALLS)
    return f"{values['metric']} {values['value']:.2%}"


def _print_classified(results: "Sequence[SuiteResult]") -> None:
    by_set: dict[str, dict[str, SuiteResult]] = {}
    for result in results:
        if result.values and result.task != "retrieval":
            by_set.setdefault(result.data, {})[result.task] = result
    rows = []
    for name, some in by_set.items():
        metric = next(one.values["metric"] for one in some.values() if one.values)
        count = next(one.values.get("images", one.values.get("n")) for one in some.values() if one.values)
        rows.append([name, metric, f"{count:,}", *_cells(some.get("zero-shot")), *_cells(some.get("linear-probe"))])
    if not rows:
        return
    values = [
        [one.values["value"] for some in by_set.values() if (one := some.get(task)) and one.values]
        for task in ("zero-shot", "linear-probe")
    ]
    if len(rows) > 1:
        means = [cell for some in values for cell in (f"{sum(some) / len(some):.2%}" if some else "-", "")]
        rows.append([f"mean of {len(rows)} sets", "", "", *means])
    header = ["data", "metric", "n", "zero-shot", "95% of top-1", "linear probe", "95% of top-1"]
    print_table(rows, header=header, numbers=range(2, len(header)))


def _cells(result: "SuiteResult | None") -> list[str]:
    if not result or not result.values:
        return ["-", "-"]
    interval = result.values["interval"]
    return [
        f"{result.values['value']:.2%}",
        f"{interval['low']:.2%} to {interval['high']:.2%}" if interval else "-",
    ]


def _print_retrieved(results: "Sequence[SuiteResult]") -> None:
    found = [result for result in results if result.values and result.task == "retrieval"]
    if not found:
        return
    if len(found) < len(results):
        print()
    header, rows = ["retrieval", "pictures", "captions"], []
    for _, name in _RECALLS:
        header += [f"{name}: recall@1", "@5", "@10", "median rank"]
    for result in found:
        values = result.values
        assert values
        row = [result.data, f"{values['images']:,}", f"{values['texts']:,}"]
        for way, _ in _RECALLS:
            recall = values[way]["recall"]
            row += [f"{recall[k]:.2%}" if k in recall else "-" for k in ("1", "5", "10")]
            row.append(f"{values[way]['median_rank']:g}")
        rows.append(row)
    print_table(rows, header=header, numbers=range(1, len(header)))
