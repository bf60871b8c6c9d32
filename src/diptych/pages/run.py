"""A run as a report: numbers, curves, where its time went, what was left out, every setting."""

from collections.abc import Mapping, Sequence
from typing import Any

from diptych.config import to_dict
from diptych.data.embedded import data_path
from diptych.errors import DiptychError
from diptych.pages.page import Bars, Headline, LinePlot, PageTable, ReportPage
from diptych.sets.open import read_labelled
from diptych.train.bottleneck import bottleneck
from diptych.train.laps import BESIDE, time_shares
from diptych.train.recipe import TrainRecipe
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
_SHARES = ("top1", "top5")


def run_page(run: WatchedRun, chance: Mapping[str, float] | None = None) -> ReportPage:
    """Lay out a run, under way or over, as its folder tells it.

    Args:
        run: read up to now.
        chance: of `chance_levels`, by the names of metrics.
    """
    line: Mapping[str, Any] = run.lines[-1] if run.lines else {}
    time = time_shares(time_of(run.lines))
    of_all = f" of {run.recipe.train.steps:,}" if run.recipe else ""
    state = f"step {line.get('step', 0):,}{of_all}"
    held_up = bottleneck(time, run.recipe) if run.recipe else ""
    found = curves(run.lines)
    return ReportPage(
        title=run.recipe.name if run.recipe else run.name,
        summary=f"A run at {state}, {run.state}. {held_up}".rstrip(),
        headline=[("state", run.state, state), *_headline(line)],
        table=_numbers(line, found) if line else None,
        left_out=_left_out(line),
        time=[_time(time)] if time else [],
        curves=[
            LinePlot(
                title=name,
                points=points,
                unit=_UNITS.get(name, ""),
                is_share=name.endswith(_SHARES),
                chance=(chance or {}).get(name),
            )
            for name, points in found.items()
        ],
        conditions=dict(_settings(to_dict(run.recipe))) if run.recipe else {},
    )


def chance_levels(recipe: TrainRecipe) -> dict[str, float]:
    """What a blind guess comes to, by the names of the metrics; of those evaluation sets alone that are at hand."""
    found = {}
    for where in recipe.evaluate:
        try:
            data = read_labelled(data_path(where))
        except DiptychError:  # a page of a run needs nothing but its folder
            continue
        found |= {f"{data.name}/top{k}": min(1.0, k / len(data.classnames)) for k in (1, 5)}
    return found


def _headline(line: Mapping[str, Any]) -> list[Headline]:
    if "loss" not in line:
        return []
    return [
        ("loss", f"{line['loss']:.3f}", "nats, of the last batch in the log"),
        ("pairs seen", f"{line['pairs']:,}", f"{_rate(line):,.0f} a second"),
        ("training", f"{line['seconds'] / 60:.1f} min", "evaluation and saving excluded"),
    ]


def _numbers(line: Mapping[str, Any], found: Mapping[str, Sequence[tuple[float, float]]]) -> PageTable:
    """Loss and metrics as they were first and last, then what was done for them."""
    rows = []
    for name, points in found.items():
        if name == "loss" or ("/" in name and name not in _UNITS):
            (start, first), (step, last) = points[0], points[-1]
            before, now = (f"{value:.1%}" if name.endswith(_SHARES) else f"{value:.4g}" for value in (first, last))
            unit = f", {_UNITS[name]}" if name in _UNITS else ""
            rows.append((f"{name}{unit}", before, f"{start:,}", now, f"{step:,}"))
    done = {
        "pairs learned from": f"{line['pairs']:,}",
        "pairs a second of training, mean": f"{_rate(line):,.0f}",
        "minutes of training": f"{line['seconds'] / 60:.1f}",
    }
    rows += [(name, "-", "-", value, f"{line['step']:,}") for name, value in done.items()]
    header = ("number", "first", "at step", "last", "at step")
    note = "The loss is of single batches. What stands at step 0 was measured before the first update."
    return PageTable(header=header, rows=rows, note=note)


def _rate(line: Mapping[str, Any]) -> float:
    return line["pairs"] / max(line["seconds"], 1e-9)


def _left_out(line: Mapping[str, Any]) -> PageTable | None:
    bad = line.get("bad", {})
    drawn = line.get("pairs", 0) + sum(bad.values())
    if not drawn:
        return None
    rows = [(cause, f"{count:,}", f"{count / drawn:.3%}") for cause, count in bad.items()]
    header = ("samples left out", "count", "share of those drawn")
    return PageTable(header=header, rows=rows or [("none", "0", "0.000%")], note=f"By cause, of {drawn:,} drawn.")


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
            rows.append((f"{where}{key}", _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()  # as in TOML
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return "-" if value in ("", None) else str(value)
