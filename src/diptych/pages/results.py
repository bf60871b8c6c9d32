"""Results as a report: one table of all kinds against published figures, then classes, failures and reliability."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from diptych.errors import DataError
from diptych.eval.published_scores import PublishedScore, published_score
from diptych.eval.result import Result, Rows
from diptych.eval.result_tables import percent, retrieval_table, span
from diptych.eval.shift import robustness
from diptych.measures.calibration import reliability
from diptych.pages.page import Bars, Confusion, Headline, PageTable, Prediction, ReliabilityPlot, ReportPage
from diptych.sets.digest import digest
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled

_ALL_UP_TO = 16  # classes; of more, the worst and the best
_WORST, _BEST = 11, 5
_SUREST = (1.0, 0.9, 0.75, 0.5, 0.25)  # shares of the pictures that are answered


def measured_pictures(results: Sequence[Result], data: Path) -> tuple[dict[str, LabelledImages], list[str]]:
    """The labelled sets of results, where they are as they were measured.

    Args:
        results: of any kind; those without pictures of one class each are passed over.
        data: a folder of sets, DATA/NAME, or one set itself.

    Returns:
        The sets by the titles of their data, and the titles of those that are not there or have changed.
    """
    found: dict[str, LabelledImages] = {}
    absent: list[str] = []
    for one in results:
        title = one.data.title
        if one.kind != "classification" or title in found or title in absent:
            continue
        folders = [folder for folder in (data / one.data.name, data) if folder.is_dir()]
        folder = next((folder for folder in folders if digest(folder, one.data.split) == one.data.sha256), None)
        if folder:
            found[title] = read_labelled(folder, split=one.data.split)
        else:
            absent.append(title)
    return found, absent


def results_page(
    results: Sequence[Result],
    sets: Mapping[str, LabelledImages],
    *,
    failures: int = 3,
    confusions: int = 2,
) -> ReportPage:
    """Lay out the results of one model.

    Zero-shot and linear probe of a set share a row; classes, failures, confusions and reliability are those of
    zero-shot, or of the probe where it is alone.

    Args:
        results: of one model, of any kind.
        sets: the labelled sets by the titles of their data, for pictures; sets that are missing are shown without.
        failures: pictures of each set that were named wrong, the surest first.
        confusions: pairs of classes of each set that are taken for one another most often.

    Raises:
        DataError: there is no result, results are of several models or come twice, or a set is not the one that was
            measured.
    """
    models = {one.model.fingerprint: one.model.name for one in results}
    if len(models) != 1:
        raise DataError(f"A report is of one model. Got results of {len(models)}: {', '.join(models.values()) or '-'}.")
    by_set: dict[str, dict[str, Result]] = {}
    for one in results:
        data = sets.get(one.data.title)
        if data and (data.classnames != one.prompts.labels or not set(one.rows.keys) <= set(data.keys)):
            raise DataError(f"{one.title} must be of the pictures in {data.name}. It is not: has the set changed?")
        of_set = by_set.setdefault(one.data.title, {})
        if one.measurement in of_set:
            raise DataError(f"A report shows {one.title} once. There are two results of it: remove one of the files.")
        of_set[one.measurement] = one
    retrievals = [one for one in results if one.retrieval]
    of_sets = [some for some in by_set.values() if "retrieval" not in some]
    shown = [some.get("zero-shot") or next(iter(some.values())) for some in of_sets]
    named = [one for one in shown if one.rows.predictions is not None]
    pictured = [(one, sets[one.data.title]) for one in named if one.data.title in sets]
    several = len(named) > 1
    return ReportPage(
        title=next(iter(models.values())),
        summary=_summary(shown, retrievals),
        headline=_headline(results),
        table=_table(of_sets, shown) if shown else None,
        retrieval_table=_retrieval_table(retrievals) if retrievals else None,
        bars=[_class_bars(one) for one in named],
        reliability=[_reliability(one) for one in named],
        rejection=_rejection(named) if named else None,
        wrong=[one for pair in pictured for one in _failures(*pair, failures, several)],
        confusions=[one for pair in pictured for one in _confusions(*pair, confusions, several)],
        conditions=_conditions(results),
    )


def _summary(shown: Sequence[Result], retrievals: Sequence[Result]) -> str:
    parts: list[str] = []
    if shown:
        where = f"{len(shown)} data sets" if len(shown) > 1 else shown[0].data.title
        parts.append(f"Zero-shot on {where}, {sum(one.n for one in shown):,} rows: words alone.")
    if retrievals:
        where = ", ".join(one.data.title for one in retrievals)
        parts.append(f"Retrieval on {where}: pictures and texts find each other.")
    return " ".join(parts)


def _headline(results: Sequence[Result]) -> list[Headline]:
    found: list[Headline] = []
    for name, measurement in (("zero-shot", "zero-shot"), ("linear probe", "linear-probe")):
        some = [one for one in results if one.measurement == measurement]
        if len(some) > 1:
            mean = sum(one.value for one in some) / len(some)
            found.append((f"mean {name}", percent(mean, 1), f"of {len(some)} sets, each by its metric"))
        elif some:
            found.append((name, percent(some[0].value, 1), some[0].metric))
    for one in results:
        if one.retrieval:
            ways = (one.retrieval.image_to_text, one.retrieval.text_to_image)
            shares = " / ".join(percent(way.recall[1], 1) for way in ways)
            found.append((f"recall@1, {one.data.title}", shares, "of texts / of pictures"))
    means = robustness({"": results})[1].values()
    note = "points, mean of seven natural shifts"
    return found + [("effective robustness", f"{100 * mean.effective:+.1f}", note) for mean in means]


def _table(of_sets: Sequence[Mapping[str, Result]], shown: Sequence[Result]) -> PageTable:
    has_probes = any("linear-probe" in some for some in of_sets)
    shifts = {one.data: one for one in robustness({"": shown})[0]}  # by the row of the table of tasks
    kinds = ["zero_shot", "rerun", *(["linear_probe"] if has_probes else [])]
    found = [
        [published_score(one.model.name, one.data.name, kind) if one.data.split == "test" else None for one in shown]
        for kind in kinds
    ]
    published = [column for column in found if any(column)]
    header = ["data", "kind", "metric", "n", "classes", "zero-shot", "95% interval", "others", "calibration error"]
    header += ["linear probe", "95% interval"] if has_probes else []
    header += ["effective robustness"] if shifts else []
    header += [next(one.source for one in column if one) for column in published]
    rows = []
    for number, (some, one) in enumerate(zip(of_sets, shown, strict=True)):
        zero_shot, probe = some.get("zero-shot"), some.get("linear-probe")
        shift = shifts.get(one.task.replace("_", "-"))
        rows.append(
            [
                *(one.data.title, one.kind, _metrics(some), f"{one.n:,}"),
                f"{len(one.prompts.labels):,}" if one.prompts.labels else "-",
                *_score(zero_shot),
                _others(zero_shot),
                percent(zero_shot.reliability.expected_error, 1) if zero_shot and zero_shot.reliability else "-",
                *(_score(probe) if has_probes else []),
                *([f"{100 * shift.effective:+.1f}" if shift else "-"] if shifts else []),
                *(_published(column[number]) for column in published),
            ]
        )
    note = "Published figures hold on the whole test set and with the prompts of their source. " if published else ""
    if shifts:
        note += (
            "Effective robustness: points beyond what published models have that are as good on ImageNet, on the "
            "classes of the set."
        )
    return PageTable(header=header, rows=rows, note=note.strip())


def _metrics(some: Mapping[str, Result]) -> str:
    return " / ".join(dict.fromkeys(one.metric for one in some.values()))


def _score(result: Result | None) -> list[str]:
    return [percent(result.value, 1), span(result.interval, 1)] if result else ["-", "-"]


def _others(result: Result | None) -> str:
    numbers = result.other_numbers if result else {}
    return ", ".join(f"{name} {value:.1%}" for name, value in numbers.items()) or "-"


def _retrieval_table(retrievals: Sequence[Result]) -> PageTable:
    header, rows = retrieval_table(retrievals)
    return PageTable(
        header=["data", *header[1:]], rows=rows, note="A query counts once, however many of its matches are found."
    )


def _published(score: PublishedScore | None) -> str:
    if score is None:
        return "-"
    return f"{score.value:.1%}" + ("" if score.metric == "accuracy" else f" ({score.metric})")


def _columns(rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Targets, predictions, right or wrong, confidences, each [n], of a classifier."""
    columns = (rows.targets, rows.predictions, rows.correct, rows.confidences)
    targets, predictions, correct, confidences = (column for column in columns if column is not None)
    return targets, predictions, correct, confidences


