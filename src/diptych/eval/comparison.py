"""Results of two models, paired row by row: what is the same measurement, and whether the difference is chance.

Letters: n rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from diptych.errors import DataError
from diptych.eval.result import DataId, Measurement, ModelId, Result, in_common, is_right_or_wrong, metric_of
from diptych.eval.tasks import Kind
from diptych.measures.compare import Comparison, compare_correct, compare_metric, holm

COMPARISON_FORMAT = "diptych-comparison-1"
Key = tuple[str, ...]  # data, split, measurement; of an audit also its case and the metric


@dataclass(frozen=True, kw_only=True)
class ComparedResults:
    """One measurement of two models."""

    title: str  # set, split and measurement: unique
    data: DataId
    measurement: Measurement
    kind: Kind
    metric: str
    test: Comparison
    p_value_holm: float  # corrected for the number of measurements


@dataclass(frozen=True, kw_only=True)
class ComparedModels:
    """All measurements that two models have in common, and what only one of them has."""

    a: ModelId
    b: ModelId
    seed: int
    compared: tuple[ComparedResults, ...]
    only_a: tuple[str, ...]  # titles
    only_b: tuple[str, ...]


def compare_results(a: Sequence[Result], b: Sequence[Result], *, seed: int = 0) -> ComparedModels:
    """Pair results of model A and model B by set, split and measurement.

    Args:
        a: of model A; one of each set and measurement.
        b: of model B.
        seed: of the bootstraps.

    Raises:
        DataError: they have no measurement in common, one comes twice, results of a side are of several models, or two
            were not measured on the same data.
    """
    for name, some in (("A", a), ("B", b)):
        if len({one.model.fingerprint for one in some}) > 1:
            raise DataError(f"{name} must be results of one model. Got {', '.join({one.model.name for one in some})}.")
    of_a, of_b = _by_key(a), _by_key(b)
    if len(of_a) == len(of_b) == 1:  # two files, whatever they are called: e.g. zero-shot against a probe
        of_b = dict(zip(of_a, of_b.values(), strict=True))
    common = [key for key in of_a if key in of_b]
    if not common:
        titles = ("; ".join(sorted(one.title for one in some)) or "none" for some in (a, b))
        raise DataError("A and B must hold results of the same measurements. A has: {}. B has: {}.".format(*titles))
    tests = [compared(of_a[key], of_b[key], seed=seed) for key in common]
    corrected = holm([test.p_value for test in tests])
    return ComparedModels(
        a=a[0].model,
        b=b[0].model,
        seed=seed,
        compared=tuple(
            ComparedResults(
                title=" / ".join(dict.fromkeys((of_a[key].title, of_b[key].title))),
                data=of_a[key].data,
                measurement=of_a[key].measurement,
                kind=of_a[key].kind,
                metric=of_a[key].metric,
                test=test,
                p_value_holm=p,
            )
            for key, test, p in zip(common, tests, corrected, strict=True)
        ),
        only_a=tuple(of_a[key].title for key in of_a if key not in of_b),
        only_b=tuple(of_b[key].title for key in of_b if key not in of_a),
    )


def compared(a: Result, b: Result, *, seed: int = 0) -> Comparison:
    """Two results on the rows that both models could read: McNemar's test where the metric is the share of rows that
    are right, else a paired bootstrap of the metric, made anew from the rows of each draw.

    Raises:
        DataError: the two were not measured on the same data or by the same metric, or share no row.
    """
    titles = f"{a.title} of {a.model.name or 'A'} and {b.title} of {b.model.name or 'B'}"
    if (a.data.sha256, a.data.split) != (b.data.sha256, b.data.split):
        raise DataError(
            f"{titles} must be results on the same data. They are not: {a.data.sha256[:8]} and {b.data.sha256[:8]}."
        )
    if a.metric != b.metric:
        raise DataError(f"{titles} must be scored by one metric. They are by {a.metric} and {b.metric}: measure again.")
    rows_a, rows_b = in_common(a.rows, b.rows)
    if not len(rows_a):
        raise DataError(f"{titles} must share pictures. They share none.")
    if rows_a.targets is not None and (rows_b.targets is None or rows_a.targets.tolist() != rows_b.targets.tolist()):
        raise DataError(f"{titles} must agree on what each picture shows. They do not.")
    if is_right_or_wrong(rows_a, a.metric):
        assert rows_a.correct is not None
        assert rows_b.correct is not None
        return compare_correct(rows_a.correct, rows_b.correct, seed=seed)
    return compare_metric(
        lambda drawn: metric_of(rows_a, a.metric, drawn),
        lambda drawn: metric_of(rows_b, b.metric, drawn),
        len(rows_a),
        group=rows_a.group,
        seed=seed,
    )


def _by_key(results: Sequence[Result]) -> dict[Key, Result]:
    found: dict[Key, Result] = {}
    for one in results:
        key = (one.data.name, one.data.split, one.measurement)
        if one.measurement == "audit":
            key += (*map(": ".join, one.case.items()), one.metric)
        if key in found:
            raise DataError(f"There must be one result of {one.title} a model. There are two: remove one of the files.")
        found[key] = one
    return found
