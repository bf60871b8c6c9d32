"""Zero-shot classification scored from features that are there: how often it is right, and how far its probabilities
can be trusted.

A temperature and a threshold for "none of these" are chosen on one half of the pictures and measured on the other.

Source: CLIP, arXiv:2103.00020, sections 3.1.2 and 3.1.4. Letters: B, C, D, N, T.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.classify import Encoder, check_features
from diptych.errors import DataError, ShapeError
from diptych.eval.picture_features import PictureFeatures, encode_pictures
from diptych.measures.calibration import (
    RejectThreshold,
    accuracy_with_rejection,
    choose_threshold,
    fit_temperature,
    reliability,
)
from diptych.measures.linear_probe import halves
from diptych.measures.metrics import Interval, bootstrap_interval, mean_per_class, top_k_correct
from diptych.sets.labelled import LabelledImages
from diptych.torch_runtime import generator

_ROWS_AT_ONCE = 8192  # of the [N, C] scores
_LOGITS_TO_FIT = 1 << 21  # 16 MiB of them in float64, gone over sixty times
_UNKNOWN = 5  # one class of so many is taken for unknown

Classifier = Callable[[Tensor, Tensor], Tensor]  # features [N, D] and weights [C, D] to [N, C]


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """The pictures of a labelled set as features, without those that could not be read."""

    image_features: Tensor  # [N, D], of unit length from `encode_labelled`
    targets: Tensor  # [N] int64, on the CPU
    kept: tuple[int, ...]  # N positions in the labelled set
    skipped: Mapping[str, int]  # pictures left out, by cause


@dataclass(frozen=True, kw_only=True, eq=False)
class ZeroShotScores:
    """Shares between 0 and 1. Ties count against the model."""

    top1: float
    top5: float | None  # absent up to five classes, where it is 1 by its meaning
    mean_per_class: float
    interval: Interval  # of top1, over pictures
    classes: int
    images: int  # that were scored
    skipped: Mapping[str, int]  # pictures that could not be read, by cause; not among `images`
    templates: tuple[str, ...]
    predictions: Tensor  # [N] int64; of classes that tie the first, even where `top1` counts a miss
    targets: Tensor  # [N] int64
    correct: Tensor  # [N] bool
    correct5: Tensor  # [N] bool, whether the class is among the five best
    confidences: Tensor | None  # [N] float32, the highest probability; absent where nobody asked for it

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the arrays."""
        arrays = ("predictions", "targets", "correct", "correct5", "confidences")
        values = {name: value for name, value in vars(self).items() if name not in arrays}
        return values | {
            "interval": asdict(self.interval),
            "skipped": dict(self.skipped),
            "templates": list(self.templates),
        }


@torch.no_grad()
def encode_labelled(encoder: Encoder, data: LabelledImages, *, batch_size: int = 256) -> LabelledFeatures:
    """Pictures of a labelled set to features. A picture that cannot be read is counted by its cause and left out.

    Raises:
        DataError: no picture can be read.
    """
    return with_targets(encode_pictures(encoder.encode_images, data, batch_size=batch_size), data)


def with_targets(encoded: PictureFeatures, data: LabelledImages) -> LabelledFeatures:
    """Features of a labelled set's pictures, e.g. from a cache, with the classes that belong to them."""
    targets = torch.tensor(data.targets[list(encoded.kept)])
    return LabelledFeatures(encoded.image_features, targets, encoded.kept, encoded.skipped)


