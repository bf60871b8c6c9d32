"""One measurement from features to what a result file holds: zero-shot, linear probe with few-shot curve, retrieval.

What a file says beside its numbers is in `conditions.py`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from diptych.data.prompts import fill
from diptych.errors import ConfigError, DataError
from diptych.eval.features import ModelFeatures, TrunkFeatures
from diptych.eval.outcomes import outcomes_of, result_outcomes
from diptych.eval.zero_shot import ZeroShotResult, score_zero_shot, with_targets
from diptych.measures.calibration import reliability
from diptych.measures.few_shot import Learner, few_shot_curve, probe_learner, shots_to_match, tip_adapter_learner
from diptych.measures.linear_probe import hold_out, train_linear_probe
from diptych.measures.logistic import Examples
from diptych.measures.metrics import bootstrap_interval, mean_per_class
from diptych.measures.retrieval import retrieval
from diptych.sets.captioned import CaptionedImages
from diptych.sets.labelled import LabelledImages

HELD_OUT_SHARE = 0.2  # of the training pictures, where there is no validation split
LearnerName = Literal["probe", "prompt-weights", "tip-adapter"]

Values = dict[str, Any]  # as a result file holds them
Labels = Sequence[str | Sequence[str]]  # one name or several for each class


def measure_zero_shot(
    features: ModelFeatures,
    data: LabelledImages,
    pictures: TrunkFeatures,
    *,
    templates: Sequence[str],
    labels: Labels | None = None,
    seed: int,
) -> Values:
    """Class names alone: accuracy, and what became of each picture.

    Args:
        features: of the model.
        data: the set.
        pictures: the set as features.
        templates: prompt templates.
        labels: the names of each class, if others than the set's.
        seed: of the interval.
    """
    result = _zero_shot(features, data, pictures, templates, labels, seed)
    outcomes = result_outcomes(result, pictures.kept)
    return result.to_dict() | {
        "reliability": reliability(outcomes.confidences, outcomes.correct).to_dict(),
        "classnames": first_names(labels or data.classnames),
        "labels": list(data.classnames),  # what the set calls them
        "pictures": outcomes.to_dict(),
    }


def _zero_shot(
    features: ModelFeatures,
    data: LabelledImages,
    pictures: TrunkFeatures,
    templates: Sequence[str],
    labels: Labels | None,
    seed: int,
) -> ZeroShotResult:
    bundle, encoded = features.bundle, with_targets(pictures, data)
    return score_zero_shot(
        encoded.image_features,
        encoded.targets,
        features.class_weights(labels or data.classnames, templates),
        probabilities=lambda cosines: bundle.probabilities(bundle.logits_of(cosines)),
        templates=templates,
        skipped=encoded.skipped,
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One split of a set, read and encoded."""

    data: LabelledImages
    pictures: TrunkFeatures


def measure_probe(
    features: ModelFeatures,
    train: Split,
    test: Split,
    validation: Split | None = None,
    *,
    templates: Sequence[str],
    labels: Labels | None = None,
    seed: int,
    shots: Sequence[int] = (),
    repeats: int = 10,
    learners: Sequence[LearnerName] = ("probe",),
) -> Values:
    """A linear classifier on frozen features, and zero-shot on the same pictures beside it.

    Args:
        features: of the model.
        train: to fit on.
        test: to measure on.
        validation: to choose the strength on; by default a fifth of each class of `train`.
        templates: prompt templates of the zero-shot score, and of learners that start from it.
        labels: the names of each class, if others than the set's.
        seed: of the validation pictures, the shots and the intervals.
        shots: numbers of examples a class for the few-shot curves; none makes no curve.
        repeats: draws for each number of shots.
        learners: of the curves: a linear probe; the same pulled to the zero-shot weights; zero-shot with a cache.

    Raises:
        DataError: splits differ in their classes, a class has no example, or too few for the shots.
    """
    splits = [train, test, *([validation] if validation else [])]
    check_same_classes([split.data for split in splits])
    fit_on, choose_on = _to_fit(train, validation, seed, trunk=True)
    probe, chosen = train_linear_probe(fit_on, choose_on)
    test_examples = test.pictures.examples(test.data)
    outcomes = outcomes_of(probe.scores(test_examples.features), test_examples.targets, test.pictures.kept)
    zero_shot = _zero_shot(features, test.data, test.pictures, templates, labels, seed)
    top1 = outcomes.correct.double().mean().item()
    few_shot: list[Values] = []
    for name in dict.fromkeys(learners) if shots else ():
        points = few_shot_curve(
            _learner(name, features, train, validation, templates, labels, seed),
            _to_fit(train, validation, seed, trunk=name == "probe")[0],
            test_examples if name == "probe" else test.pictures.projected_examples(test.data),
            seed=seed,
            shots=sorted(set(shots)),
            repeats=repeats,
        )
        few_shot += [{"learner": name} | asdict(point) for point in points]
    a_class = (len(fit_on.targets) + len(choose_on.targets)) / len(test.data.classnames)
    worth = _worth(few_shot, a_class, top1, zero_shot.top1)
    return {
        "top1": top1,
        "interval": asdict(bootstrap_interval(outcomes.correct, seed=seed)),
        "mean_per_class": mean_per_class(outcomes.correct, outcomes.targets),
        "classes": len(test.data.classnames),
        "images": len(outcomes.targets),
        "probe": {
            "l2": probe.l2,
            "loss": probe.loss,
            "converged": probe.converged,
            "tried": {f"{l2:.6g}": score for l2, score in chosen.tried.items()},
        },
        "templates": list(templates),
        "zero_shot": {"top1": zero_shot.top1, "interval": asdict(zero_shot.interval)},
        "few_shot": few_shot,
        "zero_shot_is_worth": worth if worth != float("inf") else None,
        "examples": {
            "train": len(fit_on.targets),
            "validation": len(choose_on.targets),
            "test": len(outcomes.targets),
            "a_class": a_class,
        },
        "skipped": {split.data.split: dict(split.pictures.skipped) for split in splits},
        "classnames": first_names(labels or test.data.classnames),
        "labels": list(test.data.classnames),
        "pictures": outcomes.to_dict(),
    }


