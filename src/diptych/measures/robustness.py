"""Robustness to natural distribution shift: effective robustness, worst frame of a clip, class subsets.

Accuracies are shares between 0 and 1. Sources: CLIP, arXiv:2103.00020, section 3.3; Taori et al., arXiv:2007.00644,
whose published table of results the trends were fitted to again (82 models of standard training). A fixed classifier
on a set of super-classes takes the best sub-class: `pooling.pool_scores`. Letters: N, C, F frames.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diptych.errors import DataError, ShapeError


@dataclass(frozen=True)
class Trend:
    """A straight line between the logits of two accuracies."""

    slope: float
    intercept: float

    def predict(self, accuracy: float) -> float:
        """Accuracy under shift that models of this accuracy usually have.

        Raises:
            DataError: the accuracy does not lie between 0 and 1.
        """
        return 1 / (1 + math.exp(-(self.slope * _logit(accuracy) + self.intercept)))


# From the accuracy on the set's classes of ImageNet to that on the set; the videos as the mean of pm-0 and pm-10.
TRENDS = {
    "imagenet-v2": Trend(0.932, -0.509),
    "imagenet-sketch": Trend(1.122, -2.440),
    "imagenet-a": Trend(2.065, -7.836),
    "imagenet-r": Trend(0.637, -2.110),
    "objectnet": Trend(0.997, -1.952),
    "imagenet-vid": Trend(0.552, -1.917),
    "youtube-bb": Trend(0.406, -1.704),
}
MEAN_TREND = Trend(0.862, -2.083)  # of the means over the seven; r2 = 0.961


def fit_trend(in_distribution: Sequence[float], shifted: Sequence[float]) -> Trend:
    """Least squares between the logits of the accuracies of models.

    Args:
        in_distribution: one accuracy a model.
        shifted: of the same models.

    Raises:
        ShapeError: the two differ in length.
        DataError: there are not two different accuracies, or one does not lie between 0 and 1.
    """
    if len(in_distribution) != len(shifted):
        raise ShapeError(
            f"A trend needs two accuracies of each model. Got {len(in_distribution)} in distribution and "
            f"{len(shifted)} under shift."
        )
    if len(set(in_distribution)) < 2:
        raise DataError("A trend needs models of at least two different accuracies.")
    x, y = ([_logit(accuracy) for accuracy in side] for side in (in_distribution, shifted))
    slope, intercept = np.polyfit(x, y, 1)
    return Trend(float(slope), float(intercept))


def effective_robustness(in_distribution: float, shifted: float, trend: Trend = MEAN_TREND) -> float:
    """Accuracy under shift beyond what the trend predicts from the accuracy in distribution.

    Raises:
        DataError: the accuracy in distribution does not lie between 0 and 1.
    """
    return shifted - trend.predict(in_distribution)


@dataclass(frozen=True, kw_only=True)
class NaturalShift:
    """Means over the sets; the paper's figures when all seven are there."""

    subset: float  # accuracy in distribution
    shifted: float
    predicted: float
    effective: float
    effective_by_set: Mapping[str, float]


def natural_shift(subset: Mapping[str, float], shifted: Mapping[str, float]) -> NaturalShift:
    """Effective robustness of one model on the seven sets.

    With fewer sets the mean trend does not hold: it was fitted to the means of all seven. Use `effective_robustness`
    with a set's own trend.

    Args:
        subset: accuracy on the classes of ImageNet that the set has, by the names of `TRENDS`.
        shifted: accuracy on the set; of the videos `mean_of_pm0_and_pm10`.

    Raises:
        DataError: a set is missing, is not known, or an accuracy does not lie between 0 and 1.
    """
    for accuracies in (subset, shifted):
        if set(accuracies) != set(TRENDS):
            raise DataError(
                f"The seven sets must all be there: {', '.join(TRENDS)}. Got {', '.join(accuracies) or 'none'}."
            )
    x, y = (math.fsum(accuracies.values()) / len(TRENDS) for accuracies in (subset, shifted))
    return NaturalShift(
        subset=x,
        shifted=y,
        predicted=MEAN_TREND.predict(x),
        effective=effective_robustness(x, y),
        effective_by_set={
            name: effective_robustness(subset[name], shifted[name], trend) for name, trend in TRENDS.items()
        },
    )


