"""Tar files as random access: one scan of the headers, then any member by offset.

A sample is a run of members that share a key, as in WebDataset: the key is the path up to the first dot of the file
name, the rest is the ending.
"""

import gzip
import io
import os
import tarfile
import weakref
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from diptych.errors import ShardError

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
    samples: list[TarSample] = []
    keys: set[str] = set()
    position = -1
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
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
            raise ShardError(f"{path} must be a tar file, and is not a readable one ({error}).") from error
        raise ShardError(
            f"{path} is cut short or damaged ({error}): {max(len(samples) - 1, 0):,} whole samples come before. "
            "Fetch it or write it again."
        ) from error
    return TarIndex(path, tuple(samples))


class TarReader:
    """The content of members of one tar file. Safe in many threads, cheap to pickle: it travels as its path.

    A `.tar` is read where it lies; a `.tar.gz` is inflated into memory by the first read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._read_at: Callable[[int, int], bytes] | None = None

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of one span.

        Raises:
            ShardError: the file is missing, or ends before the span does.
        """
        with self._lock:
            if self._read_at is None:
                self._read_at = self._open()
        content = self._read_at(offset, size)
        if len(content) != size:
            raise ShardError(f"{self.path} is shorter than when it was indexed. Fetch it or write it again.")
        return content

    def _open(self) -> Callable[[int, int], bytes]:
        file = _open(self.path)
        if isinstance(file, io.BytesIO):
            content = file.getbuffer()
            return lambda offset, size: bytes(content[offset : offset + size])
        with file:
            handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, handle)
        return lambda offset, size: os.pread(handle, size, offset)

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
        raise ShardError(f"{path} is cut short or damaged ({error}). Fetch it or write it again.") from error
    except OSError as error:
        raise ShardError(f"{path} cannot be opened: {error.strerror}.") from error


def _check_end(file: BinaryIO, offset: int) -> None:
    """A tar ends with blocks of zeros. tarfile takes a missing end, or a damaged header, for the end as well."""
    file.seek(offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise tarfile.ReadError(f"no header and no end mark at byte {offset:,}")
    while rest := file.read(1 << 20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("more data after the end mark, as from `cat a.tar b.tar`")
