"""`diptych watch`: runs in the terminal while they go on, or a page of one."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts.types import PositiveFloat

from diptych.cli.console import complain, on_screen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diptych.train.watch import WatchedRun

_LEAST = 50  # columns of a run; where they do not fit side by side, runs stand below each other
_COLOURS = {
    "running": "green",
    "starting": "cyan",
    "finished": "bold green",
    "stopped": "yellow",
    "stalled": "bold red",
}


def watch(
    *runs: Path,
    once: bool = False,
    every: PositiveFloat = 2.0,
    report: Path | None = None,
) -> None:
    """Show runs while they go on: curves, where their time goes, and what holds them up. Ctrl-C leaves.

    A run is read from its folder alone, so any process may watch it, on any machine that sees the folder. It says
    whether the run is starting, running, stalled (nothing written for long), stopped or finished. Ends when all runs
    have finished; where there is no terminal, when none is running.

    Parameters
    ----------
    runs
        Folders of `diptych train`, e.g. runs/mine. Several stand side by side. Or one of `diptych sweep`, whose runs
        become a table.
    once
        Show how things stand, and leave.
    every
        Seconds between two looks.
    report
        Write a page of one run or sweep, which needs no network, and leave: numbers, curves, settings, bad samples,
        time.
    """
    from diptych.errors import ConfigError
    from diptych.train.sweep import RECORD
    from diptych.train.watch import WatchedRun

    if not runs:
        raise ConfigError("diptych watch must be told the folder of a run, e.g. runs/mine.")
    if any((folder / RECORD).is_file() for folder in runs):
        _watch_sweep(runs, once, every, report)
        return
    watched = [WatchedRun(folder) for folder in runs]
    for run in watched:
        run.update(time.time())
    if report:
        if len(watched) > 1:
            raise ConfigError(f"A report is of one run. Got {len(watched)}.")
        from diptych.pages.html import write_report
        from diptych.pages.run import chance_levels, run_page

        [run] = watched
        if left_out := write_report(run_page(run, chance_levels(run.recipe) if run.recipe else {}), report):
            complain(left_out)
        print(f"{run.name}, {_state(run)} -> {report}")
    elif not sys.stdout.isatty():
        _print_lines(watched, once, every)
    else:
        _show(watched, once, every)


def _watch_sweep(folders: Sequence[Path], once: bool, every: float, report: Path | None) -> None:
    from diptych.cli.sweep import report_sweep, watch_sweep
    from diptych.errors import ConfigError

    if len(folders) > 1:
        raise ConfigError(f"A sweep is watched by itself. Got {len(folders)} folders.")
    if report:
        report_sweep(folders[0], report)
        print(f"{folders[0].name} -> {report}")
    else:
        watch_sweep(folders[0], once=once, every=every)


def _show(runs: Sequence["WatchedRun"], once: bool, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once:
        console.print(_screen(runs, console.width))
        return
    view = Live(_screen(runs, console.width), console=console, auto_refresh=False, vertical_overflow="crop")
    with on_screen(view) as live:
        while any(run.state != "finished" for run in runs):
            time.sleep(every)
            for run in runs:
                run.update(time.time())
            live.update(_screen(runs, console.width), refresh=True)


def _screen(runs: Sequence["WatchedRun"], width: int) -> "RenderableType":
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    beside = width // len(runs) >= _LEAST
    share = width // len(runs) if beside else width
    panels = [
        Panel(_inside(run, share - 4), title=f"[bold]{_escaped(run.name)}", title_align="left", width=share)
        for run in runs
    ]
    if not beside:
        return Group(*panels)
    grid = Table.grid()
    for _ in panels:
        grid.add_column()
    grid.add_row(*panels)
    return grid


def _inside(run: "WatchedRun", width: int) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from diptych.cli.curves import blocks, plot
    from diptych.train.watch import curves

    parts = [Text(_state(run), style=_COLOURS[run.state])]
    found = curves(run.lines)
    if loss := found.pop("loss", None):
        parts.append(
            Text(f"\nloss {loss[-1][1]:.3f} nats, of {min(y for _, y in loss):.3f} to {max(y for _, y in loss):.3f}")
        )
        parts.append(Text("\n".join(plot(loss, width, 6)), style="cyan"))
    names = max(map(len, found), default=0)
    for name, points in found.items():
        line = Text(f"{name:<{names}}  {_number(name, points[-1][1]):>9}  ")
        room = width - len(line)
        parts.append(line.append(blocks(points, room) if room > 4 else "", style="cyan"))
    parts += [Text(line, style="dim") for line in _time_and_faults(run)]
    return Group(*parts)


def _print_lines(runs: Sequence["WatchedRun"], once: bool, every: float) -> None:
    """Without a terminal: how things stand, then a line for each line of the log, then how things ended."""
    for run in runs:
        _print_state(run)
    if once or not any(run.is_held for run in runs):
        return
    said = [len(run.lines) for run in runs]
    states = [run.state for run in runs]
    while any(run.is_held for run in runs):
        time.sleep(every)
        for number, run in enumerate(runs):
            kept = run.update(time.time())
            if kept < said[number]:
                _say(run, f"went on from step {run.lines[kept - 1]['step'] if kept else 0:,}")
                said[number] = kept
            for line in run.lines[said[number] :]:
                _say(run, _line(line))
            said[number] = len(run.lines)
            if run.state != states[number]:
                _say(run, _state(run))
                states[number] = run.state
            sys.stdout.flush()


def _print_state(run: "WatchedRun") -> None:
    from diptych.cli.console import one_line, print_table
    from diptych.cli.curves import blocks
    from diptych.train.watch import curves

    _say(run, _state(run))
    draws = "utf" in (sys.stdout.encoding or "").lower()
    rows = [(name, _number(name, p[-1][1]), blocks(p, 40) if draws else "") for name, p in curves(run.lines).items()]
    if rows:
        print_table(rows, numbers=(1,))
    for line in _time_and_faults(run):
        print(one_line(line))


def _say(run: "WatchedRun", what: str) -> None:
    from diptych.cli.console import one_line

    print(one_line(f"{run.name}  {what}"))


def _state(run: "WatchedRun") -> str:
    """E.g. running, step 1,200/5,000 (24%), 12.3 min left."""
    steps = run.recipe.train.steps if run.recipe else 0
    if not run.lines:
        return run.state
    line = run.lines[-1]
    step = line["step"]
    state = f"{run.state}, step {step:,}" + (f"/{steps:,} ({step / steps:.0%})" if steps else "")
    if run.state == "running" and 0 < step < steps:
        return f"{state}, {(steps - step) * line['seconds'] / step / 60:.1f} min left"
    if run.state == "stalled" and run.is_held:
        return f"{state}, nothing written for {run.silent / 60:.1f} min"
    if run.state == "stalled":
        return f"{state}, ended by its watchdog: see {run.folder / 'stall'}"
    if run.state == "stopped":
        return f"{state}; the same command goes on with it"
    return state


def _line(line: dict[str, Any]) -> str:
    metrics = "".join(f"  {name} {_number(name, value)}" for name, value in line.items() if "/" in name)
    if "loss" not in line:  # before the first step
        return f"step {line['step']:,}{metrics}"
    return (
        f"step {line['step']:,}  loss {line['loss']:.3f}  lr {line['learning_rate']:.1e}  "
        f"scale {line['logit_scale']:.1f}{metrics}"
    )


def _time_and_faults(run: "WatchedRun") -> list[str]:
    from diptych.runtime import usable_cores
    from diptych.train.bottleneck import bottleneck
    from diptych.train.laps import BESIDE, time_shares
    from diptych.train.watch import RECENT, time_of

    lines = []
    if found := time_shares(time_of(run.lines[-RECENT:])):
        parts = [f"{name} {share:.0%}" for name, share in found.items() if name not in BESIDE and share >= 0.005]
        threads = [f"{name} {found[name]:.2f}" for name in BESIDE if name in found]
        lines.append("time  " + "  ".join(parts) + (f"; threads busy: {', '.join(threads)}" if threads else ""))
        if run.recipe:
            lines.append(bottleneck(found, run.recipe, cores=usable_cores() if run.is_held else None))
    if bad := (run.lines[-1] if run.lines else {}).get("bad"):
        lines.append(f"bad samples, left out: {', '.join(f'{cause} {count:,}' for cause, count in bad.items())}")
    return lines


def _number(name: str, value: float) -> str:
    if name == "learning rate":
        return f"{value:.1e}"
    if name == "pairs/s":
        return f"{value:,.0f}"
    return f"{value:.1%}" if name.endswith(("top1", "top5")) else f"{value:.4g}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    from diptych.cli.console import one_line

    return escape(one_line(text))