def check_same_classes(splits: Sequence[LabelledImages]) -> None:
    """Raises DataError when splits of one set differ in their classes, as a probe needs them alike."""
    if len({split.classnames for split in splits}) > 1:
        names = ", ".join(split.split for split in splits)
        raise DataError(f"{names} of {splits[0].name} must have the same classes. They have not.")


def _to_fit(train: Split, validation: Split | None, seed: int, *, trunk: bool) -> tuple[Examples, Examples]:
    """Examples to fit on and to choose on: before the projection, or after it."""

    def examples(split: Split) -> Examples:
        return split.pictures.examples(split.data) if trunk else split.pictures.projected_examples(split.data)

    if validation:
        return examples(train), examples(validation)
    return hold_out(examples(train), share=HELD_OUT_SHARE, seed=seed)  # the same rows for both: it looks at targets


def _learner(
    name: LearnerName,
    features: ModelFeatures,
    train: Split,
    validation: Split | None,
    templates: Sequence[str],
    labels: Labels | None,
    seed: int,
) -> Learner:
    choose_on = _to_fit(train, validation, seed, trunk=name == "probe")[1]
    if name == "probe":
        return probe_learner(choose_on)
    weights, scale = features.class_weights(labels or train.data.classnames, templates), features.bundle.logit_scale
    if name == "prompt-weights":
        return probe_learner(choose_on, prior=scale * weights)
    if name == "tip-adapter":
        return tip_adapter_learner(weights, scale, choose_on)
    raise ConfigError(f"a learner must be probe, prompt-weights or tip-adapter. Got {name!r}.")


def _worth(few_shot: Sequence[Values], a_class: float, full: float, zero_shot: float) -> float | None:
    """Labelled pictures a class that the class names are worth, see `shots_to_match`; None without a probe's curve."""
    points = [
        (float(point["shots"]), point["mean"])
        for point in few_shot
        if point["learner"] == "probe" and point["shots"] < a_class
    ]
    return shots_to_match([*points, (a_class, full)], zero_shot) if points else None


def measure_retrieval(
    features: ModelFeatures, data: CaptionedImages, pictures: TrunkFeatures, *, template: str = "{}", seed: int
) -> Values:
    """Recall@1, 5 and 10, and the median rank, both ways.

    Args:
        features: of the model.
        data: the set.
        pictures: the set as features; captions of pictures that could not be read are left out with them.
        template: one prompt template, e.g. "a photo of {}".
        seed: of the intervals.
    """
    owners, texts = [], []
    for row, position in enumerate(pictures.kept):
        for caption in data.captions[position]:
            owners.append(row)
            texts += fill([template], caption)
    found = retrieval(pictures.image_features, features.texts(texts), torch.tensor(owners), seed=seed)
    return found.to_dict() | {
        "templates": [template],
        "images": len(pictures.kept),
        "texts": len(texts),
        "shortened": features.tokenizer.count_too_long(texts),  # texts that were cut
        "skipped": dict(pictures.skipped),
    }


def first_names(labels: Labels) -> list[str]:
    """One name for each class."""
    return [label if isinstance(label, str) else label[0] for label in labels]
