import numpy as np
import pytest

from diptych.serve.world import countries_of


@pytest.mark.parametrize(
    ("place", "country"),
    [
        ((48.86, 2.35), "France"),
        ((1.35, 103.8), "Singapore"),  # small, and beside a large one
        ((35.9, 14.5), "Malta"),
        ((41.9, 12.45), "Italy"),
        ((-33.86, 151.2), "Australia"),
        ((40.7, -74.0), "United States of America"),
        ((64.1, -21.9), "Iceland"),  # on a coast
        ((0.0, -30.0), None),  # at sea
        ((np.nan, np.nan), None),
    ],
)
def test_places_are_in_their_countries(place: tuple[float, float], country: str | None):
    found, names = countries_of(np.array([place]))
    assert (names[found[0]] if found[0] >= 0 else None) == country


def test_many_places_are_looked_up_as_each_alone():
    generator = np.random.default_rng(0)
    places = np.stack([generator.uniform(-60, 70, 200), generator.uniform(-180, 180, 200)], axis=1)
    together, _ = countries_of(places)
    assert together.tolist() == [countries_of(place[None])[0][0] for place in places]
    assert len(countries_of(np.empty((0, 2)))[0]) == 0
