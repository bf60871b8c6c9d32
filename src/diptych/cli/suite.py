"""`diptych evaluate suite`: a folder of data sets in, one result file each and a table out."""

from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.console import complain, error_console, on_screen, one_line, print_table, shows_bars, tell
from diptych.cli.options import AS_USUAL, ModelOptions
from diptych.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diptych.eval.features import ModelFeatures
    from diptych.eval.result import Result
    from diptych.eval.suite import Asked, Measured


def suite(
    *,
    data: Path,
    out: Path,
    tasks: list[str] | None = None,
    follow: Path | None = None,
    options: ModelOptions = AS_USUAL,
) -> None:
    """Measure a model on every data set in a folder: words alone, a linear probe, retrieval both ways.

    Each result is a file of its own as soon as it is there. The same command goes on where it was stopped, and keeps
    what it finds measured under the same conditions.

    Parameters
    ----------
    data
        A folder with a folder for each data set, under its usual name or any other, in the layouts that
        `diptych evaluate zero-shot` and `diptych evaluate retrieval` read.
    out
        A folder for the result files, SET.MEASUREMENT.json.
    tasks
        Names of tasks or data sets; may be given several times. By default all.
    follow
        Folder of a run: each of its checkpoints is measured as it comes, into a folder of its own below OUT, until the
        run has ended.
    """
    from rich.progress import Progress

    from diptych.eval.find_sets import ALL, find_sets
    from diptych.eval.result_tables import retrieval_table, sets_table
    from diptych.eval.suite import run_suite

    sets = find_sets(data, tasks or [ALL])
    if follow:
        from diptych.cli.following import follow_run

        def measure(features: "ModelFeatures", folder: Path, asked: "Asked") -> "Iterator[Result]":
            for one in run_suite(features, sets, folder, asked):
                if one.result:
                    yield one.result
                else:
                    complain(f"{one.title}: {one.error}")

        follow_run(follow, out, options, options.asked(), measure)
        return
    measured: list[Measured] = []
    with on_screen(Progress(console=error_console(), transient=True, disable=not shows_bars())) as bar:
        line = bar.add_task("", total=None)
        features = options.features(
            cache=out / "features", on_progress=lambda done, all_: bar.update(line, completed=done, total=all_)
        )

        def start(title: str) -> None:
            bar.update(line, description=one_line(title), completed=0, total=None)

        for one in run_suite(features, sets, out, options.asked(), on_start=start):
            measured.append(one)
            _say(one)
    results = [one.result for one in measured if one.result]
    tables = [table for table in (sets_table(results), retrieval_table(results)) if table[1]]
    for number, (header, rows) in enumerate(tables):
        print("\n" if number else "", end="")
        print_table(rows, header=header, numbers=range(2 if header[0] == "data" else 1, len(header)))
    failed = [one for one in measured if one.error]
    if failed:
        raise DataError(f"{len(failed)} of {len(measured)} measurements failed. What could be measured is in {out}.")


def _say(one: "Measured") -> None:
    if not one.result:
        complain(f"{one.title}: {one.error}")
        return
    number = f"{one.result.metric} {one.result.value:.2%}"
    done = "kept" if one.kept else "measured"
    prompts = one.result.prompts
    tell(f"{one.title}: {number}, {done}; prompts: {prompts.sentence}")
    if prompts.naming:
        complain(f"{one.data}: class names: {prompts.naming}.")
    if one.result.shortened:
        complain(f"{one.title}: texts that were too long for the model and were cut: {one.result.shortened:,}.")
