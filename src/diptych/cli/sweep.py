"""`diptych sweep`: runs of one recipe with other options, and which came out best."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, on_screen, one_line, print_table
from diptych.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diptych.train.sweep import Outcome, Sweep, Trial


def sweep(
    recipe: Path,
    *,
    over: Annotated[list[str], Parameter(negative=())],
    random: PositiveInt | None = None,
    study: PositiveInt | None = None,
    seed: NonNegativeInt = 0,
    metric: str | None = None,
    jobs: PositiveInt = 1,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    out: Path | None = None,
) -> None:
    """Train one recipe with other options, a folder a run, and tell which came out best.

    Without --random and --study it is a grid: each value with each. The same command goes on where it was stopped or
    killed, and keeps the runs that are finished. `diptych watch OUT` shows it meanwhile.

    Parameters
    ----------
    recipe
        A TOML file, as of `diptych train`.
    over
        An option and what is tried for it: train.learning_rate=1e-3,2e-3, or a range for --random and --study,
        train.learning_rate=1e-4..1e-2. May be given several times.
    random
        So many runs, each with options drawn by --seed; of a range evenly in the logarithm. More of them later begin
        with the same.
    study
        So many runs, whose options optuna chooses by those before.
    seed
        Of the draws. That of the runs is the recipe's.
    metric
        By which runs are compared, as it is logged, e.g. twemoji/top1, higher is better; or loss. By default top-1 of
        the first set in `evaluate` of the recipe, else loss.
    jobs
        Runs at once; they share the cores.
    set_
        One option of the recipe, the same for all runs. May be given several times.
    out
        Folder of the sweep, runs/NAME-sweep by default: a folder a run, sweep.json, results.json, report.html.
    """
    from diptych.files import folder_lock
    from diptych.runtime import stop_request
    from diptych.train.recipe import read_recipe
    from diptych.train.sweep import (
        Sweep,
        check_trials,
        default_metric,
        draws,
        grid,
        lower_is_better,
        read_axis,
        run_trials,
        with_earlier,
    )

    if random and study:
        raise ConfigError("--random and --study are two ways to choose runs. Give one of them.")
    overrides = list(set_ or ())
    plan = read_recipe(recipe, overrides)
    axes = [read_axis(text) for text in over]
    if len({axis.option for axis in axes}) < len(axes):
        raise ConfigError("--over must name each option once. Give its values with commas between.")
    out, metric = out or Path("runs") / f"{plan.name}-sweep", metric or default_metric(plan)
    chosen, trials = None, [] if study else draws(axes, random, seed) if random else grid(axes)
    check_trials(with_earlier(trials, out), out, recipe, overrides)  # before the folder is there
    with folder_lock(out), stop_request() as stop_requested:
        if study:
            from diptych.train.study import Study

            chosen = Study(axes, out, count=study, seed=seed, minimises=lower_is_better(metric))
            trials = chosen.trials
            check_trials(with_earlier(trials, out), out, recipe, overrides)
        pending = iter(trials)

        def next_trial() -> "Trial | None":
            if not chosen:
                return next(pending, None)
            trial = chosen.ask()
            if trial:
                check_trials([trial], out, recipe, overrides)
                Sweep(name=plan.name, metric=metric, trials=with_earlier(chosen.trials, out)).write(out)
            return trial

        def ended(trial: "Trial", fault: str) -> None:
            value = _value(trial, out, metric)
            if chosen:
                chosen.tell(trial, value)
            complain(f"{trial.name}: {fault or f'{metric} {_number(metric, value)}'}")

        Sweep(name=plan.name, metric=metric, trials=with_earlier(trials, out)).write(out)
        has_ended = run_trials(
            next_trial,
            out,
            lambda trial: _command(trial, recipe, overrides, out),
            jobs=jobs,
            stop_requested=stop_requested,
            on_start=lambda trial: complain(f"{trial.name} starts"),
            on_end=ended,
        )
    _conclude(out, has_ended)


def _command(trial: "Trial", recipe: Path, overrides: Sequence[str], out: Path) -> list[str]:
    options = [word for option in (*overrides, *trial.overrides) for word in ("--set", option)]
    return [sys.executable, "-m", "diptych", "train", str(recipe), *options, "--out", str(out / trial.name)]


def _value(trial: "Trial", out: Path, metric: str) -> float | None:
    from diptych.train.sweep import Sweep, outcomes

    [one] = outcomes(Sweep(name="", metric=metric, trials=[trial]), out, time.time())
    return one.value


def _conclude(out: Path, has_ended: bool) -> None:
    from diptych.files import write_json
    from diptych.runtime import hardware
    from diptych.train.sweep import outcomes, plain_outcome, read_sweep

    sweep = read_sweep(out)
    found = outcomes(sweep, out, time.time())
    print_outcomes(sweep, found)
    if not has_ended:
        print("stopped; the same command goes on from there")
        raise SystemExit(130)
    facts = {"recipe": sweep.name, "metric": sweep.metric, "hardware": hardware()}
    write_json(out / "results.json", facts | {"runs": [plain_outcome(one) for one in found]})
    report_sweep(out, out / "report.html")
    failed = [one for one in found if one.state != "finished"]
    if all(one.value is None for one in found):
        raise DataError(f"no run has logged {sweep.metric}. Name one that they log with --metric.")
    if failed:
        raise DataError(f"{len(failed)} of {len(found)} runs failed: see {out / failed[0].trial.name / 'output.txt'}.")


def report_sweep(folder: Path, path: Path) -> None:
    """Write a page of a sweep."""
    from diptych.pages.html import write_report
    from diptych.pages.sweep import sweep_page
    from diptych.runtime import hardware
    from diptych.train.sweep import outcomes, read_sweep

    sweep = read_sweep(folder)
    conditions = {"recipe": sweep.name} | {name: str(value) for name, value in hardware().items()}
    page = sweep_page(sweep, outcomes(sweep, folder, time.time()), conditions)
    if left_out := write_report(page, path):
        complain(left_out)


def print_outcomes(sweep: "Sweep", found: Sequence["Outcome"]) -> None:
    """A line a run, the best first."""
    header, rows = _table(sweep, found)
    print_table(rows, header=header, numbers=(len(header) - 4, len(header) - 3))


def _table(sweep: "Sweep", found: Sequence["Outcome"]) -> tuple[list[str], list[list[str]]]:
    from diptych.cli.curves import blocks

    draws = "utf" in (sys.stdout.encoding or "").lower()
    options = list(dict.fromkeys(option for one in found for option in one.trial.options))
    header = [*options, sweep.metric, "step", "state", "curve" if draws else ""]
    rows = [
        [
            *(one.trial.options.get(option, "-") for option in options),
            _number(sweep.metric, one.value),
            f"{one.step:,}",
            f"{one.state}: {one.error}" if one.error else one.state,
            blocks(one.curve, 24) if draws and one.curve else "",
        ]
        for one in found
    ]
    return header, rows


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if metric.endswith(("top1", "top5")) else f"{value:.4g}"


def watch_sweep(folder: Path, *, once: bool, every: float) -> None:
    """Show a sweep until it ends: a table on a terminal, else one at the start and a line for each change."""
    from diptych.files import is_locked
    from diptych.train.sweep import outcomes, read_sweep

    def look() -> "tuple[Sweep, list[Outcome]]":
        sweep = read_sweep(folder)
        return sweep, outcomes(sweep, folder, time.time())

    if sys.stdout.isatty() and not once:
        from rich.live import Live

        with on_screen(Live(_screen(*look()), auto_refresh=False, vertical_overflow="crop")) as live:
            while is_locked(folder):
                time.sleep(every)
                live.update(_screen(*look()), refresh=True)
        return
    sweep, found = look()
    print_outcomes(sweep, found)
    states = {one.trial.name: one.state for one in found}
    while not once and is_locked(folder):
        time.sleep(every)
        sweep, found = look()
        for one in found:
            if states.get(one.trial.name) != one.state:
                states[one.trial.name] = one.state
                print(one_line(f"{one.trial.name}  {one.state}  {sweep.metric} {_number(sweep.metric, one.value)}"))
        sys.stdout.flush()


def _screen(sweep: "Sweep", found: Sequence["Outcome"]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    header, rows = _table(sweep, found)
    table = Table(box=None, title=one_line(sweep.name), title_justify="left", header_style="bold")
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table
