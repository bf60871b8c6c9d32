"""Result files as a report: one table against published figures, then classes, failures and reliability, set by set."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from diptych.data.labelled import LabelledImages
from diptych.errors import DataError
from diptych.eval.calibration import reliability
from diptych.eval.outcomes import ResultFile
from diptych.eval.published_scores import PublishedScore, published_score
from diptych.eval.report import Bars, Confusion, Prediction, ReliabilityPlot, ReportPage, Table

_ALL_UP_TO = 16  # classes; of more, the worst and the best
_WORST, _BEST = 11, 5


def results_page(
    results: Sequence[ResultFile], sets: Mapping[str, LabelledImages], *, failures: int = 3, confusions: int = 2
) -> ReportPage:
    """Lay out the results of one model.

    Args:
        results: of `read_results`, of one model.
        sets: the labelled sets by the results' titles, for pictures; sets that are missing are shown without.
        failures: pictures of each set that were named wrong, the surest first.
        confusions: pairs of classes of each set that are taken for one another most often.

    Raises:
        DataError: there is no result, results are of several models, or a set is not the one that was measured.
    """
    models = {result.fingerprint: result.model for result in results}
    if len(models) != 1:
        raise DataError(f"A report is of one model. Got results of {len(models)}: {', '.join(models.values()) or '-'}.")
    [model] = models.values()
    for result in results:
        if (data := sets.get(result.title)) and (
            data.classnames != result.classnames or len(data) <= result.outcomes.positions.max()
        ):
            raise DataError(f"{result.path} must be of the pictures in {data.name}. It is not: has the set changed?")
    pictured = [(result, sets[result.title]) for result in results if result.title in sets]
    mean = sum(result.values["top1"] for result in results) / len(results)
    several = len(results) > 1
    return ReportPage(
        title=model,
        summary=(
            f"Zero-shot on {len(results)} data sets, {_count(results):,} pictures: class names alone."
            if several
            else f"Zero-shot on {results[0].title}, {_count(results):,} pictures: class names alone."
        ),
        headline=[("mean top-1" if several else "top-1", f"{mean:.1%}", f"of {len(results)} sets" if several else "")],
        table=_table(results),
        bars=[_class_bars(result) for result in results],
        reliability=[_reliability(result) for result in results],
        wrong=[one for pair in pictured for one in _failures(*pair, failures, several)],
        confusions=[one for pair in pictured for one in _confusions(*pair, confusions, several)],
        conditions=_conditions(results),
    )


def _count(results: Sequence[ResultFile]) -> int:
    return sum(len(result.outcomes.targets) for result in results)


def _table(results: Sequence[ResultFile]) -> Table:
    found = [
        [published_score(result.model, result.data, kind) if result.split == "test" else None for result in results]
        for kind in ("zero_shot", "rerun")
    ]
    published = [column for column in found if any(column)]
    header = ["data", "pictures", "classes", "top-1", "95% interval", "mean per class", "calibration error"]
    header += [next(one.source for one in column if one) for column in published]
    rows = []
    for number, result in enumerate(results):
        outcomes, interval = result.outcomes, result.values["interval"]
        error = reliability(outcomes.confidences, outcomes.correct).expected_error
        rows.append(
            [
                result.title,
                f"{len(outcomes.targets):,}",
                f"{len(result.classnames):,}",
                f"{result.values['top1']:.1%}",
                f"{interval['low']:.1%} to {interval['high']:.1%}",
                f"{result.values['mean_per_class']:.1%}",
                f"{error:.1%}",
                *(_published(column[number]) for column in published),
            ]
        )
    note = "Published figures hold on the whole test set and with the prompts of their source." if published else ""
    return Table(header=header, rows=rows, note=note)


def _published(score: PublishedScore | None) -> str:
    if score is None:
        return "-"
    return f"{score.value:.1%}" + ("" if score.metric == "accuracy" else f" ({score.metric})")


def _class_bars(result: ResultFile) -> Bars:
    targets, correct = result.outcomes.targets, result.outcomes.correct
    counts = torch.bincount(targets, minlength=len(result.classnames))
    shares = torch.bincount(targets, weights=correct.double(), minlength=len(counts)) / counts  # NaN without a picture
    order = sorted(counts.nonzero()[:, 0].tolist(), key=lambda number: (-shares[number].item(), number))
    shown = order if len(order) <= _ALL_UP_TO else [*order[:_BEST], *order[-_WORST:]]
    note = "" if shown == order else f"The {_BEST} best and the {_WORST} worst of {len(order):,}."
    return Bars(
        title=result.title,
        note=note,
        bars=[(result.classnames[number], shares[number].item()) for number in shown],
    )


def _reliability(result: ResultFile) -> ReliabilityPlot:
    found = reliability(result.outcomes.confidences, result.outcomes.correct)
    return ReliabilityPlot(
        title=result.title,
        note=(
            f"Mean confidence {found.confidence:.1%}, accuracy {found.accuracy:.1%}, expected calibration error "
            f"{found.expected_error:.1%} ({len(found.bins)} bins)."
        ),
        points=[(some.confidence, some.accuracy, some.rows) for some in found.bins if some.rows],
    )


def _failures(result: ResultFile, data: LabelledImages, count: int, several: bool) -> list[Prediction]:
    outcomes = result.outcomes
    wrong = (~outcomes.correct).nonzero()[:, 0]
    surest = wrong[outcomes.confidences[wrong].argsort(descending=True, stable=True)][:count].tolist()
    where = f" ({result.title})" if several else ""
    return [
        Prediction(
            picture=data.open(int(outcomes.positions[row])),
            truth=result.classnames[int(outcomes.targets[row])] + where,
            guesses=((result.classnames[int(outcomes.predictions[row])], outcomes.confidences[row].item()),),
        )
        for row in surest
    ]


def _confusions(result: ResultFile, data: LabelledImages, count: int, several: bool) -> list[Confusion]:
    """The most frequent pairs of truth and guess, with a picture that was taken for the other, and one of the other."""
    outcomes = result.outcomes
    taken = [
        (int(outcomes.targets[row]), int(outcomes.predictions[row]), row)
        for row in (~outcomes.correct).nonzero()[:, 0].tolist()
    ]
    first_of = {int(target): row for row, target in reversed(list(enumerate(outcomes.targets)))}
    example = {(truth, guess): row for truth, guess, row in reversed(taken)}
    pairs = Counter((truth, guess) for truth, guess, _ in taken if truth != guess and guess in first_of)
    where = f", {result.title}" if several else ""
    return [
        (
            f"{result.classnames[truth]} ({times}{where})",
            data.open(int(outcomes.positions[example[truth, guess]])),
            result.classnames[guess],
            data.open(int(outcomes.positions[first_of[guess]])),
        )
        for (truth, guess), times in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:count]
    ]


def _conditions(results: Sequence[ResultFile]) -> dict[str, str]:
    first = results[0].values
    machine, versions = first.get("hardware", {}), first.get("versions", {})
    data = "; ".join(f"{result.title} {result.data_sha256[:12]}" for result in results)
    prompts = {
        result.title: ", ".join(templates[:3]) + (f" and {len(templates) - 3} more" if len(templates) > 3 else "")
        for result in results
        if (templates := result.values.get("templates"))
    }
    skipped = sum(sum(result.values.get("skipped", {}).values()) for result in results)
    found = {
        "model": f"{results[0].model}, fingerprint {results[0].fingerprint[:12]}",
        "data, SHA-256": data,
        "prompts": "; ".join(f"{name}: {some}" for name, some in prompts.items()),
        "pictures left out": f"{skipped:,}, as they could not be read",
        "ties": "count against the model",
        "interval": "95% bootstrap over pictures",
        "seed": ", ".join(sorted({str(result.values["seed"]) for result in results if "seed" in result.values})),
        "hardware": f"{machine.get('cpu')}, {machine.get('cores')} cores" if machine else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: value for name, value in found.items() if value}
