"""A run as a report: curves, where its time went, what was left out, every setting."""

from collections.abc import Mapping
from typing import Any

from diptych.config import to_dict
from diptych.pages.page import Bars, Curve, Headline, ReportPage, Table
from diptych.train.bottleneck import bottleneck
from diptych.train.laps import BESIDE, time_shares
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
    time = time_shares(time_of(run.lines))
    of_all = f" of {run.recipe.train.steps:,}" if run.recipe else ""
    state = f"step {line.get('step', 0):,}{of_all}"
    held_up = bottleneck(time, run.recipe) if run.recipe else ""
    return ReportPage(
        title=run.recipe.name if run.recipe else run.name,
        summary=f"A run at {state}, {run.state}. {held_up}".rstrip(),
        headline=[("state", run.state, state), *_numbers(line)],
        table=_left_out(line),
        time=[_time(time)] if time else [],
        curves=[
            Curve(title=name, points=points, unit=_UNITS.get(name, ""), is_share=name.endswith(("top1", "top5")))
            for name, points in curves(run.lines).items()
        ],
        conditions=dict(_settings(to_dict(run.recipe))) if run.recipe else {},
    )


def _numbers(line: Mapping[str, Any]) -> list[Headline]:
    if not line:
        return []
    return [
        ("loss", f"{line['loss']:.3f}", "nats, of the last batch in the log"),
        ("pairs seen", f"{line['pairs']:,}", f"{line['pairs'] / max(line['seconds'], 1e-9):,.0f} a second"),
        ("training", f"{line['seconds'] / 60:.1f} min", "evaluation and saving excluded"),
    ]


def _left_out(line: Mapping[str, Any]) -> Table | None:
    bad = line.get("bad", {})
    drawn = line.get("pairs", 0) + sum(bad.values())
    if not drawn:
        return None
    rows = [(cause, f"{count:,}", f"{count / drawn:.3%}") for cause, count in bad.items()]
    header = ("samples left out", "count", "share of those drawn")
    return Table(header=header, rows=rows or [("none", "0", "0.000%")], note=f"By cause, of {drawn:,} drawn.")


def _time(time: Mapping[str, float]) -> Bars:
    return Bars(
        title="Of the main thread",
        note="; ".join(f"threads busy with {name}: {time[name]:.2f}" for name in BESIDE if name in time),
        bars=[(_MEANINGS[name], share) for name, share in time.items() if name in _MEANINGS],
    )


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
