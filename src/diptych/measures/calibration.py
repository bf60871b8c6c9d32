"""Does a probability mean what it says, and when should a model answer "none of these"?

Sources: Guo et al., arXiv:1706.04599, for the error and the temperature. Letters: N, C.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.binomial import clopper_pearson
from diptych.measures.compare import Comparison
from diptych.measures.metrics import Interval, roc_auc, top_k_correct

BINS = 15  # as in Guo et al.
_FACTORS = (1e-4, 1e4)  # that logits may be multiplied by; beyond, a model is a coin or an oracle
_HALVINGS = 60


@dataclass(frozen=True)
class Bin:
    """Rows whose highest probability lies in one range."""

    low: float
    high: float
    rows: int
    confidence: float  # mean of the highest probability; 0 where there is no row
    accuracy: float  # share that is right; 0 where there is no row


@dataclass(frozen=True)
class Reliability:
    expected_error: float  # ECE: |confidence - accuracy| of the bins, weighted by their rows
    largest_error: float  # of one bin that has rows
    confidence: float  # mean over rows
    accuracy: float
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def reliability(confidences: Tensor, correct: Tensor, *, bins: int = BINS) -> Reliability:
    """Compare how sure a model is with how often it is right.

    Bins have equal width; a value on an edge lies in the lower one. The error depends on the number of bins and on N:
    compare only what has both in common.

    Args:
        confidences: [N], the highest probability of each row, between 0 and 1.
        correct: [N] bool, whether its class is the right one.
        bins: how many.

    Raises:
        ShapeError: the two differ in N.
        DataError: there is no row, or a confidence does not lie between 0 and 1.
        ConfigError: there is no bin.
    """
    if bins < 1:
        raise ConfigError(f"bins must be 1 or more. Got {bins}.")
    if confidences.ndim != 1 or confidences.shape != correct.shape:
        raise ShapeError(f"confidences {list(confidences.shape)} and correct {list(correct.shape)} must both be [N].")
    if not len(correct):
        raise DataError("There must be at least one row to compare confidence and accuracy. Got none.")
    sure, right = confidences.double().cpu(), correct.double().cpu()
    if not ((sure >= 0) & (sure <= 1)).all():  # NaN is caught too
        raise DataError("Confidences must lie between 0 and 1. Are these logits? Take their softmax.")
    number = (sure * bins).ceil().long().sub(1).clamp(0, bins - 1)
    rows = torch.bincount(number, minlength=bins)
    some = rows.clamp(min=1)
    confidence = torch.bincount(number, weights=sure, minlength=bins) / some
    accuracy = torch.bincount(number, weights=right, minlength=bins) / some
    gaps = (confidence - accuracy).abs()
    return Reliability(
        expected_error=(gaps * rows).sum().item() / len(sure),
        largest_error=gaps.max().item(),
        confidence=sure.mean().item(),
        accuracy=right.mean().item(),
        bins=tuple(
            Bin(index / bins, (index + 1) / bins, *values)
            for index, values in enumerate(zip(rows.tolist(), confidence.tolist(), accuracy.tolist(), strict=True))
        ),
    )


def sureness_against_accuracy(confidences: Tensor, correct: Tensor) -> Comparison:
    """Whether rows, of one class for instance, are right as often as their probabilities say, and if not, by how much.

    Each row is a coin that falls on "right" with its own probability. p is that of a number of right rows no likelier
    than the one seen (Poisson binomial, exact); the interval is that of the accuracy, the confidence being known.

    Args:
        confidences: [N], the highest probability of each row, between 0 and 1.
        correct: [N] bool.

    Raises:
        ShapeError: the two differ in N.
        DataError: there is no row, or a confidence does not lie between 0 and 1.
    """
    found = reliability(confidences, correct, bins=1)
    chances = np.ones(1)  # of 0, 1, ... right rows among those seen so far
    for sure in confidences.double().tolist():
        chances = np.append(chances * (1 - sure), 0.0) + np.append(0.0, chances * sure)
    right = int(correct.sum())
    accuracy = clopper_pearson(right, len(correct))
    return Comparison(
        n=len(correct),
        a=found.confidence,
        b=found.accuracy,
        difference=found.accuracy - found.confidence,
        interval=Interval(accuracy.low - found.confidence, accuracy.high - found.confidence, accuracy.level),
        p_value=min(1.0, float(chances[chances <= chances[right] * (1 + 1e-7)].sum())),
        test="Poisson binomial",
    )


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature T for which softmax(logits / T) makes the targets likeliest.

    No prediction changes. Fit it on examples that the final numbers are not measured on. The likelihood has one peak in
    1 / T, which is looked for between 1e-4 and 1e4 by halving. Where every row is right it has none: the answer is then
    a temperature beyond which float64 sees nothing to gain.

    Args:
        logits: [N, C], as the model gives them: its own logit scale is in them.
        targets: [N], class numbers from 0 to C - 1.

    Raises:
        ShapeError: the two do not fit.
        DataError: there is no row, a target is no class, or a logit is not finite.
    """
    top_k_correct(logits, targets, 1)  # checks both
    if not logits.isfinite().all():
        raise DataError("A temperature needs finite logits. Some are not.")
    rows = logits.double()
    rows = rows - rows.amax(dim=1, keepdim=True)  # a temperature as low as 1e-4 must not overflow
    of_target = rows.gather(1, targets.to(rows.device).long()[:, None])[:, 0]

    def too_flat(factor: float) -> bool:
        """Whether the likelihood still grows with the factor: its slope is the target's logit less the expected one."""
        expected = (torch.softmax(factor * rows, dim=1) * rows).sum(dim=1)
        return (of_target - expected).mean().item() > 0

    low, high = _FACTORS
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if too_flat(middle) else (low, middle)
    return 1 / (low * high) ** 0.5


