"""Files that are whole or absent, and folders that one process works in at a time.

What is written goes aside first, to `.NAME.xxxxxxxx.part` in the same folder, is flushed to the disk and renamed.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from diptych.errors import ConfigError, DataError

_PATIENCE = 0.02  # seconds between two tries at a lock
_SEEKING = threading.Lock()
_ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(part|old)")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed over it on success, removed on any failure.

    Raises:
        DataError: the disk is full, the folder cannot be written, or `path` is there and no file, e.g. /dev/null.
    """
    if path.exists() and not path.is_file():  # a rename would put a file in the place of a device
        raise DataError(f"{path} must be a file, or absent. It is something else; choose another name.")
    with _sentence_for_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _beside(path, "part")
        try:
            yield aside
            _sync(path, [aside])
            aside.replace(path)
            _sync(path, [path.parent])
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to fill; it takes the place of `path` on success, and is removed on any failure.

    A folder that stood there is moved aside first, to `.NAME.xxxxxxxx.old`, and removed last: at every moment one
    whole folder exists. A process that is killed between the two renames leaves it there; `remove_leftovers` puts it
    back.

    Raises:
        DataError: the disk is full, the folder cannot be written, or `path` is there and no folder.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} must be a folder, or absent. It is something else; choose another name.")
    with _sentence_for_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside, old = _beside(path, "part"), _beside(path, "old")
        try:
            aside.mkdir()
            yield aside
            _sync(path, [*aside.rglob("*"), aside])
            if path.exists():
                path.rename(old)
            aside.rename(path)
            _sync(path, [path.parent])
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file, whole or not at all; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path as text that any reader takes: a byte that is no UTF-8 as `\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose ~ is a home; one of a user that is not there stays as it is, as a file's name may begin so."""
    return Path(os.path.expanduser(path))  # noqa: PTH111, Path.expanduser raises where there is no such user


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key: picture9 before picture10, whatever the case; names that read the same go by their letters."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def remove_folder(path: Path) -> None:
    """Remove a folder, whole or not at all: under its own name it is never seen in part."""
    aside = _beside(path, "part")
    with _sentence_for_os_errors(path):
        path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Clean a folder of what a killed process was writing. Only for whoever holds the folder's lock."""
    with _sentence_for_os_errors(folder):
        for aside in folder.glob(".*"):
            match = _ASIDE.fullmatch(aside.name)
            if not match:
                continue
            # What stood at a place that is itself aside, as of a bundle in a checkpoint, is a leftover too.
            is_wanted = match[2] == "old" and not _ASIDE.fullmatch(match[1])
            if is_wanted and not (folder / match[1]).exists():
                aside.rename(folder / match[1])
            else:
                shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep a folder, made when absent, to one process. The system lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
        DataError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with _sentence_for_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / ".lock").open("a"))
            try:
                _lock_at_once(file, patience=3)
            except BlockingIOError:
                raise ConfigError(
                    f"{folder} must be free, and another process works in it. Wait for it, or choose another folder."
                ) from None
            stack.callback(_unlock, file)
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process works in a folder, by the lock that it holds. Writes nothing."""
    try:
        with (folder / ".lock").open() as file:
            _lock(file, shared=True)
            _unlock(file)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Wait until no other thread or process holds a lock, whose file is made; for what takes a bounded time.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a") as file:
        while True:
            try:
                _lock(file)
                break
            except BlockingIOError:
                time.sleep(_PATIENCE)
        try:
            yield
        finally:
            _unlock(file)


def _lock_at_once(file: IO[str], *, patience: int) -> None:
    """Take a lock that nobody holds for longer than `is_locked` does, to look at it."""
    for attempt in range(patience):
        try:
            _lock(file)
        except BlockingIOError:
            if attempt == patience - 1:
                raise
            time.sleep(_PATIENCE)
        else:
            return


def _lock(file: IO[str], *, shared: bool = False) -> None:
    """Lock an open file until it is closed or the process ends.

    Raises:
        BlockingIOError: another holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows, whose locks are of ranges of bytes, and never shared
        import msvcrt

        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:  # how it says that another holds it
            raise BlockingIOError(*error.args) from None
    else:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _unlock(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows lets go of what a closed file held when it finds time
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_UN)


def read_at(file: IO[bytes], size: int, offset: int) -> bytes:
    """Bytes of an open file, fewer at its end; safe in many threads, each of which reads where it likes."""
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), size, offset)
    with _SEEKING:  # Windows, where a place is of the file and not of the read
        os.lseek(file.fileno(), offset, os.SEEK_SET)
        return os.read(file.fileno(), size)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{ending}")


def _sync(path: Path, items: Iterable[Path]) -> None:
    """Flush files and folders to the disk, for the sake of `path`."""
    if any(_ASIDE.fullmatch(parent.name) for parent in path.parents):
        return  # a folder that is written aside itself flushes all it holds, once
    for item in items:
        is_folder = item.is_dir()
        with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():  # some systems flush no folder
            handle = os.open(item, os.O_RDONLY if is_folder else os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _sentence_for_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, DataError) as error:
        # A DataError of this kind comes from a file that is written inside of a folder that is: the user knows the
        # outer one by name.
        cause = error.__cause__ if isinstance(error, DataError) else error
        if not isinstance(cause, OSError):
            raise
        reason = cause.strerror or str(cause)
        raise DataError(f"{path} could not be written: {reason}. Nothing was left half-written.") from cause
