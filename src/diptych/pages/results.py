"""Result files as a report: one table against published figures, then classes, failures and reliability, set by set."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from diptych.errors import DataError
from diptych.eval.outcomes import ResultFile, RetrievalFile, counted
from diptych.eval.published_scores import PublishedScore, published_score
from diptych.measures.calibration import reliability
from diptych.pages.page import Bars, Confusion, Headline, Prediction, ReliabilityPlot, ReportPage
from diptych.pages.page import PageTable as Table
from diptych.sets.labelled import LabelledImages

ZERO_SHOT, PROBE = "zero-shot", "linear-probe"
_WAYS = (("image_to_text", "picture to texts"), ("text_to_image", "text to pictures"))
_ALL_UP_TO = 16  # classes; of more, the worst and the best
_WORST, _BEST = 11, 5


def results_page(
    results: Sequence[ResultFile],
    sets: Mapping[str, LabelledImages],
    retrievals: Sequence[RetrievalFile] = (),
    *,
    failures: int = 3,
    confusions: int = 2,
) -> ReportPage:
    """Lay out the results of one model.

    Zero-shot and linear probe of a set share a row; classes, failures, confusions and reliability are those of
    zero-shot, or of the probe where it is alone.

    Args:
        results: of `read_results`, of one model.
        sets: the labelled sets by the results' titles, for pictures; sets that are missing are shown without.
        retrievals: of `read_retrievals`, of the same model.
        failures: pictures of each set that were named wrong, the surest first.
        confusions: pairs of classes of each set that are taken for one another most often.

    Raises:
        DataError: there is no result, results are of several models or come twice, or a set is not the one that was
            measured.
    """
    models = {result.fingerprint: result.model for result in (*results, *retrievals)}
    if len(models) != 1:
        raise DataError(f"A report is of one model. Got results of {len(models)}: {', '.join(models.values()) or '-'}.")
    [model] = models.values()
    by_title: dict[str, dict[str, ResultFile]] = {}
    for result in results:
        if (data := sets.get(result.title)) and (
            data.classnames != result.labels or len(data) <= result.outcomes.positions.max()
        ):
            raise DataError(f"{result.path} must be of the pictures in {data.name}. It is not: has the set changed?")
        of_set = by_title.setdefault(result.title, {})
        if result.task in of_set:
            raise DataError(f"{result.path} and {of_set[result.task].path} must be of two sets. Both: {result.title}.")
        of_set[result.task] = result
    shown = [of_set.get(ZERO_SHOT) or next(iter(of_set.values())) for of_set in by_title.values()]
    probes = {title: of_set[PROBE] for title, of_set in by_title.items() if PROBE in of_set}
    pictured = [(result, sets[result.title]) for result in shown if result.title in sets]
    several = len(shown) > 1
    return ReportPage(
        title=model,
        summary=_summary(shown, retrievals),
        headline=_headline(shown, probes, retrievals),
        table=_table(shown, probes) if shown else None,
        retrieval_table=_retrieval_table(retrievals) if retrievals else None,
        bars=[_class_bars(result) for result in shown],
        reliability=[_reliability(result) for result in shown],
        wrong=[one for pair in pictured for one in _failures(*pair, failures, several)],
        confusions=[one for pair in pictured for one in _confusions(*pair, confusions, several)],
        conditions=_conditions(shown, retrievals),
    )


def _summary(shown: Sequence[ResultFile], retrievals: Sequence[RetrievalFile]) -> str:
    parts: list[str] = []
    if shown:
        where = f"{len(shown)} data sets" if len(shown) > 1 else shown[0].title
        parts.append(f"Zero-shot on {where}, {_count(shown):,} pictures: class names alone.")
    if retrievals:
        where = ", ".join(one.title for one in retrievals)
        parts.append(f"Retrieval on {where}: pictures and texts find each other.")
    return " ".join(parts)


def _headline(
    shown: Sequence[ResultFile], probes: Mapping[str, ResultFile], retrievals: Sequence[RetrievalFile]
) -> list[Headline]:
    found: list[Headline] = []
    of_words = [result.values["top1"] for result in shown if result.task == ZERO_SHOT]
    of_probes = [result.values["top1"] for result in probes.values()]
    for name, scores in (("top-1", of_words), ("linear probe top-1", of_probes)):
        if scores:
            several = len(scores) > 1
            label, note = (f"mean {name}", f"of {len(scores)} sets") if several else (name, "")
            found.append((label, f"{sum(scores) / len(scores):.1%}", note))
    for one in retrievals:
        ways = (one.values[way]["recall"]["1"] for way, _ in _WAYS)
        found.append((f"recall@1, {one.title}", " / ".join(f"{share:.1%}" for share in ways), "of texts / of pictures"))
    return found


def _count(results: Sequence[ResultFile]) -> int:
    return sum(len(result.outcomes.targets) for result in results)


def _table(shown: Sequence[ResultFile], probes: Mapping[str, ResultFile]) -> Table:
    kinds = ["zero_shot", "rerun", *(["linear_probe"] if probes else [])]
    found = [
        [published_score(result.model, result.data, kind) if result.split == "test" else None for result in shown]
        for kind in kinds
    ]
    published = [column for column in found if any(column)]
    header = ["data", "pictures", "classes", "top-1", "95% interval", "mean per class", "calibration error"]
    header += ["linear probe", "95% interval"] if probes else []
    header += [next(one.source for one in column if one) for column in published]
    rows = []
    for number, result in enumerate(shown):
        outcomes = result.outcomes
        error = reliability(outcomes.confidences, outcomes.correct).expected_error
        of_words = result.task == ZERO_SHOT
        cells = [*_score(result), f"{result.values['mean_per_class']:.1%}", f"{error:.1%}"] if of_words else ["-"] * 4
        probe = probes.get(result.title)
        rows.append(
            [
                result.title,
                f"{len(outcomes.targets):,}",
                f"{len(result.classnames):,}",
                *cells,
                *((_score(probe) if probe else ["-", "-"]) if probes else []),
                *(_published(column[number]) for column in published),
            ]
        )
    note = "Published figures hold on the whole test set and with the prompts of their source." if published else ""
    return Table(header=header, rows=rows, note=note)


def _score(result: ResultFile) -> list[str]:
    interval = result.values["interval"]
    return [f"{result.values['top1']:.1%}", f"{interval['low']:.1%} to {interval['high']:.1%}"]


def _retrieval_table(retrievals: Sequence[RetrievalFile]) -> Table:
    header, rows = ["data", "queries", "among", "recall@1", "95% interval", "recall@5", "recall@10", "median rank"], []
    for result in retrievals:
        for way, title in _WAYS:
            found = result.values[way]
            recall, interval = found["recall"], found["intervals"]["1"]
            rows.append(
                [
                    f"{result.title}: {title}",
                    f"{found['queries']:,}",
                    f"{found['candidates']:,}",
                    f"{recall['1']:.1%}",
                    f"{interval['low']:.1%} to {interval['high']:.1%}",
                    *(f"{recall[k]:.1%}" if k in recall else "-" for k in ("5", "10")),
                    f"{found['median_rank']:g}",
                ]
            )
    return Table(header=header, rows=rows, note="A query counts once, however many of its matches are found.")


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


def _conditions(results: Sequence[ResultFile], retrievals: Sequence[RetrievalFile]) -> dict[str, str]:
    everything = [*results, *retrievals]
    first = everything[0].values
    machine, versions = first.get("hardware", {}), first.get("versions", {})
    data = {result.title: result.data_sha256[:12] for result in everything}
    prompts = {
        result.title: ", ".join(templates[:3]) + (f" and {len(templates) - 3} more" if len(templates) > 3 else "")
        for result in everything
        if (templates := result.values.get("templates"))
    }
    skipped = sum(counted(result.values.get("skipped", {})) for result in everything)
    found = {
        "model": f"{everything[0].model}, fingerprint {everything[0].fingerprint[:12]}",
        "data, SHA-256": "; ".join(f"{title} {sha256}" for title, sha256 in data.items()),
        "prompts": "; ".join(f"{name}: {some}" for name, some in prompts.items()),
        "pictures left out": f"{skipped:,}, as they could not be read",
        "ties": "count against the model",
        "interval": "95% bootstrap over pictures",
        "seed": ", ".join(sorted({str(result.values["seed"]) for result in everything if "seed" in result.values})),
        "precision": ", ".join(sorted({result.values.get("precision", "") for result in everything} - {""})),
        "hardware": f"{machine.get('cpu')}, {machine.get('cores')} cores" if machine else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: value for name, value in found.items() if value}
