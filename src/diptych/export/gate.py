"""Whether features of another kind of numbers are near enough to those of float32 to be used in their place.

A mean hides the worst, and a cosine hides what it is for; so there are four numbers, and each has its own threshold.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.measures.compare import Comparison

_BEST = 10
MEASURES = ("cosine", "worst", "found", "top1")


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What features must reach."""

    cosine: float = 0.99  # mean, of each tower
    worst: float = 0.95  # lowest cosine of a picture; of texts the 1st percentile
    found: float = 0.8  # mean share of the ten best pictures of a text that stay among them
    top1: float = 0.02  # accuracy that may be lost, by the far end of its interval


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Cosines of the same things in both kinds of numbers."""

    n: int
    mean: float
    percentile1: float
    worst: float


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """How far features moved, and what became of answers."""

    images: Likeness
    texts: Likeness
    found: float  # see `Thresholds`
    top1: "Comparison | None"  # before and after; None where the pictures have no classes

    def faults(self, thresholds: Thresholds = Thresholds()) -> dict[str, str]:
        """What falls below the thresholds: a sentence each, by the measure's name, one of `MEASURES`."""
        found: dict[str, str] = {}
        for of, likeness in (("image", self.images), ("text", self.texts)):
            if not likeness.mean >= thresholds.cosine:
                found["cosine"] = f"{of} features have a mean cosine of {likeness.mean:.4f}, below {thresholds.cosine}"
        for of, lowest in (("of a picture", self.images.worst), ("of 1 % of texts", self.texts.percentile1)):
            if not lowest >= thresholds.worst:
                found["worst"] = f"the lowest cosine {of} is {lowest:.3f}, below {thresholds.worst}"
        if not self.found >= thresholds.found:
            found["found"] = (
                f"{self.found:.0%} of the ten best pictures of a text stay, less than {thresholds.found:.0%}"
            )
        if self.top1 is not None and not self.top1.interval.low >= -thresholds.top1:
            found["top1"] = (
                f"accuracy may be {-100 * self.top1.interval.low:.1f} points lower, more than {100 * thresholds.top1:g}"
            )
        return found


def likeness(before: np.ndarray, after: np.ndarray) -> Likeness:
    """Of [N, D] and [N, D], whatever their lengths; what is no number counts as a cosine of -1."""
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines = np.nan_to_num((before * after).sum(axis=1) / lengths, nan=-1.0)
    return Likeness(
        n=len(cosines),
        mean=float(cosines.mean()),
        percentile1=float(np.percentile(cosines, 1)),
        worst=float(cosines.min()),
    )


def found_again(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], *, best: int = _BEST
) -> float:
    """How much of what texts find they find again.

    Args:
        before: image features [N, D] and text features [Q, D].
        after: the same in another kind of numbers.
        best: pictures that a text finds.

    Returns:
        The mean share, over texts, of the best pictures before that are among the best after.
    """
    count = min(best, len(before[0]))
    rows = [np.argsort(-(texts @ images.T), axis=1, kind="stable")[:, :count] for images, texts in (before, after)]
    return float(np.mean([len(np.intersect1d(a, b)) / count for a, b in zip(*rows, strict=True)]))


def check_accepted(accepted: tuple[str, ...]) -> None:
    """Refuse a name that is no measure of the gate."""
    if unknown := [name for name in accepted if name not in MEASURES]:
        raise ConfigError(f"what is accepted must be one of {', '.join(MEASURES)}. Got {unknown[0]!r}.")
