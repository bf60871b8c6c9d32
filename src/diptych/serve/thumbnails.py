"""Small pictures that are drawn once and kept on disk, the least used of them removed beyond a limit."""

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

_KEPT = 0.9  # of the limit, after what was not used for longest was removed
_JPEG = (b"\xff\xd8", b"\xff\xd9")  # how one begins and ends: a power cut may leave half of one


class Thumbnails:
    """A folder of JPEGs by what they were drawn from. Where it cannot be written, each is drawn anew.

    Args:
        folder: made when the first is kept. Nothing else may lie in it.
        most: bytes of all together.
    """

    def __init__(self, folder: Path, *, most: int) -> None:
        self._folder = folder
        self._most = most
        self._bytes = -1  # of all; not counted yet
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """The JPEG that was kept under a key, or a new one that is.

        Args:
            key: all that changes the picture: file, its state, size.
            make: draws it.
        """
        name = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
        file = self._folder / name[:2] / f"{name[2:]}.jpg"
        with contextlib.suppress(OSError):
            data = file.read_bytes()
            if data.startswith(_JPEG[0]) and data.endswith(_JPEG[1]):
                os.utime(file)  # used now
                return data
        data = make()
        with contextlib.suppress(OSError):  # a full disk, a folder that is not ours
            self._put(file, data)
        return data

    def _put(self, file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{secrets.token_hex(4)}.part")
        try:
            aside.write_bytes(data)
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)
        with self._lock:
            if self._bytes < 0:
                self._bytes = sum(size for _, size, _ in self._files())
            else:
                self._bytes += len(data)
            if self._bytes > self._most:
                self._bytes = self._clear()

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was used last, s since 1970; its bytes; the file."""
        found = []
        for file in self._folder.glob("??/*"):
            with contextlib.suppress(OSError):
                facts = file.stat()
                found.append((facts.st_mtime, facts.st_size, file))
        return found

    def _clear(self) -> int:
        """Remove what was not used for longest; the bytes that are left."""
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, file in files:
            if left <= _KEPT * self._most:
                break
            with contextlib.suppress(OSError):
                file.unlink()
                left -= size
        return left
