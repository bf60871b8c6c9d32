"""Other drawings of a picture: fewer tones, another tone curve, lines alone."""

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def posterized(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Each channel in so many levels, evenly spread from 0 to 255: shades become areas.

    Args:
        pixels: [S, S, 3] uint8.
        levels: at least 2.
    """
    table = np.round(np.arange(256) * (levels - 1) / 255) * (255 / (levels - 1))
    return np.round(table).astype(np.uint8)[pixels]


def toned(pixels: np.ndarray, exponent: float) -> np.ndarray:
    """Another tone curve: values from 0 to 1 to the power of `exponent`; black and white stay.

    Args:
        pixels: [S, S, 3] uint8.
        exponent: above 0; below 1 is lighter.
    """
    return np.round(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)[pixels]


def lines(pixels: np.ndarray) -> np.ndarray:
    """Dark lines on white where the luma changes, the strongest of them black.

    Args:
        pixels: [S, S, 3] uint8.

    Returns:
        [S, S, 3] uint8, grey. A picture of one luma is white.
    """
    luma = pixels.astype(np.float32) @ _LUMA  # [S, S]
    luma = np.pad(luma, 1, mode="edge")
    x, y = luma[1:-1, 2:] - luma[1:-1, :-2], luma[2:, 1:-1] - luma[:-2, 1:-1]
    change = np.sqrt(x**2 + y**2)
    grey = 255 - np.round(255 * change / max(float(change.max()), 1.0)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
