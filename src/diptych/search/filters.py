"""Which files of an index may answer, and how days and places are written. Light: no model is loaded to read them."""

import datetime
import re
from dataclasses import dataclass

from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which files may answer. What a file does not tell (no date, no place) does not pass a filter on it.

    Raises:
        ConfigError: a value makes no sense.
    """

    folder: str = ""  # below the library's own, e.g. "2023/june"
    after: datetime.date | None = None  # taken on this day or later
    before: datetime.date | None = None  # taken earlier than this day
    min_side: int = 0  # px, of the longer side
    max_side: int = 0  # px, of the longer side; 0 is no limit
    camera: str = ""  # part of maker and model, whatever the case
    near: tuple[float, float, float] | None = None  # latitude, longitude in degrees, distance in km

    def __post_init__(self) -> None:
        if self.min_side < 0 or self.max_side < 0:
            raise ConfigError(f"sides must be 0 or more pixels. Got {self.min_side} and {self.max_side}.")
        if self.near is not None:
            latitude, longitude, distance = self.near
            if not (abs(latitude) <= 90 and abs(longitude) <= 180 and distance > 0):
                raise ConfigError(
                    f"a place must be latitude, longitude and kilometres, e.g. 48.86,2.35,10. Got {self.near}."
                )


def parse_place(text: str) -> tuple[float, float, float]:
    """Latitude, longitude and kilometres, as "48.86,2.35,10"; without the last it is 10 km.

    Raises:
        ConfigError: it is not two or three numbers.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3):
        raise ConfigError(f"a place must be latitude, longitude and kilometres, e.g. 48.86,2.35,10. Got {text!r}.")
    latitude, longitude, distance = (*numbers, 10.0)[:3]
    return latitude, longitude, distance


def parse_day(text: str) -> datetime.date:
    """A day as 2023-06-30; 2023 and 2023-06 are the first day of theirs.

    Raises:
        ConfigError: it is no day.
    """
    if match := re.fullmatch(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?", text.strip()):
        year, month, day = (int(part or 1) for part in match.groups())
        try:
            return datetime.date(year, month, day)
        except ValueError:
            pass
    raise ConfigError(f"a day must be like 2023-06-30, 2023-06 or 2023. Got {text!r}.")
