"""How far apart places on Earth are, and the share of guesses that come near.

Source: Hays & Efros, "IM2GPS", 2008; the limits are those of CLIP, arXiv:2103.00020, table 17.
"""

import numpy as np

from diptych.errors import DataError, ShapeError

EARTH_RADIUS = 6371.0  # km, the mean one; the Earth is taken for a ball, which errs by up to 0.5 %


def great_circle_km(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances on the surface of the Earth, by the haversine formula.

    Args:
        first: [N, 2], latitude and longitude in degrees.
        second: [N, 2].

    Returns:
        [N] float64, in km.

    Raises:
        ShapeError: they are not both [N, 2].

    >>> pole_to_equator = great_circle_km(np.array([[90.0, 0.0]]), np.array([[0.0, 30.0]]))
    >>> round(float(pole_to_equator[0]), 1)  # a quarter of 2 pi 6371
    10007.5
    """
    if first.shape != second.shape or first.shape[1:] != (2,):
        raise ShapeError(f"Places {list(first.shape)} and {list(second.shape)} must both be [N, 2].")
    (latitude, longitude), (other_latitude, other_longitude) = np.radians(first).T, np.radians(second).T
    half = np.sin((other_latitude - latitude) / 2) ** 2
    half += np.cos(latitude) * np.cos(other_latitude) * np.sin((other_longitude - longitude) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def share_within(distances: np.ndarray, limit: float) -> float:
    """Share of distances that are at most a limit, both in km; one that is NaN is not.

    Raises:
        DataError: there is none.
    """
    if not len(distances):
        raise DataError("There must be at least one distance. Got none.")
    return float((distances <= limit).mean())