@dataclass(frozen=True)
class RejectThreshold:
    """Answer "none of these" where the best score lies below `value`."""

    value: float
    kept_inside: float  # share of what shows one of the classes that gets an answer
    rejected_outside: float  # share of what shows none of them that gets "none of these"
    auc: float  # of the score, over all thresholds; ties count against us

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the two shares; 0.5 is chance."""
        return (self.kept_inside + self.rejected_outside) / 2

    def accepts(self, scores: Tensor) -> Tensor:
        """[N] to [N] bool; a NaN is not accepted."""
        return scores.double() >= self.value


def choose_threshold(scores: Tensor, is_inside: Tensor) -> RejectThreshold:
    """The threshold of highest balanced accuracy on labelled examples; of equals, the one that rejects more.

    Args:
        scores: [N], the best class's score of each picture: a cosine, a logit or a probability, but always the same.
        is_inside: [N] bool, whether the picture shows one of the classes at all.

    Raises:
        ShapeError: the two differ in N.
        DataError: there are not examples of both kinds, or the scores of one kind are all NaN.
    """
    auc = roc_auc(scores, is_inside)
    inside, known = is_inside.bool().to(scores.device), ~scores.isnan()
    if not (inside & known).any() or not (~inside & known).any():
        raise DataError("A threshold needs scores of both kinds of pictures. Those of one kind are all NaN.")
    edges = scores[known].double().unique()  # rising
    # The lowest keeps all; one that rejects all is no better.
    candidates = torch.cat([edges[:1], (edges[:-1] + edges[1:]) / 2])
    below_inside, below_outside = (
        torch.searchsorted(scores[kind & known].double().sort().values, candidates) for kind in (inside, ~inside)
    )
    kept = ((inside & known).sum() - below_inside).double() / inside.sum()
    rejected = ((~inside & ~known).sum() + below_outside).double() / (~inside).sum()
    balanced = kept + rejected
    best = int((balanced == balanced.max()).nonzero()[-1])
    return RejectThreshold(candidates[best].item(), kept[best].item(), rejected[best].item(), auc)


def accuracy_with_rejection(scores: Tensor, targets: Tensor, threshold: RejectThreshold) -> float:
    """Share that is right when "none of these" is an answer as well.

    Args:
        scores: [N, C], of the kind the threshold was chosen on.
        targets: [N], class numbers, or -1 for what shows none of the classes.
        threshold: from `choose_threshold`, on other pictures.

    Raises:
        ShapeError: scores and targets do not fit.
        DataError: there is no row, or a target is no class.
    """
    outside = targets.to(scores.device) < 0
    right = top_k_correct(scores, targets.clamp(min=0), 1)  # of an outside row not asked for
    answered = threshold.accepts(scores.nan_to_num(-torch.inf).amax(dim=1))
    return torch.where(outside, ~answered, answered & right).double().mean().item()
