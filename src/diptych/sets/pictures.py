"""Pictures of an evaluation set, found but not yet read: what every kind of set shares."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from diptych.data.images import open_image
from diptych.data.tar import Span, TarReader


class Stored(Protocol):
    """One picture's file, wherever it lies. A `Path` is one."""

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A file within a tar."""

    reader: TarReader
    span: Span

    def read_bytes(self) -> bytes:
        return self.reader.read(*self.span)


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A picture that lies in a file with others as bare numbers, as the file of its own that it could be (PPM)."""

    values: np.ndarray  # [H, W, 3] or [H, W] uint8

    def read_bytes(self) -> bytes:
        height, width = self.values.shape[:2]
        kind = "P6" if self.values.ndim == 3 else "P5"
        return f"{kind} {width} {height} 255\n".encode() + np.ascontiguousarray(self.values).tobytes()


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """What a layout gives of one split."""

    classnames: Sequence[str]
    rows: Sequence[tuple[str, Stored, int]]  # key, file, number of the class


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """One split of a set; a picture is read when asked for. Safe in many threads; pickles."""

    name: str
    split: str
    keys: tuple[str, ...]  # N of them, unique: "SHARD/KEY", "CLASS/FILE" or as the set has it
    _sources: tuple[Stored, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def image_bytes(self, index: int) -> bytes:
        """The file of one picture as it is.

        Raises:
            ShardError: its shard is gone or shorter than it was.
        """
        return self._sources[index].read_bytes()

    def open(self, index: int) -> Image.Image:
        """One picture as RGB.

        Raises:
            ImageError: the picture cannot be read; the message names its key.
        """
        source = self._sources[index]
        if isinstance(source, Path):
            return open_image(source)
        file = io.BytesIO(source.read_bytes())
        file.name = f"{self.name}/{self.split}/{self.keys[index]}"  # what open_image calls it in its errors
        return open_image(file)
