"""`diptych evaluate compare`: two results in, differences with their doubt out."""

from pathlib import Path

from cyclopts.types import NonNegativeInt

from diptych.cli.console import print_table
from diptych.errors import DataError
from diptych.files import write_json


def compare(a: Path, b: Path, *, out: Path | None = None, seed: NonNegativeInt = 0) -> None:
    """Tell whether model B is better than model A on the same pictures, or only luckier.

    The interval is a 95 % paired bootstrap over pictures; p is McNemar's exact test, two-sided. With several data sets
    p is also corrected for their number (Holm).

    Parameters
    ----------
    a
        A result file of `diptych evaluate zero-shot --out`, or a folder of them.
    b
        The same of the other model. Folders are matched by data set and split.
    out
        A JSON file for the numbers.
    seed
        Of the bootstrap.
    """
    from diptych.eval.outcomes import paired, read_results
    from diptych.measures.compare import compare_correct, holm

    of_a, of_b = (
        {(result.task, result.data, result.split): result for result in read_results(path)} for path in (a, b)
    )
    if a.is_dir() or b.is_dir():
        common = [key for key in of_a if key in of_b]
        if not common:
            raise DataError(f"{a} and {b} must hold results on the same data sets. They have none in common.")
        pairs = [(of_a[key], of_b[key]) for key in common]
    else:
        pairs = [(*of_a.values(), *of_b.values())]
    found = [compare_correct(*paired(*pair), seed=seed) for pair in pairs]
    corrected = holm([comparison.p_value for comparison in found])
    rows = [
        [
            pair[0].title,
            f"{one.n:,}",
            f"{one.a:.2%}",
            f"{one.b:.2%}",
            f"{100 * one.difference:+.2f}",
            f"{100 * one.interval.low:+.2f} to {100 * one.interval.high:+.2f}",
            f"{one.only_a:,}",
            f"{one.only_b:,}",
            f"{one.p_value:.2g}",
            f"{p:.2g}",
        ]
        for pair, one, p in zip(pairs, found, corrected, strict=True)
    ]
    header = ["data", "n", "A", "B", "B - A", "95% interval", "only A", "only B", "p", "p, Holm"]
    shown = len(header) - (len(pairs) == 1)  # of one test there is nothing to correct
    print_table([row[:shown] for row in rows], header=header[:shown], numbers=range(1, shown))
    if out:
        write_json(
            out,
            {
                "task": "compare",
                "a": {"path": str(a), "model": pairs[0][0].model},
                "b": {"path": str(b), "model": pairs[0][1].model},
                "seed": seed,
                "data": {
                    pair[0].title: one.to_dict() | {"p_value_holm": p}
                    for pair, one, p in zip(pairs, found, corrected, strict=True)
                },
            },
        )
