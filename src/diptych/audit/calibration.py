"""Is a model as sure as it is right, class by class, and does it know when nothing that it was told of is shown?

A threshold for "none of these" is chosen on half of the classes that are made unknown, and measured on the others.
Letters: n rows, C, D.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diptych.eval.chapter import Chapter, Contrast, contrasts_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import score_pictures
from diptych.eval.result import DataId, Result, Rows, interval_of, metric_of
from diptych.eval.tasks import Prompts
from diptych.measures.calibration import sureness_against_accuracy
from diptych.sets.labelled import LabelledImages
from diptych.torch_runtime import generator

UNKNOWN = 5  # one class of so many is taken for unknown
FALSE_ACCEPTS = (0.01, 0.05, 0.2)  # of unknown pictures, that a threshold shall let through at most
SUREST = (0.25, 0.5, 0.75)  # shares of the pictures, the surest first
SHOWN_CLASSES = 10
FEW = 5  # pictures of a class, below which nothing can be said of it


def calibration(
    features: ModelFeatures, pictures: LabelledImages, *, data: DataId | None = None, seed: int = 0
) -> Chapter:
    """How far the probabilities of a model on a labelled set can be trusted.

    Args:
        features: of the model.
        pictures: a labelled set.
        data: what the set is called in the results; its name and split by default.
        seed: of the classes that are made unknown, and of the intervals.

    Raises:
        DataError: no picture can be read.
    """
    encoded = features.pictures(pictures, data.sha256 if data else "")
    measured = score_pictures(features, pictures, encoded, seed=seed)
    data = data or measured.data
    rows, prompts = measured.rows, measured.prompts
    confidences, correct, targets = rows.confidences, rows.correct, rows.targets
    assert confidences is not None
    assert correct is not None
    assert targets is not None
    error = _number(data, "calibration error", "expected calibration error", rows, prompts, seed)
    by_sureness = confidences.argsort(descending=True, stable=True)
    surest = [
        _right_of(by_sureness[: max(1, round(share * len(rows)))], share, rows, data, prompts) for share in SUREST
    ]
    by_class = [
        (f"{name}: accuracy against confidence", sureness_against_accuracy(confidences[some], correct[some]))
        for number, name in enumerate(prompts.names)
        if len(some := (targets == number).nonzero()[:, 0]) >= FEW
    ]
    contrasts = contrasts_of(by_class)
    known = _open_set(features, encoded.image_features, targets, measured, data, seed)
    sure = confidences.mean().item()
    return Chapter(
        name="calibration",
        title="Is it as sure as it is right?",
        question="How far can its probabilities be trusted, and does it know what it was not told of?",
        sentences=(
            f"On {data.title} it is {100 * sure:.1f} % sure on average and right in {said(measured)}; its calibration "
            f"error is {said(error)}.",
            *_of_classes(contrasts),
            *(_sentence(result) for result in known),
        ),
        results=(error, *surest, *known),
        contrasts=tuple(sorted(contrasts, key=lambda one: one.corrected)[:SHOWN_CLASSES]),
        not_measured=tuple(_not_measured(len(prompts.names) - len(by_class), bool(known))),
        notes=(
            f"Contrasts are corrected over all {len(by_class):,} classes; the {SHOWN_CLASSES} furthest off are shown.",
            "A threshold holds for pictures as these: choose it on your own.",
        ),
        conditions={"unknown": f"one class of {UNKNOWN}, drawn with seed {seed}"},
    )


def _not_measured(few: int, has_unknown: bool) -> Iterator[str]:
    if few:
        yield f"{few:,} classes have fewer than {FEW} pictures that can be read: too few to say how sure it may be."
    if not has_unknown:
        yield '"None of these" needs at least four classes with pictures.'


def _number(data: DataId, asked: str, metric: str, rows: Rows, prompts: Prompts, seed: int) -> Result:
    return Result(
        measurement="audit",
        kind="classification",
        data=data,
        case={"asked": asked},
        metric=metric,
        value=metric_of(rows, metric),
        interval=interval_of(rows, metric, seed=seed),
        n=len(rows),
        prompts=prompts,
        rows=rows,
    )


def _right_of(some: Tensor, share: float, rows: Rows, data: DataId, prompts: Prompts) -> Result:
    chosen = rows.chosen(some.tolist())
    assert chosen.correct is not None
    case = {"asked": f"right of the surest {share:.0%}"}
    return share_of(chosen.keys, chosen.correct, data=data, case=case, prompts=prompts)


def _open_set(
    features: ModelFeatures, image_features: Tensor, targets: Tensor, measured: Result, data: DataId, seed: int
) -> list[Result]:
    """Classes taken away as if nobody had named them: does the highest probability tell their pictures from others?"""
    prompts, keys = measured.prompts, measured.rows.keys
    classes = len(prompts.classnames)
    away = torch.randperm(classes, generator=generator(seed))[: max(2, classes // UNKNOWN)]
    if classes - len(away) < 2:
        return []
    is_known = torch.ones(classes, dtype=torch.bool)
    is_known[away] = False
    told = [names for names, known in zip(prompts.classnames, is_known.tolist(), strict=True) if known]
    weights = features.class_weights(told, prompts.templates)
    logits = features.logits_per_image(image_features.to(weights), weights)
    chances = features.probabilities(logits).float().cpu()  # [n, C]
    best, number = chances.amax(dim=1), torch.where(is_known, is_known.long().cumsum(0) - 1, -1)[targets]
    inside, right = number >= 0, chances.argmax(dim=1) == number
    to_choose_on, unknown = torch.isin(targets, away[::2]), torch.isin(targets, away[1::2])
    if not (to_choose_on.any() and unknown.any() and inside.any()):
        return []
    rows = Rows(keys=keys, scores=best[:, None], targets=inside.long())
    found = [_number(data, "told from unknown classes", "ROC AUC", rows, prompts, seed)]
    for allowed in FALSE_ACCEPTS:
        threshold = _accepting(best[to_choose_on], allowed)
        accepted = best > threshold
        for asked, some, happened in (
            (f"unknown let through, {allowed:.0%} allowed", unknown, accepted),
            (f"known answered rightly, {allowed:.0%} of unknown allowed", inside, accepted & right),
        ):
            found.append(
                share_of(
                    [keys[row] for row in some.nonzero()[:, 0].tolist()],
                    happened[some],
                    data=data,
                    case={"asked": asked},
                    prompts=prompts,
                    numbers={"threshold": threshold},
                )
            )
    return found


def _accepting(unknown: Tensor, allowed: float) -> float:
    """The threshold above which at most a share of unknown pictures lies."""
    return unknown.sort(descending=True).values[int(allowed * len(unknown))].item()


def _sentence(result: Result) -> str:
    if result.metric == "ROC AUC":
        assert result.interval is not None
        return (
            f"Pictures of classes it was not told of are told from the others with an AUC of {result.value:.3f} "
            f"({result.interval.low:.3f} to {result.interval.high:.3f}); 0.5 is chance."
        )
    return f"{result.case['asked'].capitalize()}: {said(result)}."


def _of_classes(contrasts: Sequence[Contrast]) -> Iterator[str]:
    if not contrasts:
        return
    off = sorted((one for one in contrasts if one.is_significant), key=lambda one: one.comparison.difference)
    found = f"Of {len(contrasts):,} classes {len(off):,} are right less or more often than it is sure, beyond chance"
    too_sure = ", ".join(
        f"{one.name.split(':')[0]} ({100 * one.comparison.a:.0f} % sure, {100 * one.comparison.b:.0f} % right)"
        for one in off[:3]
        if one.comparison.difference < 0
    )
    yield f"{found}; too sure it is of {too_sure}." if too_sure else f"{found}."
