"""Results as a table: for a terminal, CSV, LaTeX and Markdown. One row a measurement, or one a set.

Shares are in [0, 1] in a CSV, in per cent elsewhere.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from diptych.errors import DataError
from diptych.eval.result import Result
from diptych.eval.shift import robustness
from diptych.measures.metrics import Interval

TableFormat = Literal["csv", "latex", "markdown"]
_COLUMNS = (
    *("model", "fingerprint", "data", "split", "sha256", "kind", "task", "measurement", "metric", "value"),
    *("low", "high", "level", "n", "left_out", "shortened", "templates", "prompts_from", "seed", "precision"),
    *("diptych", "torch"),
)
_SET_HEADER = ("data", "metric", "n", "zero-shot", "95% interval", "linear probe", "95% interval")


def results_table(results: Sequence[Result], form: TableFormat) -> str:
    """Results of one model or several as text.

    A CSV has a row for each measurement, with its conditions, other numbers as NAME=VALUE in the last column. LaTeX
    (booktabs) and Markdown have a row for each set and measurement and a column for each model; below it how far
    probabilities can be trusted, and where the folders hold ImageNet and its shifts, effective robustness.

    Raises:
        DataError: there is no result, or a model has two of one measurement.
    """
    if not results:
        raise DataError("A table needs at least one result. Got none.")
    if form == "csv":
        return _csv(results)
    models = by_model(results)
    tables = [_models_table(results), sureness_table(models), robustness_table(models)]
    write = _latex if form == "latex" else _markdown
    return "\n".join(write(*table) for table in tables if table)


def by_model(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by the name of their model; of two models of one name, with the head of the fingerprint behind it."""
    names: dict[str, set[str]] = {}
    for one in results:
        names.setdefault(one.model.name, set()).add(one.model.fingerprint)
    found: dict[str, list[Result]] = {}
    for one in results:
        twice = len(names[one.model.name]) > 1
        name = f"{one.model.name} ({one.model.fingerprint[:8]})" if twice else one.model.name
        found.setdefault(name, []).append(one)
    return found


def percent(share: float, digits: int = 2) -> str:
    return f"{share:.{digits}%}"


def span(interval: Interval | None, digits: int = 2) -> str:
    """An interval in words; "-" where there is none."""
    return f"{interval.low:.{digits}%} to {interval.high:.{digits}%}" if interval else "-"


def sets_table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a set, zero-shot beside the linear probe, each by the metric of the set.

    Where the two are scored by different metrics, the row has both names. Retrieval has a table of its own.
    """
    by_set: dict[str, dict[str, Result]] = {}
    for one in results:
        if one.measurement != "retrieval":
            by_set.setdefault(one.data.title, {})[one.measurement] = one
    rows = []
    for title, some in by_set.items():
        metrics = " / ".join(dict.fromkeys(one.metric for one in some.values()))
        count = next(iter(some.values())).n
        rows.append([title, metrics, f"{count:,}", *_cells(some.get("zero-shot")), *_cells(some.get("linear-probe"))])
    if len(rows) > 1:
        means = []
        for measurement in ("zero-shot", "linear-probe"):
            values = [some[measurement].value for some in by_set.values() if measurement in some]
            means += [percent(sum(values) / len(values)) if values else "-", ""]
        rows.append([f"mean of {len(rows)} sets", "", "", *means])
    return list(_SET_HEADER), rows


def retrieval_table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: two rows a set, pictures to texts and back."""
    header, rows = ["retrieval", "queries", "among", "recall@1", "95% interval", "@5", "@10", "median rank"], []
    for one in results:
        if not one.retrieval:
            continue
        ways = (("picture to texts", one.retrieval.image_to_text), ("text to pictures", one.retrieval.text_to_image))
        for way, found in ways:
            recall = [percent(found.recall[k]) if k in found.recall else "-" for k in (1, 5, 10)]
            rows.append(
                [
                    f"{one.data.title}: {way}",
                    f"{len(found.ranks):,}",
                    f"{found.candidates:,}",
                    recall[0],
                    span(found.intervals.get(1)),
                    *recall[1:],
                    f"{found.median_rank:g}",
                ]
            )
    return header, rows


