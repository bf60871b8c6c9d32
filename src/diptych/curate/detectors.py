"""Detectors that the user names (`outside.named`): functions that find boxes in a picture."""

from collections.abc import Callable

import numpy as np

from diptych.errors import DataError

Detector = Callable[[np.ndarray], np.ndarray]  # [H, W, 3] uint8 -> [N, 5]: left, top, right, bottom in px, confidence


def boxes_in(pixels: np.ndarray, detector: Detector, min_confidence: float) -> np.ndarray:
    """What a detector finds in a picture.

    Args:
        pixels: [H, W, 3] uint8.
        detector: is handed a copy, which it may change.
        min_confidence: below which a box does not count.

    Returns:
        [N, 4] int64: left, top, right, bottom, px, within the picture; none is empty.

    Raises:
        DataError: the detector gives something else than [N, 5] finite numbers.
    """
    height, width = pixels.shape[:2]
    found = np.asarray(detector(pixels.copy()), np.float64)
    found = found.reshape(0, 5) if found.size == 0 else found
    if found.ndim != 2 or found.shape[1] != 5 or not np.isfinite(found).all():
        raise DataError(
            "a detector must return [N, 5] finite numbers: left, top, right, bottom, confidence. "
            f"Got {list(found.shape)}."
        )
    found = found[found[:, 4] >= min_confidence]
    low = np.floor(found[:, :2]).clip(0, (width, height))
    high = np.ceil(found[:, 2:4]).clip(0, (width, height))
    boxes = np.concatenate([low, high], axis=1).astype(np.int64)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
