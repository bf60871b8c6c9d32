"""How a chapter of an audit is printed and kept."""

from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.console import one_line, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.eval.chapter import Chapter
    from diptych.eval.features import ModelFeatures


def tell_chapter(chapter: "Chapter", out: Path | None, *, features: "ModelFeatures", model: str, seed: int = 0) -> None:
    """Print a chapter; where a folder is named, write it there as NAME.json, an audit of this chapter alone."""
    say_chapter(chapter)
    if out:
        from diptych.audit.whole import audit_of
        from diptych.eval.result_file import write_audit

        write_audit(audit_of([chapter], features, model=model, seed=seed), out / f"{chapter.name}.json")


def say_chapter(chapter: "Chapter") -> None:
    """Results, contrasts, and then in words what was found, what was not measured, and how it may be read."""
    from diptych.pages.audit import contrasts_table, numbers_table

    print(one_line(f"{chapter.title}: {chapter.question}"))
    for table in (
        *([numbers_table(chapter.results)] if chapter.results else []),
        *([contrasts_table(chapter.contrasts)] if chapter.contrasts else []),
    ):
        print_table(table.rows, header=table.header, numbers=_of_numbers(table.header))
        print()
    for sentence in chapter.sentences:
        print(one_line(sentence))
    for sentence in chapter.not_measured:
        print(one_line(f"not measured: {sentence}"))
    for sentence in chapter.notes:
        print(one_line(f"note: {sentence}"))
    for name, value in chapter.conditions.items():
        print(one_line(f"{name}: {value}"))


def _of_numbers(header: "Sequence[str]") -> range:
    """Columns from the first one that holds a number."""
    first = next(number for number, name in enumerate(header) if name in ("value", "A"))
    return range(first, len(header))