def sureness_table(models: Mapping[str, Sequence[Result]]) -> tuple[list[str], list[list[str]]] | None:
    """Header and rows of how far probabilities can be trusted; None where nothing of it was measured.

    The error is the expected calibration error, before the temperature and after it, on the half that it was not fitted
    on. Of rejection: how well the highest probability tells the classes from those that the model was not told of, and
    the share that is right with "none of these" as an answer.
    """
    rows = []
    for model, results in models.items():
        for one in results:
            if not one.temperature and not one.rejection:
                continue
            heat = one.temperature
            of_heat = (f"{heat.value:.3g}", percent(heat.error_before), percent(heat.error_after)) if heat else "---"
            far = one.rejection
            of_far = (f"{far.threshold.auc:.3f}", percent(far.accuracy)) if far else "--"
            rows.append([model, one.data.title, *of_heat, *of_far])
    header = ["model", "data", "temperature", "error before", "after", "AUC of unknown classes", "right with rejection"]
    return (header, rows) if rows else None


def robustness_table(models: Mapping[str, Sequence[Result]]) -> tuple[list[str], list[list[str]]] | None:
    """Header and rows of effective robustness; None where no model has ImageNet and a shift of it."""
    rows, means = robustness(models)
    if not rows:
        return None
    has_fit = any(one.beyond_fit is not None for one in rows)
    header = ["model", "shifted set", "ImageNet, its classes", "shifted", "effective robustness"]
    header += ["beyond these models' trend"] if has_fit else []
    cells = [
        [
            *(one.model, one.data, percent(one.subset), percent(one.shifted), f"{100 * one.effective:+.2f}"),
            *(["-" if one.beyond_fit is None else f"{100 * one.beyond_fit:+.2f}"] if has_fit else []),
        ]
        for one in rows
    ]
    for model, mean in means.items():
        numbers = (percent(mean.subset), percent(mean.shifted), f"{100 * mean.effective:+.2f}")
        cells.append([model, "mean of seven", *numbers, *(["-"] if has_fit else [])])
    return header, cells


def _cells(result: Result | None) -> list[str]:
    return [percent(result.value), span(result.interval)] if result else ["-", "-"]


def _csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_COLUMNS, "numbers"], lineterminator="\n")
    writer.writeheader()
    for one in results:
        interval, conditions = one.interval, one.conditions
        versions = conditions.versions if conditions else {}
        writer.writerow(
            {
                "model": one.model.name,
                "fingerprint": one.model.fingerprint,
                "data": one.data.name,
                "split": one.data.split,
                "sha256": one.data.sha256,
                "kind": one.kind,
                "task": one.task,
                "measurement": one.measurement,
                "metric": one.metric,
                "value": one.value,
                "low": interval.low if interval else "",
                "high": interval.high if interval else "",
                "level": interval.level if interval else "",
                "n": one.n,
                "left_out": one.left_out,
                "shortened": one.shortened,
                "templates": " | ".join(one.prompts.templates),
                "prompts_from": one.prompts.source,
                "seed": conditions.seed if conditions else "",
                "precision": conditions.precision if conditions else "",
                "diptych": versions.get("diptych", ""),
                "torch": versions.get("torch", ""),
                "numbers": "; ".join(f"{name}={value}" for name, value in one.numbers.items()),
            }
        )
    return text.getvalue()


def _models_table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    models = by_model(results)
    found: dict[tuple[str, str, str], dict[str, Result]] = {}
    for model, some in models.items():
        for one in some:
            cell = found.setdefault((one.data.title, one.measurement, one.metric), {})
            if model in cell:
                raise DataError(f"A table has one result of {one.title} a model. {model} has two: remove one.")
            cell[model] = one
    rows = [
        [*key, f"{next(iter(some.values())).n:,}", *(_with_interval(some.get(model)) for model in models)]
        for key, some in found.items()
    ]
    return ["data", "measurement", "metric", "n", *models], rows


def _with_interval(result: Result | None) -> str:
    if not result:
        return "-"
    interval = result.interval
    return f"{100 * result.value:.1f}" + (f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval else "")


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = "l" * 3 + "r" * (len(header) - 3)
    line: Callable[[Sequence[str]], str] = lambda cells: " & ".join(map(_escaped, cells)) + r" \\"  # noqa: E731
    body = "\n".join(line(row) for row in rows)
    return (
        "% needs booktabs; per cent, 95 % intervals in brackets\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        f"{line(header)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _escaped(text: str) -> str:
    plain = text.replace("\\", "/")
    for sign in "&%$#_{}":
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