def _class_bars(result: Result) -> Bars:
    targets, _, correct, _ = _columns(result.rows)
    names = result.prompts.names
    counts = torch.bincount(targets, minlength=len(names))
    shares = torch.bincount(targets, weights=correct.double(), minlength=len(counts)) / counts  # NaN without a picture
    order = sorted(counts.nonzero()[:, 0].tolist(), key=lambda number: (-shares[number].item(), number))
    shown = order if len(order) <= _ALL_UP_TO else [*order[:_BEST], *order[-_WORST:]]
    note = "" if shown == order else f"The {_BEST} best and the {_WORST} worst of {len(order):,}."
    return Bars(
        title=result.data.title,
        note=note,
        bars=[(names[number], shares[number].item()) for number in shown],
    )


def _reliability(result: Result) -> ReliabilityPlot:
    _, _, correct, confidences = _columns(result.rows)
    found = result.reliability or reliability(confidences, correct)
    note = (
        f"Mean confidence {found.confidence:.1%}, accuracy {found.accuracy:.1%}, expected calibration error "
        f"{found.expected_error:.1%} ({len(found.bins)} bins)."
    )
    if heat := result.temperature:
        note += (
            f" A temperature of {heat.value:.3g}, fitted on half of the pictures, takes the error from "
            f"{heat.error_before:.1%} to {heat.error_after:.1%} on the others."
        )
    return ReliabilityPlot(
        title=result.data.title,
        note=note,
        points=[(some.confidence, some.accuracy, some.rows) for some in found.bins if some.rows],
    )


