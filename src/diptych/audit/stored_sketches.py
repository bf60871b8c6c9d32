"""Sketches of many pictures, part by part on disk: made once, and used again whatever the threshold.

Part p holds the pictures from p times the part's size on. It is whole or absent, so whoever is started again does what
is absent. Of each picture 64 x 64 grey values and 128 numbers of the detector are kept, 4.4 kB; of known ones more.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from diptych.curate.copies import Sketches, detector_sha256, small_grey
from diptych.data.ahead import decoded_ahead
from diptych.errors import DataError, ImageError
from diptych.files import atomic_file, remove_leftovers

PART_SIZE = 10_000  # pictures
_SKETCHES = "diptych-sketches-1"
_BATCH = 256  # pictures that are decoded ahead


@dataclass(frozen=True, kw_only=True)
class PictureList:
    """Pictures that are read by number."""

    name: str  # of the folder of their parts
    count: int
    fingerprint: str  # changes with the pictures or their order
    read: Callable[[int], tuple[str, bytes | None]]  # key, and the file, None where there is none


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Sketches of those pictures of a part that can be read."""

    keys: tuple[str, ...]  # N of them
    numbers: np.ndarray  # [N] int64, of the pictures in their list
    sketches: Sketches  # N rows
    skipped: dict[str, int]  # those that cannot be read, by cause


class StoredSketches:
    """The sketches of a list of pictures in a folder.

    Args:
        pictures: whose.
        folder: its parts lie in a subfolder; another detector or other pictures have another.
        part_size: pictures of a part: what is in memory at once.
        known: see `Sketches.of`.
    """

    def __init__(self, pictures: PictureList, folder: Path, *, part_size: int = PART_SIZE, known: bool = False) -> None:
        facts = (_SKETCHES, detector_sha256(), pictures.fingerprint, str(part_size), str(known))
        name = hashlib.sha256("\n".join(facts).encode(errors="surrogateescape")).hexdigest()[:16]
        self.folder = folder / f"{pictures.name}-{name}"
        self._pictures, self._part_size, self._known = pictures, part_size, known

    @property
    def count(self) -> int:
        return self._pictures.count

    def make(self, on_progress: Callable[[int, int], None] = lambda _done, _all: None) -> None:
        """Make the parts that are not there.

        Args:
            on_progress: called with pictures done and all there are.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        for part in self._parts():
            numbers = range(part * self._part_size, min(self.count, (part + 1) * self._part_size))
            if not self._path(part).exists():
                self._make(part, numbers, lambda done: on_progress(done, self.count))
            on_progress(numbers.stop, self.count)

    def parts(self) -> Iterator[Part]:
        """All parts, in their order, one in memory at a time.

        Raises:
            DataError: one is not there, or cannot be read.
        """
        for part in self._parts():
            path = self._path(part)
            try:
                with safetensors.safe_open(path, framework="numpy") as file:
                    about = file.metadata()
                    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
            except (OSError, safetensors.SafetensorError) as error:
                raise DataError(
                    f"{path} must hold sketches of pictures. Remove it, and start again: {error}."
                ) from None
            yield Part(
                keys=tuple(json.loads(about["keys"])),
                numbers=arrays.pop("numbers"),
                sketches=Sketches(**arrays | {"features": arrays["features"].astype(np.float32)}),
                skipped=json.loads(about["skipped"]),
            )

    def _parts(self) -> range:
        return range(-(-self.count // self._part_size))

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:06}.safetensors"

    def _make(self, part: int, numbers: range, on_progress: Callable[[int], None]) -> None:
        keys: list[str] = []
        good: list[int] = []
        small: list[np.ndarray] = []
        skipped: dict[str, int] = {}
        with decoded_ahead(self._read, numbers, _BATCH) as ready:
            for number, (key, picture) in zip(numbers, ready, strict=True):
                if isinstance(picture, str):
                    skipped[picture] = skipped.get(picture, 0) + 1
                else:
                    keys.append(key)
                    good.append(number)
                    small.append(picture)
                if (number + 1) % _BATCH == 0:
                    on_progress(number + 1)
        sketches = Sketches.of(small, known=self._known)
        arrays = {
            **vars(sketches),
            "features": sketches.features.astype(np.float16),
            "numbers": np.array(good, np.int64),
        }
        about = {"format": _SKETCHES, "keys": json.dumps(keys), "skipped": json.dumps(skipped)}
        with atomic_file(self._path(part)) as aside:
            aside.write_bytes(safetensors.numpy.save(arrays, metadata=about))

    def _read(self, number: int) -> tuple[str, np.ndarray | str]:
        """A picture's key, and the picture or the cause why there is none."""
        key = f"#{number}"
        try:
            key, picture = self._pictures.read(number)
            return key, "no picture" if picture is None else small_grey(picture)
        except ImageError as error:
            return key, error.cause
        except DataError as error:
            return key, str(error)
