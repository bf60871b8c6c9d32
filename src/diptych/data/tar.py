"""Tar files as random access: one scan of the headers, then any member by offset.

A sample is a run of members that share a key, as in WebDataset: the key is the path up to the first dot of the file
name, the rest is the ending.
"""

import gzip
import io
import tarfile
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from diptych.errors import ShardError
from diptych.files import read_at

Span = tuple[int, int]  # offset and size of a member's content, in bytes of the inflated tar

_BLOCK = 512  # bytes; headers and contents of a tar are padded to it
_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class TarSample:
    key: str
    parts: dict[str, Span]  # by ending, lower case: "jpg", "txt", "cls"


@dataclass(frozen=True)
class TarIndex:
    path: Path
    samples: tuple[TarSample, ...]  # in the order of the file


def scan_tar(path: Path) -> TarIndex:
    """Where each sample lies in a `.tar` or `.tar.gz`.

    Folders, links, files without an ending and files whose name starts with a dot belong to no sample. A leading `./`
    is no part of the key.

    Raises:
        ShardError: the file is missing, is no tar, is cut short or joined from two; a part comes twice, or the parts of
            a sample do not lie next to each other.
    """
    return TarReader(path).index()


def _scan(path: Path, file: BinaryIO) -> TarIndex:
    samples: list[TarSample] = []
    keys: set[str] = set()
    position = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data <= position:  # a negative size would make tarfile walk in circles
                    raise tarfile.ReadError(f"{member.name} has an impossible size")
                position = member.offset_data
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isfile() or not stem or not dot:
                    continue
                if member.issparse():
                    raise ShardError(f"{path}: {member.name} must be stored whole, and is sparse. Pack without -S.")
                key, ending = folder + slash + stem, ending.lower()
                if not samples or samples[-1].key != key:
                    if key in keys:
                        raise ShardError(
                            f"{path}: the parts of a sample must lie next to each other. {key!r} comes in two places. "
                            "Pack the files in sorted order, and each once."
                        )
                    keys.add(key)
                    samples.append(TarSample(key, {}))
                if ending in samples[-1].parts:
                    raise ShardError(f"{path}: each part of a sample must come once. {key}.{ending} comes twice.")
                samples[-1].parts[ending] = (member.offset_data, member.size)
            _check_end(file, tar.offset)
    except _DAMAGED as error:
        if position < 0:
            raise ShardError(
                f"{path} must be a tar file, and is not a readable one ({error}).", f"{path.name} is no tar file"
            ) from error
        raise ShardError(
            f"{path} is cut short or damaged ({error}): {max(len(samples) - 1, 0):,} whole samples come before. "
            "Fetch it or write it again.",
            _ended_early(path),
        ) from error
    except OSError as error:  # after those above, of which one is its child
        raise _unreadable(path, error) from error
    return TarIndex(path, tuple(samples))


class TarReader:
    """The content of members of one tar file. Safe in many threads, cheap to pickle: it travels as its path.

    A `.tar` is read where it lies; a `.tar.gz` is inflated into memory, once, when it is first asked for anything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._opened: BinaryIO | None = None

    def index(self) -> TarIndex:
        """Where each sample lies, as `scan_tar` tells it.

        Raises:
            ShardError: as `scan_tar` does.
        """
        file = self._file()
        with self._lock:
            file.seek(0)
            return _scan(self.path, file)

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of one span.

        Raises:
            ShardError: the file is missing or cannot be read, or ends before the span does.
        """
        file = self._file()
        try:
            content = (
                bytes(file.getbuffer()[offset : offset + size])
                if isinstance(file, io.BytesIO)
                else read_at(file, size, offset)
            )
        except OSError as error:  # a disk or a network mount that fails
            raise _unreadable(self.path, error) from error
        if len(content) != size:
            raise ShardError(
                f"{self.path} is shorter than when it was indexed. Fetch it or write it again.",
                _ended_early(self.path),
            )
        return content

    def _file(self) -> BinaryIO:
        with self._lock:
            if self._opened is None:
                self._opened = _open(self.path)
                weakref.finalize(self, self._opened.close)
            return self._opened

    def __reduce__(self) -> tuple[type["TarReader"], tuple[Path]]:
        return TarReader, (self.path,)


def _open(path: Path) -> BinaryIO:
    """The tar's own bytes: the file itself, or the inflated content in memory."""
    try:
        file = path.open("rb")
        if file.peek(2)[:2] != _GZIP_MAGIC:
            return file
        with file:
            return io.BytesIO(gzip.decompress(file.read()))
    except _DAMAGED as error:  # before OSError, which is a parent of BadGzipFile
        raise ShardError(
            f"{path} is cut short or damaged ({error}). Fetch it or write it again.", _ended_early(path)
        ) from error
    except FileNotFoundError as error:
        raise ShardError(f"{path} cannot be opened: {error.strerror}.", f"{path.name} is missing") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ShardError:
    return ShardError(f"{path} cannot be read: {error.strerror or error}.", f"{path.name} cannot be read")


def _ended_early(path: Path) -> str:
    return f"{path.name} ended early"


def _check_end(file: BinaryIO, offset: int) -> None:
    """A tar ends with blocks of zeros. tarfile takes a missing end, or a damaged header, for the end as well."""
    file.seek(offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise tarfile.ReadError(f"no header and no end mark at byte {offset:,}")
    while rest := file.read(1 << 20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("more data after the end mark, as from `cat a.tar b.tar`")
