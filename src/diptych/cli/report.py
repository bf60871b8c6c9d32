"""`diptych evaluate report`: result files in, a page or a table out."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diptych.cli.console import complain
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.eval.result import Result
    from diptych.sets.labelled import LabelledImages

_ENDINGS = {"html": "html", "csv": "csv", "latex": "tex", "markdown": "md"}


def report(
    *results: Path,
    data: Path | None = None,
    format_: Literal["html", "csv", "latex", "markdown"] = "html",
    out: Path | None = None,
) -> None:
    """Lay out results as one HTML page that needs no network, or as a table for a paper or a spreadsheet.

    On the page, the table stands beside the published figures of the model where there are some; then each class, the
    surest failures, the worst confusions, and how far confidence can be trusted. Tables are of one model or of several.

    Parameters
    ----------
    results
        A folder of `diptych evaluate suite`, or a result file of `diptych evaluate zero-shot`, `probe` or `retrieval`,
        or several of them. A page is of one model.
    data
        The folder with the data sets, for pictures: DATA/NAME, or DATA itself. Without it the page has none.
    format_
        html; csv, a row for each measurement; latex or markdown, a row for each measurement and a column for each
        model.
    out
        The file. By default report.html, report.csv, report.tex or report.md.
    """
    from diptych.eval.result_file import read_results
    from diptych.eval.result_tables import results_table
    from diptych.files import write_text
    from diptych.pages.html import write_report
    from diptych.pages.results import results_page

    if not results:
        raise ConfigError(
            "there must be results to lay out. Name a folder of diptych evaluate suite, or a result file."
        )
    found: list[Result] = []
    for path in results:
        some, notes = read_results(path)
        found += some.values()
        for note in notes:
            complain(f"left out: {note}")
    path = out or Path(f"report.{_ENDINGS[format_]}")
    if format_ == "html":
        if left_out := write_report(results_page(found, _pictures(found, data) if data else {}), path):
            complain(left_out)
    else:
        write_text(path, results_table(found, format_))
    print(f"{len(found)} {'results' if len(found) > 1 else 'result'} -> {path}")


def _pictures(results: "list[Result]", data: Path) -> "dict[str, LabelledImages]":
    from diptych.pages.results import measured_pictures

    sets, absent = measured_pictures(results, data)
    for title in absent:
        complain(f"{title} is not in {data} as it was measured: its pictures are left out.")
    return sets