@torch.no_grad()
def score_zero_shot(
    image_features: Tensor,
    targets: Tensor | np.ndarray,
    weights: Tensor,
    *,
    probabilities: Callable[[Tensor, Tensor], Tensor] | None = None,
    templates: Sequence[str] = (),
    skipped: Mapping[str, int] | None = None,
    seed: int = 0,
) -> ZeroShotScores:
    """Accuracy from features that are there already.

    Args:
        image_features: [N, D], unit length.
        targets: [N], class numbers from 0 to C - 1.
        weights: [C, D], as `class_weights` gives them.
        probabilities: from features [N, D] and weights [C, D] to [N, C], where the result shall say how sure the model
            was.
        templates: that made the weights, for the record.
        skipped: pictures that have no feature, by cause, for the record.
        seed: of the interval.

    Raises:
        ShapeError: the three do not fit.
        DataError: there is no picture, or a target is no class.
    """
    targets = torch.tensor(targets) if isinstance(targets, np.ndarray) else targets.cpu()
    if targets.shape != image_features.shape[:1]:
        raise ShapeError(
            f"image_features {list(image_features.shape)} and targets {list(targets.shape)} must be [N, D] and [N]."
        )
    check_features(image_features, weights)
    has_top5 = len(weights) > 5
    first, fifth, predictions, confidences = [], [], [], []
    for rows, labels in zip(image_features.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
        scores = rows.to(weights) @ weights.T  # [rows, C]; scale and bias change no order
        first.append(top_k_correct(scores, labels, 1).cpu())
        fifth.append(top_k_correct(scores, labels, 5).cpu() if has_top5 else torch.ones_like(first[-1]))
        predictions.append(scores.argmax(dim=1).cpu())
        if probabilities:
            confidences.append(probabilities(rows.to(weights), weights).amax(dim=1).float().cpu())
    correct, correct5 = torch.cat(first), torch.cat(fifth)  # [N]
    return ZeroShotScores(
        top1=correct.double().mean().item(),
        top5=correct5.double().mean().item() if has_top5 else None,
        mean_per_class=mean_per_class(correct, targets),
        interval=bootstrap_interval(correct, seed=seed),
        classes=len(weights),
        images=len(correct),
        skipped=dict(skipped or {}),
        templates=tuple(templates),
        predictions=torch.cat(predictions),
        targets=targets,
        correct=correct,
        correct5=correct5,
        confidences=torch.cat(confidences) if confidences else None,
    )


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Of a softmax over the classes; the errors (ECE) are of the half that it was not fitted on."""

    value: float
    error_before: float  # of the model's own probabilities
    error_after: float
    fitted_on: int  # pictures
    measured_on: int


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """What happens to pictures of classes that the model was not told of: a fifth of them were taken away."""

    unknown: int  # classes taken away, drawn with the seed
    threshold: RejectThreshold  # of the highest probability
    accuracy: float  # of the other half, "none of these" being an answer as well
    measured_on: int


def temperature_of(
    logits: Classifier, encoded: LabelledFeatures, weights: Tensor, confidences: Tensor, correct: Tensor, *, seed: int
) -> Temperature | None:
    """The temperature, and what it does to the calibration error; None where no class has two pictures.

    Args:
        logits: of the model.
        encoded: N pictures.
        weights: [C, D].
        confidences: [N], the highest probability that the model gives.
        correct: [N] bool.
        seed: of the halves.
    """
    try:
        fit, rest = halves(encoded.targets, seed=seed)
    except DataError:
        return None
    fit = fit[:: -(-len(fit) * len(weights) // _LOGITS_TO_FIT)]
    value = fit_temperature(logits(encoded.image_features[fit], weights).cpu(), encoded.targets[fit])
    parts = [
        torch.softmax(logits(encoded.image_features[rows], weights) / value, dim=1).amax(dim=1).cpu()
        for rows in rest.split(_ROWS_AT_ONCE)
    ]
    return Temperature(
        value=value,
        error_before=reliability(confidences[rest], correct[rest]).expected_error,
        error_after=reliability(torch.cat(parts), correct[rest]).expected_error,
        fitted_on=len(fit),
        measured_on=len(rest),
    )


def rejection_of(chances: Classifier, encoded: LabelledFeatures, weights: Tensor, *, seed: int) -> Rejection | None:
    """What a threshold on the highest probability makes of unknown classes; None where there are too few classes.

    Args:
        chances: features and class weights to probabilities.
        encoded: N pictures.
        weights: [C, D].
        seed: of the classes that are taken away, and of the halves.
    """
    classes = len(weights)
    away = torch.randperm(classes, generator=generator(seed))[: max(1, classes // _UNKNOWN)]
    if classes - len(away) < 2:
        return None
    is_known = torch.ones(classes, dtype=torch.bool)
    is_known[away] = False
    number = torch.where(is_known, is_known.long().cumsum(0) - 1, -1)  # among the known classes
    targets = number[encoded.targets]
    known = weights[is_known.to(weights.device)]
    try:
        fit, rest = halves(encoded.targets, seed=seed)
        best = torch.cat(
            [
                chances(encoded.image_features[rows], known).amax(dim=1).float().cpu()
                for rows in fit.split(_ROWS_AT_ONCE)
            ]
        )
        threshold = choose_threshold(best, targets[fit] >= 0)
    except DataError:  # no class with two pictures, or pictures of one sort alone
        return None
    accuracy = accuracy_with_rejection(chances(encoded.image_features[rest], known).cpu(), targets[rest], threshold)
    return Rejection(unknown=len(away), threshold=threshold, accuracy=accuracy, measured_on=len(rest))
