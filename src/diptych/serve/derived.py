"""What is computed of a library's catalogue once, when it is first asked for: names, ids, countries."""

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diptych.errors import ConfigError
from diptych.search.catalogue import Catalogue
from diptych.serve.gallery import made_id
from diptych.serve.world import countries_of


class Derived:
    """What is computed of a catalogue once, when it is first asked for."""

    def __init__(self, catalogue: Catalogue, folder: Path) -> None:
        self.catalogue = catalogue
        self._folder = folder
        self._lock = threading.Lock()
        self._by_path: dict[str, int] | None = None
        self._by_end: dict[str, int] | None = None
        self._by_id: dict[str, Path] | None = None
        self._countries: tuple[np.ndarray, list[str]] | None = None

    @property
    def row_by_path(self) -> dict[str, int]:
        with self._lock:
            if self._by_path is None:
                self._by_path = {path: row for row, path in enumerate(self.catalogue.paths)}
            return self._by_path

    @property
    def row_by_end(self) -> dict[str, int]:
        """By the last part of the path, whatever its case."""
        with self._lock:
            if self._by_end is None:
                names = enumerate(self.catalogue.paths)
                self._by_end = {path.rpartition("/")[2].casefold(): row for row, path in names}
            return self._by_end

    @property
    def path_by_id(self) -> dict[str, Path]:
        with self._lock:
            if self._by_id is None:
                paths = (self._folder / path for path in self.catalogue.paths)
                self._by_id = {made_id(path): path for path in paths}
            return self._by_id

    def among(self, paths: Sequence[str] | frozenset[str]) -> np.ndarray:
        """[N] bool, which files are some of these."""
        is_among = np.zeros(len(self.catalogue), bool)
        known = self.row_by_path
        is_among[[known[path] for path in paths if path in known]] = True
        return is_among

    def _country(self) -> tuple[np.ndarray, list[str]]:
        with self._lock:
            if self._countries is None:
                self._countries = countries_of(self.catalogue.places)
            return self._countries

    def in_country(self, name: str) -> np.ndarray:
        """[N] bool."""
        country, names = self._country()
        if name not in names:
            raise ConfigError(f"{name[:40]!r} must be a country as the outline of the world names it.")
        return country == names.index(name)

    def country_of(self, row: int) -> str | None:
        country, names = self._country()
        return names[country[row]] if country[row] >= 0 else None

    def count_countries(self, rows: np.ndarray) -> list[tuple[str, int]]:
        """The most first."""
        country, names = self._country()
        codes, counts = np.unique(country[rows], return_counts=True)
        counted = {names[i]: int(n) for i, n in zip(codes, counts, strict=True) if i >= 0}
        return Counter(counted).most_common()
