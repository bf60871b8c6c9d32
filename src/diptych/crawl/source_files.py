"""Files of a source, here or behind any URL that fsspec reads: found, known again, opened. [extra: remote for URLs]"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from diptych.errors import DataError, missing_extra
from diptych.files import expanded, natural_order
from diptych.pairs.remote import is_remote

_BUFFER = 2**20  # bytes
# What stores say of a file that changes with it; the first that is there counts.
_SAID = ("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified", "mtime", "updated", "created")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    path: str  # or its URL
    name: str  # below the source's path


def found_files(path: str) -> list[SourceFile]:
    """The files of a source, in natural order of their names; what starts with a dot is passed over.

    Args:
        path: a file, a folder, a pattern, or the URL of one of these.

    Raises:
        DataError: nothing is there.
        MissingExtraError: it is a URL, and fsspec or what it needs for the scheme is not installed.
    """
    found = _remote(path) if is_remote(path) else _local(path)
    if not found:
        raise DataError(f"{path} must be a file, a folder, a pattern or a URL of a source. Nothing is there.")
    return sorted(found, key=lambda file: [natural_order(part) for part in file.name.split("/")])


def mark_of(path: str) -> str:
    """What changes with a file: size and time of change, or what a store says instead, such as its ETag.

    Args:
        path: of the file, or its URL.

    Raises:
        DataError: it is not there.
    """
    if not is_remote(path):
        try:
            facts = Path(path).stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        return f"{facts.st_size} {facts.st_mtime_ns}"
    with _sentences(path):
        files, root = _file_system(path)
        said = files.info(root)
        return f"{said.get('size')} {next((said[name] for name in _SAID if said.get(name)), '')}"


@contextlib.contextmanager
def open_file(path: str, *, seeks: bool) -> Iterator[BinaryIO]:
    """A file to read from.

    Args:
        path: of the file, or its URL.
        seeks: it is read at random; where a server gives no ranges, a copy of all of it is.

    Raises:
        DataError: it cannot be opened.
        MissingExtraError: as `found_files`.
    """
    with contextlib.ExitStack() as stack:
        with _sentences(path):
            if is_remote(path):
                files, root = _file_system(path)
                remote = stack.enter_context(files.open(root, "rb"))
                if seeks and not _can_seek(remote):
                    copy = stack.enter_context(tempfile.TemporaryFile())
                    shutil.copyfileobj(remote, copy, _BUFFER)
                    copy.seek(0)
                    file: Any = copy
                else:
                    file = stack.enter_context(io.BufferedReader(remote, _BUFFER)) if seeks else remote
            else:
                file = stack.enter_context(Path(path).open("rb", buffering=_BUFFER))
        yield file


def _can_seek(file: Any) -> bool:
    try:
        file.seek(0, os.SEEK_END)  # what `seekable` says is not true of fsspec's streams
        file.seek(0)
    except (OSError, ValueError):
        return False
    return True


def _local(path: str) -> list[SourceFile]:
    top = expanded(path)
    if "*" in path:
        first = next(number for number, part in enumerate(top.parts) if "*" in part)
        folder, pattern = Path(*top.parts[:first]), "/".join(top.parts[first:])
        return [SourceFile(str(found), _below(found, folder)) for found in folder.glob(pattern) if found.is_file()]
    if top.is_file():
        return [SourceFile(str(top), top.name)]
    found = list[SourceFile]()
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(folder, name) for name in names if not name.startswith("."))
        found += [SourceFile(str(file), _below(file, top)) for file in files]
    return found


def _below(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _remote(url: str) -> list[SourceFile]:
    with _sentences(url):
        files, root = _file_system(url)
        if "*" in root:
            fixed, names = root.partition("*")[0].rpartition("/")[0], files.glob(root)
        elif not url.endswith("/") and files.isfile(root):
            return [SourceFile(url, root.rpartition("/")[2])]
        else:
            fixed, names = root.rstrip("/"), files.find(root)
        below = ((name, name.removeprefix(fixed).lstrip("/")) for name in names)
        return [SourceFile(files.unstrip_protocol(name), part) for name, part in below if not _is_hidden(part)]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.url_to_fs(url)


@contextlib.contextmanager
def _sentences(path: str) -> Iterator[None]:
    """Errors of file systems, each of which raises its own, as sentences."""
    try:
        yield
    except ImportError as error:
        raise missing_extra(f"reading {path}", "remote") from error
    except FileNotFoundError as error:
        raise DataError(f"{path} must be there, and is not. Look at the path in the recipe's sources.") from error
    except Exception as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split()) or type(error).__name__}.") from error
