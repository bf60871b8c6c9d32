"""Copies of known pictures among others: what is kept of a picture to know it again, and which is a copy of which.

A picture is squeezed to a small grey one, without the plain frame around it. A detector that was trained for it
(`model/copy_detector.py`) and a perceptual hash say which pictures may be copies of each other, and a second look
(`measures/alignment.py`) says which are. What was measured of it, and on which pictures the limits here were chosen:
docs/how-to/overlap.md and benchmarks/overlap.py.

Letters: N pictures, E known ones, V views of each, S side, D, M candidates.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from diptych.data.images import MAX_PIXELS, open_image
from diptych.files import sha256
from diptych.measures.alignment import SIDE, Alignment, align, contrast
from diptych.measures.perceptual_hash import near_pairs, perceptual_hash
from diptych.model.copy_detector import CopyDetector

THRESHOLD = 0.8  # of the second look's score, from which a picture counts as a copy
NEAREST = 8  # known pictures that are looked at for each picture
LEAST_COSINE = 0.65  # of the detector, below which none is looked at
HASH_BITS = 10  # that may differ, of 64

_PART = 0.8  # of a side, that parts of known pictures keep
_DETAIL = 2.0  # grey levels of the hash's waves
_BATCH = 64  # pictures that the detector sees at once
_WEIGHTS = Path(__file__).parent / "copy_detector.safetensors"
_MIDDLE = 256  # px, longer side of the picture whose frame is looked for
_FRAME = 0.2  # of a side, at most, is taken for its frame
_PLAIN = 6.0  # grey levels: nearly all of a line of a frame differ less from its outermost line
_PLAIN_SHARE = 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketches:
    """What is kept of pictures to know them again."""

    small: np.ndarray  # [N, S, S] uint8
    features: np.ndarray  # [N, V, D] float32, unit length, of the detector: of the picture, then of parts of known ones
    hashes: np.ndarray  # [N] uint64
    mirrored_hashes: np.ndarray  # [N] uint64, of the pictures mirrored
    has_detail: np.ndarray  # [N] bool; the hashes of pictures without are all alike

    def __len__(self) -> int:
        return len(self.small)

    @classmethod
    def of(cls, small: Sequence[np.ndarray], *, known: bool = False) -> Self:
        """Sketches of pictures.

        Args:
            small: N of them, from `small_grey`.
            known: parts of the pictures are seen as well, so that narrow crops of them come out near; V is 6, else 1.
        """
        pictures = np.stack(small) if len(small) else np.empty((0, SIDE, SIDE), np.uint8)
        halved = pictures.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4)).astype(np.uint8)
        hashes, mirrored, detail = perceptual_hash(halved)
        return cls(
            small=pictures,
            features=np.stack([_features(view) for view in (_views(pictures) if known else [pictures])], axis=1),
            hashes=hashes,
            mirrored_hashes=mirrored,
            has_detail=detail >= _DETAIL,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Pairs that may be copies, by row, then by cosine from the highest, then by known row."""

    rows: np.ndarray  # [M] int64, of the pictures
    known: np.ndarray  # [M] int64, of the known pictures
    cosines: np.ndarray  # [M] float32, of the detector
    by_hash: np.ndarray  # [M] bool, their hashes are near; the others are among the nearest by the detector alone

    def __len__(self) -> int:
        return len(self.rows)


