"""Heat maps from features of places and of texts: which part of a picture speaks for these words, and not for others.

Pure numbers: no model and no picture. Letters: h, w the grid; D; T texts; K other words. A box is left, top, right,
bottom in cells, right and bottom not included.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import ShapeError

Box = tuple[int, int, int, int]


def cosines(grid: Tensor, text_features: Tensor) -> Tensor:
    """How near each place is to each text.

    Args:
        grid: [h, w, D], of any length.
        text_features: [T, D], unit length.

    Returns:
        [T, h, w], in [-1, 1].

    Raises:
        ShapeError: the two differ in D.
    """
    if grid.ndim != 3 or text_features.ndim != 2 or grid.shape[2] != text_features.shape[1]:
        raise ShapeError(
            f"grid {list(grid.shape)} and text_features {list(text_features.shape)} must be [h, w, D] and [T, D], of "
            "the same model."
        )
    return (F.normalize(grid, dim=-1) @ text_features.T).permute(2, 0, 1)


def contrasted(near: Tensor, others: Tensor) -> Tensor:
    """What speaks for each text more than for others: what all texts have in common at a place goes away.

    That is what stays of CLIP Surgery's removal of redundant features, arXiv:2304.05653, section 3.3, where each of
    these weighs the same.

    Args:
        near: [T, h, w], of `cosines`.
        others: [K, h, w], the same of other words, which a single text is compared with.

    Returns:
        [T, h, w]: each text less the mean of the other texts; a single one less the mean of the other words.
    """
    if len(near) == 1:
        return near - others.mean(dim=0)
    return (near - near.mean(dim=0)) * len(near) / (len(near) - 1)


def smoothed(heat: Tensor, cells: int = 3) -> Tensor:
    """[T, h, w] to [T, h, w]: the mean of a square of cells around each; at the edge, of those that there are.

    Args:
        heat: of a grid with more than twice as many cells on each side; a smaller one stays as it is, as half of a
            picture would be one.
        cells: of the square's side, an odd number.
    """
    if min(heat.shape[1:]) <= 2 * cells:
        return heat
    return F.avg_pool2d(heat[None], cells, stride=1, padding=cells // 2, count_include_pad=False)[0]


def share_beaten(near: Tensor, others: Tensor) -> Tensor:
    """Share of other words that fit a place less than a text does.

    Args:
        near: [T, h, w].
        others: [K, h, w].

    Returns:
        [T, h, w], in [0, 1].
    """
    ranked = others.sort(dim=0).values.flatten(1).T.contiguous()  # [h w, K], the least first
    counts = torch.searchsorted(ranked, near.flatten(1).T.contiguous())  # [h w, T], how many are below
    return (counts.T / len(others)).reshape(near.shape)


def best_cell(heat: Tensor) -> tuple[int, int]:
    """Row and column of the hottest of [h, w]; of equals the first."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return row, column


def hot_part(heat: Tensor, allowed: Tensor | None = None) -> Tensor:
    """The cells around the hottest that belong to it: connected with it, and no less than half as far above the median.

    Args:
        heat: [h, w].
        allowed: [h, w] bool, cells that may belong to it; all when not given. The hottest always does.

    Returns:
        [h, w] bool.
    """
    middle = heat.median()
    hot = heat >= middle + (heat.max() - middle) / 2
    if allowed is not None:
        hot = hot & allowed
    start = torch.zeros_like(hot)
    start[best_cell(heat)] = True
    return connected(hot | start, start)


def connected(mask: Tensor, start: Tensor) -> Tensor:
    """The cells of a mask that sides of cells connect with a start.

    Args:
        mask: [h, w] bool.
        start: [h, w] bool, part of the mask.

    Returns:
        [h, w] bool.
    """
    part = start
    while True:
        grown = part.clone()
        grown[1:] |= part[:-1]
        grown[:-1] |= part[1:]
        grown[:, 1:] |= part[:, :-1]
        grown[:, :-1] |= part[:, 1:]
        grown &= mask
        if torch.equal(grown, part):
            return part
        part = grown


def parts(mask: Tensor) -> list[Tensor]:
    """Each connected part of [h, w] bool, the largest first; of equals the one that is met first line by line."""
    left, found = mask.clone(), []
    while left.any():
        start = torch.zeros_like(mask)
        start[divmod(int(left.flatten().int().argmax()), mask.shape[1])] = True
        part = connected(left, start)
        found.append(part)
        left &= ~part
    return sorted(found, key=lambda part: -int(part.sum()))


def box_around(mask: Tensor) -> Box:
    """The smallest box with all True cells of [h, w], at least one."""
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def overlap_of(mask: Tensor, truth: Tensor) -> float:
    """Intersection over union of two masks [h, w] bool; 0 where both are empty."""
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 0.0


def curve_area(values: np.ndarray) -> float:
    """Area under a curve whose points lie evenly over [0, 1], by trapezoids: of deletion and insertion.

    Source: RISE, arXiv:1806.07421, section 4.2.

    >>> curve_area(np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float((values[1:] + values[:-1]).sum() / 2 / (len(values) - 1))
