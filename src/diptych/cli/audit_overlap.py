"""`diptych audit overlap`: evaluation pictures among training pictures."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cyclopts.types import NonNegativeInt

from diptych.cli.console import complain, error_console, on_screen, one_line, print_table, shows_bars
from diptych.cli.options import ModelOptions
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from diptych.audit.overlap import Overlap
    from diptych.eval.find_sets import EvaluationSet
    from diptych.eval.result import Result
    from diptych.pairs.sources import Pairs

_THRESHOLD = 0.8  # as `diptych.curate.copies.THRESHOLD`; a test holds it to that


def overlap(
    train: str,
    *,
    data: Path,
    tasks: list[str] | None = None,
    model: str | None = None,
    results: Path | None = None,
    out: Path | None = None,
    threshold: float = _THRESHOLD,
    pairs: NonNegativeInt = 24,
    image_column: str = "image",
    key_column: str = "",
) -> None:
    """Find evaluation pictures among training pictures, and say what a model's score gained by them.

    Copies are found whatever was done to them: other sizes and formats, other colours, mirrored, cropped. With a model
    or its results, accuracy is split into All, Clean and Overlap as in the paper (section 5, figure 17).

    Parameters
    ----------
    train
        The training pictures: shards, a folder, or a table, as `diptych train` reads them.
    data
        A folder with a folder for each evaluation set, or one set, as `diptych evaluate suite` reads them.
    tasks
        Names of tasks or data sets; may be given several times. By default all.
    model
        A name from `diptych models`, or a bundle's folder, which is measured on the sets, zero-shot.
    results
        A folder of results, or one, that `diptych evaluate` wrote, instead of a model.
    out
        A folder for overlap.json, the page overlap.html, and what is kept to go on and to count anew.
    threshold
        Score of the second look from which a picture counts as one of the training pictures.
    pairs
        Pairs that the page shows on either side of the threshold.
    image_column
        Of a table: pictures or their paths.
    key_column
        Of a table: names of its rows.
    """
    if model and results:
        raise ConfigError("results are split of a model, --model, or as they were measured, --results. Got both.")
    from diptych.audit.overlap import find_overlap, write_overlap
    from diptych.eval.find_sets import ALL, find_sets
    from diptych.pairs.sources import Source, open_pairs

    source = open_pairs(Source(path=train, image_column=image_column, key_column=key_column))
    sets = find_sets(data, tasks or [ALL])
    with TemporaryDirectory() as aside, on_screen(_progress()) as bar:
        kept_in = (out or Path(aside)) / "sketches"
        measured = _measured(sets, model, out or Path(aside)) if model else _read(results)
        line = bar.add_task("", total=None)
        found = find_overlap(
            source,
            sets,
            kept_in,
            threshold=threshold,
            results=measured,
            on_progress=lambda what, done, all_: bar.update(
                line, description=one_line(what), completed=done, total=all_
            ),
        )
    _say(found)
    if out:
        write_overlap(found, out / "overlap.json")
        _write_page(found, sets, source, out / "overlap.html", pairs)


def _progress() -> "Progress":
    from rich.progress import Progress

    return Progress(console=error_console(), transient=True, disable=not shows_bars())


def _read(results: Path | None) -> "list[Result]":
    from diptych.eval.result_file import read_results

    if results is None:
        return []
    found, notes = read_results(results)
    for note in notes:
        complain(note)
    return list(found.values())


def _measured(sets: "list[EvaluationSet]", model: str, out: Path) -> "list[Result]":
    from dataclasses import replace

    from diptych.eval.suite import run_suite

    options = ModelOptions(model=model)
    features = options.features(cache=out / "features")
    found: list[Result] = []
    for one in run_suite(features, [replace(one, train_split=None) for one in sets], out / "results", options.asked()):
        if one.result:
            found.append(one.result)
        else:
            complain(f"{one.title}: {one.error}")
    return found


def _say(found: "Overlap") -> None:
    from diptych.pages.side_by_side import HEADER, overlap_cells

    print_table([overlap_cells(one) for one in found.sets], header=HEADER, numbers=range(1, len(HEADER)))
    left_out = sum(found.train_skipped.values())
    if left_out:
        causes = ", ".join(f"{cause} {count:,}" for cause, count in found.train_skipped.items())
        complain(f"training pictures that cannot be read: {left_out:,} of {found.train_pictures:,} ({causes}).")
    for one in found.sets:
        if one.skipped:
            causes = ", ".join(f"{cause} {count:,}" for cause, count in one.skipped.items())
            complain(f"{one.data.title}: pictures that cannot be read: {causes}.")


def _write_page(found: "Overlap", sets: "list[EvaluationSet]", source: "Pairs", path: Path, count: int) -> None:
    from diptych.audit.overlap import conditions_of, shown_pairs
    from diptych.pages.html import write_report
    from diptych.pages.page import PicturePair
    from diptych.pages.side_by_side import overlap_page

    above, below = ([PicturePair(**vars(pair)) for pair in side] for side in shown_pairs(found, sets, source, count))
    page = overlap_page(found.sets, above, below, threshold=found.threshold, conditions=conditions_of(found))
    if note := write_report(page, path):
        complain(note)