def small_grey(picture: bytes | Image.Image, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture squeezed to [S, S] uint8, without a plain frame.

    Args:
        picture: a file's bytes, of which a JPEG is decoded at a part of its size, or what `open_image` gave.
        max_pixels: most that are decoded.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(picture, bytes):
        picture = open_image(picture, max_pixels=max_pixels, at_least=2 * SIDE)
    grey = picture.convert("L")
    if max(grey.size) > _MIDDLE:
        grey.thumbnail((_MIDDLE, _MIDDLE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    top, bottom = _frame(values)
    left, right = _frame(values.T)
    height, width = values.shape
    grey = grey.crop((left, top, width - right, height - bottom))
    smooth = Image.Resampling.BOX if min(grey.size) >= 2 * SIDE else Image.Resampling.BILINEAR
    return np.asarray(grey.resize((SIDE, SIDE), smooth))


def candidates(pictures: Sketches, known: Sketches, *, nearest: int = NEAREST) -> Candidates:
    """Which known pictures are worth a second look, for each picture: those that are nearest, and those of a near hash.

    What comes of a picture does not depend on which others come with it.
    """
    near_hashes = _near_by_hash(pictures, known)
    found = np.concatenate([near_hashes, _near_by_features(pictures.features, known.features, nearest)])
    pairs, first = np.unique(found, axis=0, return_index=True)  # [M, 2], and where in `found` each comes first
    cosines = np.einsum("mvd,mwd->mvw", pictures.features[pairs[:, 0]], known.features[pairs[:, 1]]).max(axis=(1, 2))
    order = np.lexsort([pairs[:, 1], -cosines, pairs[:, 0]])
    by_hash = first < len(near_hashes)
    return Candidates(rows=pairs[order, 0], known=pairs[order, 1], cosines=cosines[order], by_hash=by_hash[order])


def second_look(first: np.ndarray, second: np.ndarray) -> list[Alignment]:
    """How well pairs of pictures fit on each other.

    Args:
        first: [M, S, S] uint8.
        second: [M, S, S] uint8.
    """
    return [align(*pair) for pair in zip(contrast(first), contrast(second), strict=True)]


def best_scores(pictures: Sketches, known: Sketches) -> tuple[np.ndarray, np.ndarray]:
    """The known picture that each picture fits best, and how well.

    Returns:
        [N] int64 rows of `known`, -1 where none is near, and [N] float32 scores, 0 where none is near.
    """
    pairs = candidates(pictures, known)
    looks = second_look(pictures.small[pairs.rows], known.small[pairs.known])
    best = np.full(len(pictures), -1)
    scores = np.zeros(len(pictures), np.float32)
    for row, number, look in zip(pairs.rows.tolist(), pairs.known.tolist(), looks, strict=True):
        if best[row] < 0 or look.score > scores[row]:
            best[row], scores[row] = number, look.score
    return best, scores


@functools.cache
def detector_sha256() -> str:
    """SHA-256 of the detector's weights: what is kept of one detector is of no use to another."""
    return sha256(_WEIGHTS)


@functools.cache
def _detector() -> CopyDetector:
    detector = CopyDetector()
    detector.load_state_dict(safetensors.torch.load_file(_WEIGHTS))
    return detector.eval().requires_grad_(False)


def _features(small: np.ndarray) -> np.ndarray:
    features = [np.empty((0, CopyDetector.embed_dim), np.float32)]
    for first in range(0, len(small), _BATCH):
        some = small[first : first + _BATCH]
        # Always as many, so that the last digits of a picture's features do not depend on how many come with it.
        full = np.zeros((_BATCH, SIDE, SIDE), np.uint8)
        full[: len(some)] = some
        features.append(_detector()(torch.from_numpy(full)).numpy()[: len(some)])
    return np.concatenate(features)


def _views(pictures: np.ndarray) -> list[np.ndarray]:
    """Pictures, their four corners and their middles, each [N, S, S] uint8."""
    part = round(_PART * SIDE)
    far, middle = SIDE - part, (SIDE - part) // 2
    at = np.arange(SIDE) * part // SIDE  # each part is drawn large by repeating lines
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    return [pictures, *(pictures[:, top + at][:, :, left + at] for top, left in corners)]


def _near_by_features(features: np.ndarray, known: np.ndarray, nearest: int) -> np.ndarray:
    """[M, 2] rows and known rows."""
    found = [np.empty((0, 2), np.int64)]
    nearest, views = min(nearest, len(known)), known.reshape(-1, known.shape[2])  # [E * V, D]
    if not nearest:
        return found[0]
    for first in range(0, len(features), _BATCH):
        block = np.zeros((_BATCH, *features.shape[1:]), np.float32)  # always as many, as above
        some = features[first : first + _BATCH]
        block[: len(some)] = some
        products = block.reshape(-1, views.shape[1]) @ views.T
        cosines = products.reshape(*block.shape[:2], *known.shape[:2]).max(axis=(1, 3))[: len(some)]  # [B, E]
        top = np.argpartition(-cosines, nearest - 1, axis=1)[:, :nearest]
        rows, ranks = np.nonzero(np.take_along_axis(cosines, top, axis=1) >= LEAST_COSINE)
        found.append(np.stack([rows + first, top[rows, ranks]], axis=1))
    return np.concatenate(found)


def _near_by_hash(pictures: Sketches, known: Sketches) -> np.ndarray:
    rows, known_rows = np.flatnonzero(pictures.has_detail), np.flatnonzero(known.has_detail)
    found = [np.empty((0, 2), np.int64)]
    for hashes in (known.hashes, known.mirrored_hashes):
        pairs = near_pairs(pictures.hashes[rows], hashes[known_rows], distance=HASH_BITS)
        found += [np.stack([rows[i], known_rows[j]], axis=1) for i, j in pairs]
    return np.concatenate(found)


def _frame(values: np.ndarray) -> tuple[int, int]:
    """How many lines at the beginning and at the end of [H, W] are a plain frame."""
    most = int(_FRAME * len(values))
    return _plain_lines(values[:most]), _plain_lines(values[::-1][:most])


def _plain_lines(lines: np.ndarray) -> int:
    if not len(lines):
        return 0
    away = np.abs(lines - np.median(lines[0]))
    plain = np.quantile(away, _PLAIN_SHARE, axis=1) < _PLAIN
    return len(plain) if plain.all() else int(plain.argmin())
