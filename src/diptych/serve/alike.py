"""Groups of pictures that look the same, found beside all other work; the best of each is proposed first."""

import contextlib
import io
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diptych.errors import DiptychError
from diptych.search.results import Hit, Results
from diptych.serve.browse import Browser
from diptych.serve.gallery import THUMBNAIL
from diptych.serve.refusals import RefusedError

_SIDECARS = (".xmp", ".XMP")  # what another program wrote beside a picture: somebody worked on it


class Alike:
    """The groups of one library. They are looked for once for a threshold and a state of the index.

    Args:
        browser: the library.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._lock = threading.Lock()
        self._asked: tuple[int, float] | None = None
        self._groups: Sequence[Results] | None = None
        self._fault = ""

    def groups(self, threshold: float) -> Sequence[Results] | None:
        """Groups of files, those with the most first; None while they are looked for.

        Raises:
            RefusedError: they cannot be looked for.
        """
        version, _ = self._browser.catalogue()
        with self._lock:
            if self._asked != (version, threshold):
                self._asked, self._groups, self._fault = (version, threshold), None, ""
                name = "diptych-alike"
                threading.Thread(target=self._look, args=(version, threshold), name=name, daemon=True).start()
            if self._fault:
                raise RefusedError(400, self._fault, "invalid")
            return self._groups

    def _look(self, version: int, threshold: float) -> None:
        groups: Sequence[Results] = ()
        fault = ""
        try:
            groups = self._browser.library.duplicates(threshold=threshold)
        except DiptychError as error:
            fault = str(error)
        except Exception as error:  # a thread has nobody to raise to
            fault = f"duplicates cannot be looked for ({type(error).__name__})."
        with self._lock:
            if self._asked == (version, threshold):
                self._groups, self._fault = groups, fault

    def told(self, group: Results) -> list[dict[str, Any]]:
        """Facts of the pictures of a group, the best first: of most pixels, then with a sidecar, sharpest, largest."""
        told = []
        _, kept = self._browser.shelf.read()
        _, catalogue = self._browser.catalogue()
        for hit in group:
            with contextlib.suppress(RefusedError):  # it went meanwhile
                id_ = self._browser.gallery.id_of(hit.path)
                row = self._browser.row_of(id_)
                if catalogue.paths[row] in kept.hidden:
                    continue
                facts = self._browser.facts_of_row(catalogue, row, hit.score)
                told.append(
                    {
                        **facts,
                        "bytes": hit.bytes or facts["bytes"],
                        "sharpness": self._sharpness(id_),
                        "has_sidecar": has_sidecar(hit.path),
                        "also": _also(hit, self._browser.library.folder),
                    }
                )
        return sorted(told, key=_worth)

    def _sharpness(self, id_: str) -> float:
        with contextlib.suppress(RefusedError, OSError):
            return sharpness(Image.open(io.BytesIO(self._browser.gallery.draw(id_, THUMBNAIL))))
        return 0.0


def sharpness(image: Image.Image) -> float:
    """How much neighbours differ: the standard deviation of the Laplacian of grey, in grey levels."""
    grey = np.asarray(image.convert("L"), np.float32)
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return round(float(laplacian.std()), 2)


def has_sidecar(path: Path) -> bool:
    """Whether another program wrote of a picture beside it: `name.xmp` or `name.jpg.xmp`."""
    with contextlib.suppress(OSError):
        return any(path.with_suffix(end).exists() or Path(f"{path}{end}").exists() for end in _SIDECARS)
    return False


def _worth(facts: dict[str, Any]) -> tuple[float, ...]:
    """Small is better. Sharpness counts from a tenth on: less is what saving does."""
    steps = round(math.log(max(facts["sharpness"], 0.01)) / math.log(1.1))
    return -facts["width"] * facts["height"], -facts["has_sidecar"], -steps, -facts["bytes"]


def _also(hit: Hit, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in hit.also if path.is_relative_to(folder)]
