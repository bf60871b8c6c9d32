"""How a chapter of an audit is printed and kept."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.console import one_line, print_table

if TYPE_CHECKING:
    from diptych.eval.chapter import Chapter

FORMAT = "diptych-audit-chapter-1"


def tell_chapter(chapter: "Chapter", out: Path | None = None) -> None:
    """Print a chapter, and write it to a folder where one is named."""
    say_chapter(chapter)
    if out:
        write_chapter(chapter, out)


def say_chapter(chapter: "Chapter") -> None:
    """Results, contrasts, and then in words what was found, what was not measured, and how it may be read."""
    from diptych.eval.result_tables import percent, span

    print(f"{chapter.title}: {chapter.question}")
    columns = list(dict.fromkeys(key for result in chapter.results for key in result.case))
    more = list(dict.fromkeys(key for result in chapter.results for key in result.numbers))
    header = [*columns, "share", "95% interval", "n", *more]
    rows = [
        [
            *(result.case.get(key, "") for key in columns),
            percent(result.value),
            span(result.interval),
            f"{result.n:,}",
            *(percent(result.numbers[key]) if key in result.numbers else "" for key in more),
        ]
        for result in chapter.results
    ]
    if rows:
        print_table(rows, header=header, numbers=range(len(columns), len(header)))
    if chapter.contrasts:
        print()
        print_table(
            [
                [
                    one.name,
                    f"{100 * one.comparison.difference:+.1f}",
                    f"{100 * one.comparison.interval.low:+.1f} to {100 * one.comparison.interval.high:+.1f}",
                    f"{one.corrected:.2g}",
                    one.comparison.test,
                ]
                for one in chapter.contrasts
            ],
            header=["B against A", "points", "95% interval", "p (Holm)", "test"],
            numbers=(1, 2, 3),
        )
    print()
    for sentence in chapter.sentences:
        print(one_line(sentence))
    for sentence in chapter.not_measured:
        print(f"not measured: {one_line(sentence)}")
    for sentence in chapter.notes:
        print(f"note: {one_line(sentence)}")
    for name, value in chapter.conditions.items():
        print(one_line(f"{name}: {value}"))


def write_chapter(chapter: "Chapter", folder: Path) -> None:
    """NAME.json in a folder, without the pictures.

    Raises:
        DataError: the file cannot be written.
    """
    from diptych.eval.result_file import write_record

    plain = replace(chapter, examples=tuple(replace(one, picture=None) for one in chapter.examples))
    write_record(folder / f"{chapter.name}.json", FORMAT, plain)