def _rejection(named: Sequence[Result]) -> PageTable:
    """Accuracy of the surest answers, and what happens to classes that the model was not told of."""
    rows = []
    for one in named:
        _, _, correct, confidences = _columns(one.rows)
        surest = correct[confidences.argsort(descending=True, stable=True)].double()
        curve = [surest[: max(1, round(share * len(surest)))].mean().item() for share in _SUREST]
        far = one.rejection
        of_unknown = (f"{far.unknown:,}", f"{far.threshold.auc:.3f}", percent(far.accuracy, 1)) if far else "---"
        rows.append([one.data.title, *(percent(right, 1) for right in curve), *of_unknown])
    header = ["data", *(f"right of the surest {share:.0%}" for share in _SUREST)]
    return PageTable(
        header=[*header, "unknown classes", "AUC", 'right with "none of these"'],
        rows=rows,
        note=(
            "The surest answers are those of the highest probability. Classes are made unknown by taking away a fifth "
            "of the names; AUC says how well the highest probability tells their pictures from the rest."
        ),
    )


def _failures(result: Result, data: LabelledImages, count: int, several: bool) -> list[Prediction]:
    targets, predictions, correct, confidences = _columns(result.rows)
    wrong = (~correct).nonzero()[:, 0]
    surest = wrong[confidences[wrong].argsort(descending=True, stable=True)][:count].tolist()
    where, names = f" ({result.data.title})" if several else "", result.prompts.names
    number = {key: index for index, key in enumerate(data.keys)}
    return [
        Prediction(
            picture=data.open(number[result.rows.keys[row]]),
            truth=names[int(targets[row])] + where,
            guesses=((names[int(predictions[row])], confidences[row].item()),),
        )
        for row in surest
    ]


def _confusions(result: Result, data: LabelledImages, count: int, several: bool) -> list[Confusion]:
    """The most frequent pairs of truth and guess, with a picture that was taken for the other, and one of the other."""
    targets, predictions, correct, _ = _columns(result.rows)
    taken = [(int(targets[row]), int(predictions[row]), row) for row in (~correct).nonzero()[:, 0].tolist()]
    first_of = {int(target): row for row, target in reversed(list(enumerate(targets)))}
    example = {(truth, guess): row for truth, guess, row in reversed(taken)}
    pairs = Counter((truth, guess) for truth, guess, _ in taken if truth != guess and guess in first_of)
    where, names = f", {result.data.title}" if several else "", result.prompts.names
    number = {key: index for index, key in enumerate(data.keys)}
    return [
        (
            f"{names[truth]} ({times}{where})",
            data.open(number[result.rows.keys[example[truth, guess]]]),
            names[guess],
            data.open(number[result.rows.keys[first_of[guess]]]),
        )
        for (truth, guess), times in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:count]
    ]


def _conditions(results: Sequence[Result]) -> dict[str, str]:
    first = results[0]
    conditions = [one.conditions for one in results if one.conditions]
    machine, versions = (conditions[0].hardware, conditions[0].versions) if conditions else ({}, {})
    data = {one.data.title: one.data.sha256[:12] for one in results}
    prompts = {one.data.title: one.prompts.sentence for one in results}
    found = {
        "model": f"{first.model.name}, fingerprint {first.model.fingerprint[:12]}",
        "data, SHA-256": "; ".join(f"{title} {sha256}" for title, sha256 in data.items()),
        "prompts": "; ".join(f"{title}: {sentence}" for title, sentence in prompts.items()),
        "pictures left out": f"{sum(one.left_out for one in results):,}, as they could not be read",
        "ties": "count against the model",
        "interval": "95% bootstrap over rows",
        "seed": ", ".join(sorted({str(one.seed) for one in conditions})),
        "precision": ", ".join(sorted({one.precision for one in conditions})),
        "hardware": f"{machine.get('cpu')}, {machine.get('cores')} cores" if machine else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: value for name, value in found.items() if value}
