"""A run as a report: curves, where its time went, what was left out, every setting."""

from collections.abc import Mapping
from typing import Any

from diptych.config import to_dict
from diptych.eval.report import Bars, Curve, ReportPage, Table
from diptych.train.bottleneck import bottleneck
from diptych.train.laps import BESIDE, shares
from diptych.train.watch import WatchedRun, curves, time_of

_MEANINGS = {
    "data": "waiting for the next batch",
    "inputs": "preparing and moving inputs",
    "step": "forward and backward pass",
    "optimizer": "the optimizer",
    "communication": "waiting for other processes",
    "evaluation": "evaluation",
    "saving": "saving",
    "other": "between the steps",
}
_UNITS = {"loss": "nats", "pairs/s": "pairs a second of training"}


def run_page(run: WatchedRun) -> ReportPage:
    """Lay out a run, under way or over, as its folder tells it."""
    line: Mapping[str, Any] = run.lines[-1] if run.lines else {}
    step, steps = line.get("step", 0), run.recipe.train.steps if run.recipe else 0
    found, time = curves(run.lines), shares(time_of(run.lines))
    of_all = f" of {steps:,}" if steps else ""
    last = {name: points[-1][1] for name, points in found.items()}
    headline = [("state", run.state, f"step {step:,}{of_all}")]
    if line:
        headline += [
            ("loss", f"{last['loss']:.3f}", "nats, of the last batch in the log"),
            ("pairs seen", f"{line['pairs']:,}", f"{line['pairs'] / max(line['seconds'], 1e-9):,.0f} a second"),
            ("training", f"{line['seconds'] / 60:.1f} min", "evaluation and saving excluded"),
        ]
    bad = line.get("bad", {})
    drawn = line.get("pairs", 0) + sum(bad.values())
    return ReportPage(
        title=run.recipe.name if run.recipe else run.name,
        summary=" ".join(
            filter(None, (f"A run at step {step:,}{of_all}, {run.state}.", _held_up(run, time))),
        ),
        headline=headline,
        table=Table(
            header=("samples left out", "count", "share of those drawn"),
            rows=[(cause, f"{count:,}", f"{count / drawn:.3%}") for cause, count in bad.items()]
            or [("none", "0", f"{0:.3%}")],
            note=f"By cause, of {drawn:,} drawn.",
        )
        if drawn
        else None,
        time=[
            Bars(
                title="Of the main thread",
                note="; ".join(f"threads busy with {name}: {time[name]:.2f}" for name in BESIDE if name in time),
                bars=[(_MEANINGS[name], share) for name, share in time.items() if name in _MEANINGS],
            )
        ]
        if time
        else [],
        curves=[
            Curve(title=name, points=points, unit=_UNITS.get(name, ""), is_share=name.endswith(("top1", "top5")))
            for name, points in found.items()
        ],
        conditions=dict(_settings(to_dict(run.recipe))) if run.recipe else {},
    )


def _held_up(run: WatchedRun, time: Mapping[str, float]) -> str:
    return bottleneck(time, run.recipe) if run.recipe else ""


def _settings(plain: Mapping[str, Any], where: str = "") -> list[tuple[str, str]]:
    """Dotted names and values."""
    rows: list[tuple[str, str]] = []
    for key, value in plain.items():
        if isinstance(value, Mapping):
            rows += _settings(value, f"{where}{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                rows += _settings(item, f"{where}{key}[{number}].")
        else:
            rows.append((f"{where}{key}", str(value)))
    return rows
