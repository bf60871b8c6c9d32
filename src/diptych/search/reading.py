"""From files on a disk to what the image tower takes: which files there are, and the pixels and facts of one."""

import hashlib
import io
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from diptych.data.facts import Facts
from diptych.data.images import PICTURE_ENDINGS, Preprocess, open_image
from diptych.data.video import VIDEO_ENDINGS, read_video, sample_frames
from diptych.errors import ImageError, MissingExtraError

THUMBNAIL = 256  # px, the longer side
_WHOLE = 64 * 2**20  # bytes up to which a video's digest is of all of it; beyond, of its two ends and its length


class FoundFile(NamedTuple):
    """A file in the folder, not opened yet."""

    path: str  # below the folder, "/" between its parts
    size: int  # bytes
    modified: int  # ns


@dataclass(frozen=True, eq=False)
class Read:
    """A file that was opened: pixels of each of its frames, or why there are none."""

    found: FoundFile
    digest: bytes | None = None
    facts: Facts = field(default_factory=Facts)
    pixels: tuple[np.ndarray, ...] = ()  # R frames, [S, S, 3] uint8 each
    times: tuple[float | None, ...] = (None,)  # R, s into a video
    fault: str | None = None


def find_files(folder: Path) -> Iterator[FoundFile]:
    """Pictures and videos in a folder and its subfolders, by their endings; what starts with a dot is passed over.

    Links to folders are not followed, and a subfolder that cannot be read is passed over.
    """
    endings = {f".{ending}" for ending in (*PICTURE_ENDINGS, *VIDEO_ENDINGS)}
    waiting = [("", str(folder))]
    while waiting:
        inside, path = waiting.pop()
        try:
            items = sorted(os.scandir(path), key=lambda item: item.name)
        except PermissionError:
            continue
        for item in items:
            if item.name.startswith("."):
                continue
            if item.is_dir(follow_symlinks=False):
                waiting.append((f"{inside}{item.name}/", item.path))
            elif os.path.splitext(item.name)[1].lower() in endings and item.is_file():  # noqa: PTH122, a Path is slow
                try:
                    facts = item.stat()
                except OSError:  # gone meanwhile
                    continue
                if not item.name.isascii() and not _is_text(item.name):
                    continue
                yield FoundFile(f"{inside}{item.name}", facts.st_size, facts.st_mtime_ns)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    except (ImageError, MissingExtraError) as error:
        return Read(found, digest, fault=str(error))
    except OSError as error:
        return Read(found, digest, fault=f"{path} cannot be opened: {error.strerror or error}.")


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


def thumbnail_of(path: Path, *, side: int = THUMBNAIL) -> bytes:
    """A small JPEG of a picture or of a video's first sampled frame.

    Raises:
        DataError: the file is gone or cannot be read.
    """
    is_video = path.suffix.lower().removeprefix(".") in VIDEO_ENDINGS
    image = sample_frames(path, most=1)[0].image if is_video else open_image(path, at_least=side)
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
