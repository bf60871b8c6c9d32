"""From a file on a disk to what the image tower takes: its pixels, facts and digest, or why there are none."""

import hashlib
import importlib.util
import io
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from diptych.data.facts import Facts
from diptych.data.images import Preprocess, open_image
from diptych.data.video import VIDEO_ENDINGS, frame_at, read_video, sample_frames
from diptych.data.walk import FoundFile
from diptych.errors import ImageError, MissingExtraError
from diptych.version import __version__

THUMBNAIL = 256  # px, the longer side
_WHOLE = 64 * 2**20  # bytes up to which a video's digest is of all of it; beyond, of its two ends and its length


@dataclass(frozen=True, eq=False)
class Read:
    """A file that was opened: pixels of each of its frames, or why there are none."""

    found: FoundFile
    digest: bytes | None = None
    facts: Facts = field(default_factory=Facts)
    pixels: tuple[np.ndarray, ...] = ()  # R frames, [S, S, 3] uint8 each
    times: tuple[float | None, ...] = (None,)  # R, s into a video
    fault: str | None = None
    cause: str | None = None  # of the fault, short and countable
    may_pass: bool = False  # the fault may go by itself: a permission, a share, a cable


def readers(preprocess: Preprocess) -> str:
    """Which readers this process has: what one of them refused, the same would refuse again."""
    extras = [name for name in ("pillow_heif", "av") if importlib.util.find_spec(name) is not None]
    return " ".join((f"diptych {__version__} Pillow {PIL.__version__} {preprocess.max_pixels}", *extras))


def read_file(folder: Path, found: FoundFile, preprocess: Preprocess, known: Set[bytes] = frozenset()) -> Read:
    """Open one file: its digest, its facts and its pixels. Safe to call from many threads.

    Args:
        folder: the one that `found.path` is below.
        found: the file.
        preprocess: the model's.
        known: digests whose features are there already; such a file is not decoded.
    """
    path = folder / found.path
    digest = None
    try:
        if path.suffix.lower().removeprefix(".") in VIDEO_ENDINGS:
            digest = _digest_of_video(path)
            if digest in known:
                return Read(found, digest)
            film = read_video(path)
            pixels = tuple(preprocess.pixels(frame.image) for frame in film.frames)
            return Read(found, digest, film.facts, pixels, tuple(frame.time for frame in film.frames))
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        if digest in known:
            return Read(found, digest)
        pixels, facts = preprocess.fast_pixels(data, str(path))
        return Read(found, digest, facts, (pixels,))
    except ImageError as error:
        may_pass = isinstance(error.__cause__, OSError) and error.__cause__.errno is not None
        return Read(found, digest, fault=str(error), cause=error.cause, may_pass=may_pass)
    except MissingExtraError as error:
        return Read(found, digest, fault=str(error), cause="needs an extra")
    except OSError as error:
        cause = error.strerror or str(error)
        return Read(found, digest, fault=f"{path} cannot be opened: {cause}.", cause=cause.lower(), may_pass=True)


def _digest_of_video(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE:
            return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256(str(size).encode())
        for start in (0, size - _WHOLE // 2):
            file.seek(start)
            digest.update(file.read(_WHOLE // 2))
        return digest.digest()


def thumbnail_of(path: Path, *, side: int = THUMBNAIL, seconds: float | None = None) -> bytes:
    """A small JPEG of a picture or of a video.

    Args:
        path: the file.
        side: px, at most, of the longer side.
        seconds: into a video; None is its middle.

    Raises:
        DataError: the file is gone or cannot be read.
    """
    if path.suffix.lower().removeprefix(".") not in VIDEO_ENDINGS:
        image = open_image(path, at_least=side).copy()
    elif seconds is None:
        image = sample_frames(path, most=1)[0].image.copy()
    else:
        image = frame_at(path, seconds)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
