"""What pictures that a model was trained on do to its score on a set: All, Clean and Overlap.

Source: CLIP, arXiv:2103.00020, section 5 and figure 17. Letters: n pictures of a set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diptych.errors import DataError, ShapeError
from diptych.measures.binomial import binomial_at_least, clopper_pearson
from diptych.measures.metrics import Interval, check_level

OVERLAP_LEVEL = 0.995  # of the interval, as in figure 17


@dataclass(frozen=True, kw_only=True)
class OverlapScore:
    """Accuracy on all pictures of a set, on those that are clean, and on those that overlap with training."""

    n: int
    overlap: int
    all_: float
    clean: float | None  # None where all overlap
    overlapping: float | None  # None where none does
    interval: Interval | None = None  # Clopper-Pearson, of the accuracy on Overlap
    p_value: float | None = None  # of so many right on Overlap or more, if accuracy there were that on Clean

    @property
    def contamination(self) -> float:
        """|Overlap| / |All|."""
        return self.overlap / self.n

    @property
    def gain(self) -> float:
        """All - Clean: what the score gained by the overlap; 0 where no picture is clean."""
        return 0.0 if self.clean is None else self.all_ - self.clean

    @property
    def difference(self) -> float | None:
        """Overlap - Clean; times the contamination it is the gain."""
        return None if self.clean is None or self.overlapping is None else self.overlapping - self.clean

    @property
    def difference_interval(self) -> Interval | None:
        """Of Overlap - Clean, with Clean as it was measured."""
        if self.interval is None or self.clean is None:
            return None
        return Interval(self.interval.low - self.clean, self.interval.high - self.clean, self.interval.level)


def overlap_score(correct: np.ndarray, is_overlap: np.ndarray, *, level: float = OVERLAP_LEVEL) -> OverlapScore:
    """Split a score by overlap.

    Args:
        correct: [n] bool, which pictures are named right.
        is_overlap: [n] bool, which are among the training pictures.
        level: of the interval.

    Raises:
        ShapeError: they are not [n] both.
        DataError: there is no picture.
        ConfigError: level does not lie between 0 and 1.

    >>> score = overlap_score(np.array([1, 1, 1, 0, 0, 1, 0, 0]) > 0, np.array([1, 1, 0, 0, 0, 0, 0, 0]) > 0)
    >>> score.contamination, round(score.gain, 4), round(score.p_value, 4)  # 2 of 2 right, against a third of 6
    (0.25, 0.1667, 0.1111)
    """
    if correct.shape != is_overlap.shape or correct.ndim != 1:
        raise ShapeError(f"correct and is_overlap must be [n] both. Got {correct.shape} and {is_overlap.shape}.")
    check_level(level)
    n, overlap = len(correct), int(is_overlap.sum())
    if not n:
        raise DataError("A score must have a picture. It has none.")
    right, right_overlap = int(correct.sum()), int(correct[is_overlap].sum())
    clean = (right - right_overlap) / (n - overlap) if overlap < n else None
    return OverlapScore(
        n=n,
        overlap=overlap,
        all_=right / n,
        clean=clean,
        overlapping=right_overlap / overlap if overlap else None,
        interval=clopper_pearson(right_overlap, overlap, level=level) if overlap else None,
        p_value=binomial_at_least(right_overlap, overlap, clean) if overlap and clean is not None else None,
    )


def bonferroni(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p-value times how many sets were tested, at most 1; a set without one was not."""
    tests = sum(p is not None for p in p_values)
    return [None if p is None else min(1.0, tests * p) for p in p_values]
