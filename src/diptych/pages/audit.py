"""An audit as a page: what was found in plain words, then chapter by chapter the numbers and pictures behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from diptych.eval.chapter import Audit, Chapter, Contrast
from diptych.eval.comparison import ComparedModels
from diptych.eval.result import Result
from diptych.eval.result_tables import percent, span
from diptych.pages.page import CaptionedPicture, Headline, PageSection, PageTable, ReportPage

_NO_SHARE = ("ROC AUC",)
_TILES = 12
_OPEN = 8  # rows of a table that is not folded away


def audit_page(audit: Audit, compared: ComparedModels | None = None) -> ReportPage:
    """The page.

    Args:
        audit: with its pictures, where they shall be seen.
        compared: its results against those of another model.
    """
    count, left_out = len(audit.results), not_measured(audit)
    against = f", beside {compared.b.name}" if compared else ""
    return ReportPage(
        title=f"Audit of {audit.model.name}",
        summary=f"What it gets wrong, and about whom: {len(audit.chapters)} chapters, {count:,} numbers{against}.",
        headline=_headline(audit),
        sections=[
            PageSection(
                heading="In plain words",
                tables=[PageTable(header=("chapter", "found"), rows=summary(audit), is_prose=True)],
            ),
            *([_side_by_side(compared)] if compared else []),
            *(_section(chapter) for chapter in audit.chapters),
            PageSection(
                heading="What was not measured",
                note="A number that is not here says nothing, neither good nor bad.",
                tables=[PageTable(header=("chapter", "why"), rows=left_out, is_prose=True)] if left_out else [],
            ),
        ],
        conditions=_conditions(audit),
    )


def summary(audit: Audit) -> list[tuple[str, str]]:
    """Each chapter's title with its first sentence."""
    return [(chapter.title, chapter.sentences[0]) for chapter in audit.chapters if chapter.sentences]


def not_measured(audit: Audit) -> list[list[str]]:
    """Chapter and reason, of whole chapters and of parts of them."""
    whole = [[name, why] for name, why in audit.not_measured.items()]
    return whole + [[chapter.name, why] for chapter in audit.chapters for why in chapter.not_measured]


def numbers_table(results: Sequence[Result]) -> PageTable:
    """Results of a chapter; what sets them apart has a column each, and so have their other numbers."""
    cases = list(dict.fromkeys(name for result in results for name in result.case))
    others = list(dict.fromkeys(name for result in results for name in result.other_numbers))
    several = {
        "data": [result.data.title for result in results],
        "metric": [result.metric for result in results],
    }
    shown = [name for name, column in several.items() if len(set(column)) > 1]
    rows = [
        [
            *(result.case.get(name, "") for name in cases),
            *(several[name][number] for name in shown),
            *value_cells(result),
            *(_number(result.other_numbers.get(name)) for name in others),
        ]
        for number, result in enumerate(results)
    ]
    return PageTable(header=[*cases, *shown, "value", "95% interval", "n", *others], rows=rows)


def contrasts_table(contrasts: Sequence[Contrast]) -> PageTable:
    """Differences, the surest first."""
    rows = [
        [
            one.name,
            percent(one.comparison.a, 1),
            percent(one.comparison.b, 1),
            f"{100 * one.comparison.difference:+.1f}",
            f"{100 * one.comparison.interval.low:+.1f} to {100 * one.comparison.interval.high:+.1f}",
            f"{one.comparison.n:,}",
            one.comparison.test,
            f"{one.corrected:.2g}{'*' if one.is_significant else ''}",
        ]
        for one in sorted(contrasts, key=lambda one: one.corrected)
    ]
    return PageTable(
        header=["difference", "A", "B", "B - A, points", "95% interval", "n", "test", "p, Holm"],
        rows=rows,
        note="p is corrected for the number of contrasts of the chapter; a star where it is below 5 %.",
    )


def value_cells(result: Result) -> list[str]:
    """Value, interval and n as they are read."""
    if result.metric in _NO_SHARE:
        interval = f"{result.interval.low:.3f} to {result.interval.high:.3f}" if result.interval else "-"
        return [f"{result.value:.3f}", interval, f"{result.n:,}"]
    return [percent(result.value, 1), span(result.interval, 1), f"{result.n:,}"]


def _section(chapter: Chapter) -> PageSection:
    tables = {
        "numbers": numbers_table(chapter.results) if chapter.results else None,
        "differences": contrasts_table(chapter.contrasts) if chapter.contrasts else None,
    }
    return PageSection(
        heading=chapter.title,
        note=chapter.question,
        lead=chapter.sentences,
        tables=[_folded(table, what) for what, table in tables.items() if table],
        captioned=[CaptionedPicture(picture=one.picture, caption=one.caption) for one in chapter.examples],
        text="\n".join([*(f"Not measured: {why}" for why in chapter.not_measured), *chapter.notes]),
    )


def _folded(table: PageTable, what: str) -> PageTable:
    """A long one is folded away, so that the words around it are found."""
    count = len(table.rows)
    return replace(table, fold=f"All {count:,} {what}") if count > _OPEN else table


def _side_by_side(compared: ComparedModels) -> PageSection:
    rows = [
        [
            one.title,
            percent(one.test.a, 1),
            percent(one.test.b, 1),
            f"{100 * one.test.difference:+.1f}",
            f"{100 * one.test.interval.low:+.1f} to {100 * one.test.interval.high:+.1f}",
            f"{one.p_value_holm:.2g}{'*' if one.p_value_holm < 0.05 else ''}",
        ]
        for one in sorted(compared.compared, key=lambda one: one.p_value_holm)
    ]
    left_out = len(compared.only_a) + len(compared.only_b)
    return PageSection(
        heading=f"Beside {compared.b.name}",
        note="Row by row, on what both could read; the differences that are surest come first.",
        tables=[
            PageTable(
                header=["number", compared.a.name, compared.b.name, "difference, points", "95% interval", "p, Holm"],
                rows=rows,
                note=f"Numbers that one of the two has alone: {left_out:,}." if left_out else "",
            )
        ],
    )


def _headline(audit: Audit) -> list[Headline]:
    """The number of each chapter that stands for it."""
    tiles: list[Headline] = []
    for chapter in audit.chapters[:_TILES]:
        if one := chapter.leading:
            said = [word for word in one.case.values() if word not in ("", "all")]
            tiles.append((chapter.name, value_cells(one)[0], ", ".join(said) or one.metric))
    return tiles


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _conditions(audit: Audit) -> Mapping[str, str]:
    machine, asked = audit.conditions.hardware, audit.conditions
    chapters = {
        f"{chapter.name}, {name}": value for chapter in audit.chapters for name, value in chapter.conditions.items()
    }
    data = {result.data.title: result.data.sha256[:12] for result in audit.results if result.data.sha256}
    prompts = {result.prompts.sentence: result.data.title for result in audit.results}
    found = {
        "model": f"{audit.model.name}, fingerprint {audit.model.fingerprint[:12]}",
        "data, SHA-256": "; ".join(f"{title} {sha256}" for title, sha256 in data.items()),
        "prompts": "; ".join(f"{title}: {sentence}" for sentence, title in prompts.items()),
        "ties": "count against the model",
        "intervals": "95 %; of shares exact (Clopper-Pearson), of means and other numbers bootstrap over rows",
        "seed": str(asked.seed),
        "precision": asked.precision,
        "hardware": f"{machine.get('cpu')}, {machine.get('cores')} cores" if machine else "",
        "versions": ", ".join(f"{name} {version}" for name, version in asked.versions.items()),
        **chapters,
    }
    return {name: value for name, value in found.items() if value}
