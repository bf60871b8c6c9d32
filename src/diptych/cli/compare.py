"""`diptych evaluate compare`: two results in, differences with their doubt out."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.types import NonNegativeInt

from diptych.cli.console import complain, one_line, print_table

if TYPE_CHECKING:
    from diptych.eval.comparison import ComparedModels


def compare(a: Path, b: Path, *, out: Path | None = None, seed: NonNegativeInt = 0) -> None:
    """Tell whether model B is better than model A on the same pictures, or only luckier.

    Each number is that of the set's own metric, and the interval a 95 % paired bootstrap over rows. p is McNemar's
    exact test, two-sided, where the metric is the share of rows that are right, else of the bootstrap. With several
    measurements p is also corrected for their number (Holm).

    Parameters
    ----------
    a
        A result file of `diptych evaluate zero-shot --out` and the like, or a folder of them.
    b
        The same of the other model. Folders are matched by data set, split and measurement.
    out
        A JSON file for the numbers.
    seed
        Of the bootstrap.
    """
    from diptych.eval.comparison import COMPARISON_FORMAT, compare_results
    from diptych.eval.result_file import read_results, write_record
    from diptych.eval.result_tables import robustness_table, sureness_table

    (of_a, notes_a), (of_b, notes_b) = read_results(a), read_results(b)
    for note in dict.fromkeys((*notes_a, *notes_b)):
        complain(f"left out: {note}")
    found = compare_results(list(of_a.values()), list(of_b.values()), seed=seed)
    _print_tests(found)
    for name, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            print(f"\nOnly {name} has: {one_line('; '.join(only))}.")
    models = {"A": list(of_a.values()), "B": list(of_b.values())}
    for table in (sureness_table(models), robustness_table(models)):
        if table:
            print()
            print_table(table[1], header=table[0], numbers=range(2, len(table[0])))
    if out:
        write_record(out, COMPARISON_FORMAT, found)


def _print_tests(found: "ComparedModels") -> None:
    rows = [
        [
            one.title,
            one.metric,
            f"{one.test.n:,}",
            f"{one.test.a:.2%}",
            f"{one.test.b:.2%}",
            f"{100 * one.test.difference:+.2f}",
            f"{100 * one.test.interval.low:+.2f} to {100 * one.test.interval.high:+.2f}",
            "-" if one.test.only_a is None else f"{one.test.only_a:,}",
            "-" if one.test.only_b is None else f"{one.test.only_b:,}",
            one.test.test,
            f"{one.test.p_value:.2g}",
            f"{one.p_value_holm:.2g}",
        ]
        for one in found.compared
    ]
    header = ["data", "metric", "n", "A", "B", "B - A", "95% interval", "only A", "only B", "test", "p", "p, Holm"]
    shown = len(header) - (len(rows) == 1)  # of one test there is nothing to correct
    print_table(
        [row[:shown] for row in rows], header=header[:shown], numbers=[*range(2, 9), *range(10, shown)]
    )  # fmt: skip
