"""Whether two pictures are one: each is laid over the other as a crop, also mirrored, and compared block by block.

Features and hashes say which pictures may be copies of each other; this second look says which are. Both pictures come
squeezed to S x S grey values, so an aspect that was changed is none. One is taken for a crop of the other, at several
sizes and all places on a coarse grid; the edges of the best are then moved until the two fit. What is compared is local
contrast, not light, so brightness and colour do not count.

Of 4 x 4 blocks each has a correlation, and the score is what three fifths of those with texture reach: a word written
over a corner spoils few of them, whereas two umbrellas on white have many blocks that differ. A picture with hardly any
texture has no score: black frames are all alike, and say nothing.

Letters: S side, M pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from diptych.errors import ShapeError

SIDE = 64  # px, S
_COARSE = 32  # px, side of the grid on which places are looked for
_SIZES = (32, 30, 28, 26, 24, 22)  # px of it that a crop may keep: 69 % of a side at least
_SMALLEST = 0.6  # of a side: where the edges of a crop stop
_OUTSIDE = 0.02  # of a side, by which they may lie beyond the picture
_STEPS = (1 / 64, 1 / 128, 1 / 256)  # of a side, by which they are moved
_ROUNDS = 6  # at most, of each step
_FINE, _BROAD = 1.0, 5.0  # px: detail between the two is compared
_FLAT = 4.0  # grey levels: contrast below it is not stretched as far as that above
_BLOCKS = 4  # along a side
_TEXTURE = 0.25  # standard deviation within a block, of contrast that is 1 where the picture is rich
_FEWEST = 6  # blocks with texture in either picture, or there is nothing to go by
_SHARE = 0.4  # of these that may fit worse than the score says
_HOPELESS = 0.35  # coarse correlation below which the edges are not moved: copies have 0.5 and more


Box = tuple[float, float, float, float]  # left, top, right, bottom: shares of a side


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How well one picture fits on another where it fits best."""

    score: float  # -1 to 1; what three fifths of the blocks reach. 0 where there is hardly any texture
    box: Box  # of the larger picture
    mirrored: bool
    is_larger: bool  # the first is the larger one: the second is a crop of it, or all of it


def contrast(grey: np.ndarray) -> np.ndarray:
    """What is compared of pictures: their contrast of medium detail, about 1 where there is much, whatever the light.

    Args:
        grey: [M, S, S], 0 to 255.

    Returns:
        [M, S, S] float32.

    Raises:
        ShapeError: grey has another shape.
    """
    if grey.ndim != 3 or grey.shape[1:] != (SIDE, SIDE):
        raise ShapeError(f"grey must be [M, {SIDE}, {SIDE}]. Got {list(grey.shape)}.")
    values = grey.astype(np.float32)
    fine, broad = _blur(_FINE), _blur(_BROAD)
    band = fine @ values @ fine.T - broad @ values @ broad.T
    return band / np.sqrt(broad @ (band * band) @ broad.T + _FLAT**2)


def align(first: np.ndarray, second: np.ndarray) -> Alignment:
    """Lay two pictures over each other as well as they fit.

    Args:
        first: [S, S], from `contrast`.
        second: [S, S], likewise.
    """
    placed = [
        (fit, box, mirrored, is_larger)
        for is_larger, large, small in ((True, first, second), (False, second, first))
        for mirrored, (fit, box) in zip((False, True), _placed(large, small), strict=True)
    ]
    fit, box, mirrored, is_larger = max(placed, key=lambda one: one[0])  # of several that fit as well, the first
    if mirrored and not is_larger:  # the first was mirrored to fit; from here on the second is
        box = (1 - box[2], box[1], 1 - box[0], box[3])
    other = second[:, ::-1] if mirrored else second
    large, small = (first, other) if is_larger else (other, first)
    if fit >= _HOPELESS:
        box = _moved(large, small, box)
    score = _score(_cut(large, box), small)
    return Alignment(score=score, box=box, mirrored=mirrored, is_larger=is_larger)


