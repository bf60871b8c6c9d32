"""In which country a place lies, by an outline of the world that is coarse: near a border it may be the neighbour.

Source: Natural Earth, public domain; `recipes/world_outline.py` makes `page/world.json`, which the page draws as well.
"""

import functools
import json
from importlib import resources
from typing import NamedTuple

import numpy as np

_STEPS = 100  # of a degree: the outline's numbers
_CELL = 0.05  # degrees; places of one cell are looked up once
_OFF_SHORE = 1.0  # degrees that a place may lie in the sea, as coasts are coarse
_MANY = 2_048  # places that are held against a ring at a time


class _Ring(NamedTuple):
    country: int
    points: np.ndarray  # [P, 2] float64, longitude and latitude


@functools.cache
def _outline() -> tuple[list[str], list[_Ring]]:
    text = (resources.files("diptych.serve") / "page" / "world.json").read_text(encoding="utf-8")
    countries = json.loads(text)
    rings = [
        _Ring(i, np.array(ring, np.float64).reshape(-1, 2) / _STEPS)
        for i, parts in enumerate(countries.values())
        for ring in parts
    ]
    rings.sort(key=lambda ring: -np.ptp(ring.points, axis=0).prod())  # a small country within a large one comes last
    return list(countries), rings


def countries_of(places: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The country of each place, and their names.

    Args:
        places: [N, 2] latitude and longitude in degrees; NaN is none.

    Returns:
        [N] int32, into the names; -1 where there is no place, or it lies far out at sea.
    """
    found = np.full(len(places), -1, np.int32)
    names, rings = _outline()
    told = np.flatnonzero(np.isfinite(places).all(axis=1))
    if not len(told):
        return found, names
    cells, which = np.unique(np.round(places[told] / _CELL).astype(np.int64), axis=0, return_inverse=True)
    points = cells[:, ::-1] * _CELL  # [M, 2] longitude and latitude
    country = np.full(len(points), -1, np.int32)
    for ring in rings:
        low, high = ring.points.min(axis=0), ring.points.max(axis=0)
        near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
        for start in range(0, len(near), _MANY):
            part = near[start : start + _MANY]
            country[part[_inside(points[part], ring.points)]] = ring.country
    _fill_off_shore(points, country, rings)
    found[told] = country[which.ravel()]
    return found, names


def _inside(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """[M] bool: a line to the east crosses the ring an odd number of times."""
    x, y = points.T[:, :, None]
    x0, y0 = ring.T
    x1, y1 = np.roll(ring, -1, axis=0).T
    crosses = (y0 > y) != (y1 > y)  # [M, P]
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return (crosses & (x < at)).sum(axis=1) % 2 == 1


def _fill_off_shore(points: np.ndarray, country: np.ndarray, rings: list[_Ring]) -> None:
    """Places in no ring get the country of the nearest corner, where one is near."""
    lost = np.flatnonzero(country < 0)
    corners = np.concatenate([ring.points for ring in rings])
    owner = np.repeat([ring.country for ring in rings], [len(ring.points) for ring in rings])
    order = np.argsort(corners[:, 1])
    corners, owner = corners[order], owner[order]
    first, last = (np.searchsorted(corners[:, 1], points[lost, 1] + far) for far in (-_OFF_SHORE, _OFF_SHORE))
    for i, start, end in zip(lost, first, last, strict=True):
        if start == end:
            continue
        away = corners[start:end] - points[i]
        away[:, 0] *= np.cos(np.radians(points[i, 1]))
        squared = (away**2).sum(axis=1)
        nearest = int(squared.argmin())
        if squared[nearest] <= _OFF_SHORE**2:
            country[i] = owner[start + nearest]
