import numpy as np
import pytest

from diptych.errors import DataError, ShapeError
from diptych.measures.geolocation import great_circle_km, share_within


def test_distances_are_those_known():
    first = np.array([[90.0, 0], [0, 0], [0, 179.5], [52.5200, 13.4050], [10, 20]])
    second = np.array([[-90.0, 77], [0, 180], [0, -179.5], [48.8566, 2.3522], [10, 20]])
    # half round the Earth twice, one degree across the date line, Berlin to Paris, nothing
    expected = [np.pi * 6371, np.pi * 6371, np.pi * 6371 / 180, 877.5, 0]
    assert great_circle_km(first, second) == pytest.approx(expected, abs=1)


def test_distances_equal_their_plain_twin():
    rng = np.random.default_rng(0)
    first, second = (np.stack([rng.uniform(-90, 90, 50), rng.uniform(-180, 180, 50)], axis=1) for _ in "ab")

    def on_ball(place):
        latitude, longitude = np.radians(place)
        return np.array([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])

    plain = [6371 * np.arccos(on_ball(a) @ on_ball(b)) for a, b in zip(first, second, strict=True)]
    assert great_circle_km(first, second) == pytest.approx(plain)


def test_the_limit_itself_is_within_and_nan_is_not():
    assert share_within(np.array([0, 25, 25.1, np.nan]), 25) == 0.5
    with pytest.raises(DataError, match="at least one distance"):
        share_within(np.array([]), 25)
    with pytest.raises(ShapeError, match=r"\[2, 2\] and \[1, 2\]"):
        great_circle_km(np.zeros((2, 2)), np.zeros((1, 2)))