def _placed(large: np.ndarray, small: np.ndarray) -> list[tuple[float, Box]]:
    """Where `small` fits best on `large`, and how well: as it is, and mirrored. It is tried at some sizes."""
    reduce = _reduced(_COARSE)
    ground = reduce @ large @ reduce.T
    best: list[tuple[float, Box]] = [(-2.0, (0.0, 0.0, 1.0, 1.0))] * 2
    for size in _SIZES:
        reduce = _reduced(size)
        piece = _unit(reduce @ small @ reduce.T)
        places = _COARSE - size + 1
        windows = np.lib.stride_tricks.sliding_window_view(ground, (size, size)).reshape(places**2, size**2)
        spread = np.einsum("ij,ij->i", windows, windows) - size**2 * windows.mean(axis=1) ** 2
        pieces = np.stack([piece.ravel(), piece[:, ::-1].ravel()], axis=1)
        fits = windows @ pieces / np.sqrt(np.maximum(spread, 1e-3))[:, None]  # [places, 2]
        for way, at in enumerate(fits.argmax(axis=0).tolist()):
            if fits[at, way] > best[way][0]:
                top, left = divmod(at, places)
                edges = (left / _COARSE, top / _COARSE, (left + size) / _COARSE, (top + size) / _COARSE)
                best[way] = float(fits[at, way]), edges
    return best


def _moved(large: np.ndarray, small: np.ndarray, box: Box) -> Box:
    """The box with its edges moved, one at a time, as long as the correlation grows."""
    piece = _unit(small)
    fit = float((_unit(_cut(large, box)) * piece).sum())
    for step in _STEPS:
        for _ in range(_ROUNDS):
            before = fit
            for moved in _neighbours(box, step):
                now = float((_unit(_cut(large, moved)) * piece).sum())
                if now > fit + 1e-4:
                    fit, box = now, moved
            if fit == before:
                break
    return box


def _neighbours(box: Box, step: float) -> Iterator[Box]:
    for edge in range(4):
        for way in (-step, step):
            left, top, right, bottom = (value + way * (edge == number) for number, value in enumerate(box))
            inside = min(left, top) >= -_OUTSIDE and max(right, bottom) <= 1 + _OUTSIDE
            if inside and min(right - left, bottom - top) >= _SMALLEST:
                yield left, top, right, bottom


def _score(first: np.ndarray, second: np.ndarray) -> float:
    a, b = _blocks(first), _blocks(second)
    deviation_a, deviation_b = np.sqrt((a * a).mean(axis=1)), np.sqrt((b * b).mean(axis=1))
    # Texture in one of the two is enough: a block that is plain in the other speaks against a copy.
    rich = (deviation_a > _TEXTURE) | (deviation_b > _TEXTURE)
    if rich.sum() < _FEWEST:
        return 0.0
    fits = (a * b).mean(axis=1) / np.maximum(deviation_a * deviation_b, 1e-6)
    return float(np.quantile(fits[rich], _SHARE))


def _blocks(values: np.ndarray) -> np.ndarray:
    """[S, S] as [16, pixels of a block], each without its mean."""
    side = SIDE // _BLOCKS
    blocks = values.reshape(_BLOCKS, side, _BLOCKS, side).transpose(0, 2, 1, 3).reshape(_BLOCKS**2, side**2)
    return blocks - blocks.mean(axis=1, keepdims=True)


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-6)


def _cut(picture: np.ndarray, box: Box) -> np.ndarray:
    """A part of a picture, drawn to [S, S] by linear interpolation; black, which is no contrast, beyond its edges."""
    left, top, right, bottom = box
    return _sampled(top, bottom) @ picture @ _sampled(left, right).T


def _sampled(low: float, high: float) -> np.ndarray:
    at = (low + (np.arange(SIDE) + 0.5) / SIDE * (high - low)) * SIDE - 0.5
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SIDE))).astype(np.float32)


@cache
def _blur(sigma: float) -> np.ndarray:
    """[S, S], a Gaussian along one side; what would lie beyond an edge is left out."""
    at = np.arange(SIDE)
    weights = np.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@cache
def _reduced(size: int) -> np.ndarray:
    """[size, S], means of the pixels that each smaller one covers."""
    edges = np.arange(size + 1) * SIDE / size
    at = np.arange(SIDE)
    covered = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    weights = np.maximum(covered, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
