"""RareAct's mWAP: how well segments that show an unusual action are told from those that show part of it.

Source: Miech et al., "RareAct", arXiv:2008.01018, and the evaluation its authors published. Letters: N, C.
"""

from collections.abc import Sequence

import numpy as np

from diptych.errors import DataError


def mean_weighted_precision(
    scores: np.ndarray,
    targets: np.ndarray,
    judged: np.ndarray,
    film: np.ndarray,
    actions: Sequence[tuple[str, str]],
) -> float:
    """Mean over actions of the weighted average precision.

    For an action, the segments judged to show it are positive. Negative are those judged not to, or to show only part
    of it, and those that show another action. Within three groups, which are the positives, the segments that share
    the verb or the noun, and the rest, the segments of one film share the weight of one. An action without a positive
    has no say. A tie counts against us.

    Args:
        scores: [N, C], higher is likelier.
        targets: [N], the action that a segment was judged for.
        judged: [N]: 1 it is shown, 0 it is not, 2 to 4 part of it is.
        film: [N], number of the film a segment is from.
        actions: C, verb and noun.

    Raises:
        DataError: no action has a positive.
    """
    shown = judged == 1
    precisions = []
    for number, (verb, noun) in enumerate(actions):
        own = targets == number
        share = np.array([(other[0] == verb) != (other[1] == noun) for other in actions])[targets]
        apart = np.array([other[0] != verb and other[1] != noun for other in actions])[targets]
        positive = own & shown
        hard = (own & (judged > 1)) | (shown & share)
        easy = (own & (judged == 0)) | (shown & apart)
        if positive.any():
            groups = [np.flatnonzero(group) for group in (positive, hard, easy)]
            weights = np.concatenate([_one_vote_a_film(film[group]) for group in groups])
            order = np.concatenate(groups)
            is_positive = np.arange(len(order)) < len(groups[0])
            precisions.append(_weighted_precision(scores[order, number], is_positive, weights))
    if not precisions:
        raise DataError("There must be a segment that shows its action. There is none.")
    return float(np.mean(precisions))


def _one_vote_a_film(film: np.ndarray) -> np.ndarray:
    _, row, counts = np.unique(film, return_inverse=True, return_counts=True)
    return 1 / counts[row]


def _weighted_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    """Precision at each positive, weighted by the positive; what ties with it and is negative stands before it."""
    order = np.lexsort((positive, -np.nan_to_num(scores, nan=-np.inf)))  # of equal scores the negatives first
    is_positive, weight = positive[order], weights[order]
    found = np.cumsum(weight * is_positive)
    return float((found / np.cumsum(weight) * weight * is_positive).sum() / (weight * is_positive).sum())
