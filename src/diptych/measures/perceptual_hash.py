"""A picture as 64 bits that stay when it is recompressed, resized or made brighter: signs of its slow waves.

The picture, squeezed to 32 x 32 grey values, goes through a cosine transform (DCT-II). Of its coefficients without the
mean the 64 lowest by u + v give a bit each: is it above 0. The usual hash compares 8 x 8 of them with their median.
Both find the same copies but for some hundredths (with a small text 0.81 to 0.93), and far fewer different pictures
than hashes of differences or of block means do (benchmarks/curate_duplicates.py, part "kinds"); here no bit depends on
the other coefficients.

The transform is in whole numbers, so that a hash is the same on every machine and in every batch, and a coefficient
that is 0 for a symmetric picture is 0.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from diptych.errors import ConfigError, ShapeError

SIDE = 32  # px of the grey picture
BITS = 64
_BANDS = 4  # of 16 bits, in which near hashes are looked for
_BAND = 16  # bits
_FEW = 1 << 22  # pairs that are compared as they are; beyond, by bands
_AT_ONCE = 1 << 20  # pairs whose bits are counted at once

_MOST_WAVES = 11  # along a side
_LOWEST = sorted(itertools.product(range(_MOST_WAVES), repeat=2), key=lambda at: (at[0] + at[1], at[0]))[1 : BITS + 1]
_ROWS, _COLUMNS = (np.array(side) for side in zip(*_LOWEST, strict=True))
_WAVES = np.cos(np.pi * np.outer(np.arange(_MOST_WAVES), 2 * np.arange(SIDE) + 1) / (2 * SIDE))  # [11, 32]
_WHOLE_WAVES = np.rint(_WAVES * 1024)  # float64: sums of products of whole numbers below 2^53 are exact
_FLIPS = np.where(_COLUMNS % 2, -1.0, 1.0)  # what mirroring does to the 64 coefficients
_BITS_OF = np.array([value.bit_count() for value in range(1 << _BAND)], np.uint8)


def perceptual_hash(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of small grey pictures, of the same mirrored left to right, and how much there is to go by.

    Args:
        grey: [N, 32, 32] uint8.

    Returns:
        [N] uint64, [N] uint64, and [N] float32, the detail: the standard deviation that the 64 waves make up, in grey
        levels. A plain picture has 0, and its hashes are 0 like those of all plain pictures; below 2 it is mostly the
        noise of its compression that decides on the bits.

    Raises:
        ShapeError: grey is not [N, 32, 32] uint8.
    """
    if grey.ndim != 3 or grey.shape[1:] != (SIDE, SIDE) or grey.dtype != np.uint8:
        raise ShapeError(f"grey must be [N, {SIDE}, {SIDE}] uint8. Got {list(grey.shape)} {grey.dtype}.")
    waves = (_WHOLE_WAVES @ grey.astype(np.float64) @ _WHOLE_WAVES.T)[:, _ROWS, _COLUMNS]  # [N, 64]
    # A wave of amplitude 1 that varies along both sides has the mean square 1/4; along one side alone, 1/2.
    amplitudes = waves / (1024 * SIDE / 2) ** 2
    amplitudes *= np.where((_ROWS == 0) | (_COLUMNS == 0), math.sqrt(1 / 8), 0.5)
    detail = np.sqrt((amplitudes**2).sum(axis=1)).astype(np.float32)
    return _packed(waves > 0), _packed(waves * _FLIPS > 0), detail


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In how many of 64 bits hashes differ, [...] uint8; the shapes broadcast."""
    return _count_bits(np.bitwise_xor(a, b))


def near_pairs(
    hashes: np.ndarray, others: np.ndarray | None = None, *, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of hashes that differ in at most so many bits, each once, in no stated order, some at a time.

    Exact for each distance: of 4 bands of 16 bits, one at least differs in at most distance // 4 bits, so each hash
    is held against those that have a band like that. Memory is bounded beside the pairs of one yield. Time grows with
    the pairs whose bands are near: of N evenly spread hashes N^2 / 16,384 for a distance up to 3, N^2 / 964 up to 7.
    Equal hashes are all pairs of each other: hand over each once where there may be many.

    Args:
        hashes: [N] uint64.
        others: [M] uint64; None looks for pairs among `hashes` themselves, i < j.
        distance: bits, 0 to 15.

    Yields:
        [K] rows of `hashes` and [K] rows of `others`.

    Raises:
        ConfigError: the distance is another.
    """
    check_distance(distance)
    among = others is None
    others = hashes if others is None else others
    if len(hashes) * len(others) <= _FEW:
        yield _all_pairs(hashes, others, distance, among)
        return
    radius = distance // _BANDS
    flips = [sum(1 << bit for bit in bits) for n in range(radius + 1) for bits in itertools.combinations(range(16), n)]
    bands, other_bands = _in_bands(hashes), _in_bands(others)  # [N, 4], [M, 4]
    for band in range(_BANDS):
        order = np.argsort(other_bands[:, band], kind="stable")
        starts = np.searchsorted(other_bands[order, band], np.arange((1 << _BAND) + 1))
        for flip in flips:
            wanted = bands[:, band] ^ np.uint16(flip)
            for i, places in _expanded(starts[wanted], starts[wanted.astype(np.int64) + 1]):
                j = order[places]
                is_near = hamming(hashes[i], others[j]) <= distance
                if among:
                    is_near &= i < j
                i, j = i[is_near], j[is_near]
                found_before = (_BITS_OF[bands[i, :band] ^ other_bands[j, :band]] <= radius).any(axis=1)
                if not found_before.all():
                    yield i[~found_before], j[~found_before]


def check_distance(distance: int) -> None:
    """Refuse a distance that two hashes of different pictures have as well."""
    if not 0 <= distance < _BAND:
        raise ConfigError(
            f"distance must be 0 to 15 of {BITS} bits; those of different pictures differ in some 32. Got {distance}."
        )


def _packed(bits: np.ndarray) -> np.ndarray:
    """[N, 64] booleans as [N] uint64, the first as the highest."""
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8")[:, 0].astype(np.uint64)


def _in_bands(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), _BANDS)


def _count_bits(values: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(values)
    return _BITS_OF[_as_words(values)].sum(axis=-1, dtype=np.uint8)


def _as_words(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint16).reshape(*values.shape, _BANDS)


def _all_pairs(hashes: np.ndarray, others: np.ndarray, distance: int, among: bool) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.nonzero(hamming(hashes[:, None], others[None]) <= distance)
    return (i[i < j], j[i < j]) if among else (i, j)


def _expanded(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and the numbers from start to end of each, so many rows at a time that some `_AT_ONCE` numbers come."""
    lengths = ends - starts  # [N]
    filled = np.flatnonzero(lengths)
    total = np.cumsum(lengths[filled])
    first = 0
    while first < len(filled):
        before = total[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + _AT_ONCE, side="right")))
        rows = filled[first:last]
        counts = lengths[rows]
        offsets = np.repeat(starts[rows] - (total[first:last] - counts - before), counts)
        yield np.repeat(rows, counts), offsets + np.arange(len(offsets))
        first = last
