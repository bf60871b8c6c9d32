"""`diptych evaluate report`: result files in, a page out."""

from pathlib import Path


def report(results: Path, *, data: Path | None = None, out: Path = Path("report.html")) -> None:
    """Lay out results as one HTML page that needs no network.

    The table stands beside the published figures of the model where there are some; then each class, the surest
    failures, the worst confusions, and how far confidence can be trusted.

    Parameters
    ----------
    results
        A folder of `diptych evaluate suite`, or a result file of `diptych evaluate zero-shot`, `probe` or `retrieval`,
        or a folder of them, of one model.
    data
        The folder with the data sets, for pictures: DATA/NAME, or DATA itself. Without it the page has none.
    out
        The page.
    """
    from diptych.cli.console import complain
    from diptych.eval.outcomes import read_results, read_retrievals
    from diptych.pages.html import write_report
    from diptych.pages.results import results_page
    from diptych.sets.digest import digest
    from diptych.sets.open import read_labelled

    retrievals = read_retrievals(results)
    found = read_results(results, may_be_none=bool(retrievals))
    sets = {}
    for result in found:
        if not data or result.title in sets:
            continue
        places = [place for place in (data / result.data, data) if place.is_dir()]
        place = next((place for place in places if digest(place, result.split) == result.data_sha256), None)
        if place:
            sets[result.title] = read_labelled(place, split=result.split)
        else:
            complain(f"{result.title} is not in {data} as it was measured: its pictures are left out.")
    write_report(results_page(found, sets, retrievals), out)
    count = len(found) + len(retrievals)
    print(f"{count} {'results' if count > 1 else 'result'} -> {out}")