def pm_k_accuracy(correct: Tensor, anchor: Tensor, offset: Tensor, k: int) -> float:
    """Share of anchors of which every frame at most k away is right; pm-0 looks at the anchor alone.

    Source: Shankar et al., arXiv:1906.02168 (ImageNet-Vid-Robust and YTBB-Robust).

    Args:
        correct: [F] bool, of each frame, by the anchor's label.
        anchor: [F], number of the anchor a frame belongs to, from 0. A frame near two anchors comes twice.
        offset: [F], distance in frames from the anchor, with or without sign; 0 is the anchor itself.
        k: 0 or more. Frames within k that the set leaves out, as they show the thing no more, have no say.

    Raises:
        ShapeError: the three differ in F.
        DataError: an anchor does not have its own frame once.
    """
    if correct.ndim != 1 or not correct.shape == anchor.shape == offset.shape:
        shapes = f"correct {list(correct.shape)}, anchor {list(anchor.shape)} and offset {list(offset.shape)}"
        raise ShapeError(f"{shapes} must all be [F].")
    anchors = torch.bincount(anchor[offset == 0], minlength=int(anchor.max()) + 1 if len(anchor) else 0)
    if not len(anchors) or (anchors != 1).any():
        raise DataError("Each anchor must have one frame with offset 0, and anchors must be numbered from 0.")
    wrong_near = anchor[~correct.bool() & (offset.abs() <= k)]
    return 1 - len(wrong_near.unique()) / len(anchors)


def mean_of_pm0_and_pm10(correct: Tensor, anchor: Tensor, offset: Tensor) -> float:
    """How the two video sets count in CLIP's figures; arguments and errors are those of `pm_k_accuracy`."""
    return (pm_k_accuracy(correct, anchor, offset, 0) + pm_k_accuracy(correct, anchor, offset, 10)) / 2


def class_subset(scores: Tensor, targets: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Rows of some classes only, told apart among these classes only.

    A set with 200 of ImageNet's classes is compared with ImageNet on the same 200: both accuracies then mean the same.

    Args:
        scores: [N, C].
        targets: [N], class numbers from 0 to C - 1.
        classes: the numbers of K classes, each once.

    Returns:
        Scores [M, K], in the order of `classes`, and targets [M] from 0 to K - 1, of the M rows that show one of them.

    Raises:
        ShapeError: scores and targets do not fit.
        DataError: a class comes twice or is none, or no row shows one of them.
    """
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ShapeError(f"scores {list(scores.shape)} and targets {list(targets.shape)} must be [N, C] and [N].")
    chosen = torch.tensor(classes, dtype=torch.int64, device=scores.device)
    if not len(classes) or len(set(classes)) < len(classes) or chosen.min() < 0 or chosen.max() >= scores.shape[1]:
        raise DataError(f"classes must be different numbers from 0 to {scores.shape[1] - 1}. Got {list(classes)[:10]}.")
    position = torch.full((scores.shape[1],), -1, device=scores.device)
    position[chosen] = torch.arange(len(chosen), device=scores.device)
    renumbered = position[targets.to(scores.device).long()]
    if (renumbered < 0).all():
        raise DataError(f"At least one row must show one of the {len(classes)} classes. None of {len(targets):,} does.")
    return scores[renumbered >= 0][:, chosen], renumbered[renumbered >= 0]


def _logit(accuracy: float) -> float:
    if not 0 < accuracy < 1:
        raise DataError(f"An accuracy must lie between 0 and 1 to have a logit. Got {accuracy}: is it in percent?")
    return math.log(accuracy / (1 - accuracy))
