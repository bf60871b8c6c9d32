"""Tar files as random access: one scan of the headers, then any member by offset.

A sample is a run of members that share a key, as in WebDataset: the key is the path up to the first dot of the file
name, the rest is the ending. Where pictures would so get one key, as `photo.00.jpg` and `photo.01.jpg` do, and more
pairs come of it, the key goes up to the last dot.
"""

import bz2
import collections
import contextlib
import gzip
import io
import lzma
import tarfile
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from diptych.data.images import PICTURE_ENDINGS
from diptych.errors import ShardError
from diptych.files import read_at

Span = tuple[int, int]  # offset and size of a member's content, in bytes of the inflated tar
_Member = tuple[str, str, Span]  # folder with its slash, name

# Endings of tar files; what compresses one, its first bytes tell.
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")

_BLOCK = 512  # bytes; headers and contents of a tar are padded to it
_COMPRESSORS = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ\0": lzma}
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class TarSample:
    key: str
    parts: dict[str, Span]  # by ending, lower case: "jpg", "txt", "cls"


@dataclass(frozen=True)
class TarIndex:
    path: Path
    samples: Sequence[TarSample]  # in the order of the file
    last_dot: bool = False  # whether keys go up to the last dot of the name
    outside: Mapping[str, int] = field(default_factory=dict)  # files that belong to no sample, by reason


def scan_tar(path: Path) -> TarIndex:
    """Where each sample lies in a `.tar`, or one that gzip, bzip2 or xz made smaller.

    Folders, links, files without an ending and files whose name starts with a dot belong to no sample. A leading `./`
    is no part of the key.

    Raises:
        ShardError: the file is missing, is no tar, is cut short or joined from two; a part comes twice, or the parts of
            a sample do not lie next to each other.
    """
    return TarReader(path).index()


def _scan(path: Path, file: BinaryIO) -> TarIndex:
    members: list[_Member] = []
    outside: collections.Counter[str] = collections.Counter()
    position = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data <= position:  # a negative size would make tarfile walk in circles
                    raise tarfile.ReadError(f"{member.name} has an impossible size")
                position = member.offset_data
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                if reason := _reason_outside(member, name):
                    outside[reason] += not member.isdir()
                    continue
                if member.issparse():
                    raise ShardError(f"{path}: {member.name} must be stored whole, and is sparse. Pack without -S.")
                members.append((folder + slash, name, (member.offset_data, member.size)))
            _check_end(file, tar.offset)
    except _DAMAGED as error:
        if position < 0:
            raise ShardError(
                f"{path} must be a tar file, and is not a readable one ({error}).", f"{path.name} is no tar file"
            ) from error
        whole = max(len({(folder, name.partition(".")[0]) for folder, name, _ in members}) - 1, 0)
        raise ShardError(
            f"{path} is cut short or damaged ({error}): {whole:,} whole samples come before. "
            "Fetch it or write it again.",
            _ended_early(path),
        ) from error
    except OSError as error:  # after those above, of which one is its child
        raise _unreadable(path, error) from error
    samples, last_dot = _grouped(path, members)
    return TarIndex(path, samples, last_dot, +outside)


def _reason_outside(member: tarfile.TarInfo, name: str) -> str:
    """Why a member belongs to no sample; empty where it does."""
    if not member.isfile():
        return "links" if member.islnk() or member.issym() else "others"
    if name.startswith("."):
        return "hidden files"
    return "" if "." in name else "files without an ending"


def _grouped(path: Path, members: Sequence[_Member]) -> tuple[tuple[TarSample, ...], bool]:
    """The samples, and whether their keys go up to the last dot: where that makes more pairs, or the same ones."""
    if all(name.count(".") == 1 for _, name, _ in members):
        return _samples(path, members, last_dot=False), False
    try:
        first = _samples(path, members, last_dot=False)
    except ShardError:
        with contextlib.suppress(ShardError):
            if _pairs(last := _samples(path, members, last_dot=True)):
                return last, True
        raise
    try:
        last = _samples(path, members, last_dot=True)
    except ShardError:
        return first, False
    # No part with a plain ending, and the same samples: the last shard of such a set may hold one alone.
    is_same = len(first) == len(last) and all("." in ending for sample in first for ending in sample.parts)
    if _pairs(last) > _pairs(first) or (is_same and _pairs(last) == _pairs(first)):
        return last, True
    return first, False


def _samples(path: Path, members: Sequence[_Member], *, last_dot: bool) -> tuple[TarSample, ...]:
    samples: list[TarSample] = []
    keys: set[str] = set()
    for folder, name, span in members:
        stem, _, ending = name.rpartition(".") if last_dot else name.partition(".")
        key, ending = folder + stem, ending.lower()
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
        samples[-1].parts[ending] = span
    return tuple(samples)


def _pairs(samples: Sequence[TarSample]) -> int:
    """Samples with a picture and something about it."""
    are_pictures = [[ending.rpartition(".")[2] in PICTURE_ENDINGS for ending in sample.parts] for sample in samples]
    return sum(any(each) and not all(each) for each in are_pictures)


class TarReader:
    """The content of members of one tar file. Safe in many threads, cheap to pickle: it travels as its path.

    A `.tar` is read where it lies; a compressed one is inflated into memory, once, when it is first asked for anything.
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
        head = file.peek(8)
        compressor = next((module for magic, module in _COMPRESSORS.items() if head.startswith(magic)), None)
        if head.startswith(_ZSTD_MAGIC):
            file.close()
            raise ShardError(
                f"{path} must be a tar that is plain or made by gzip, bzip2 or xz, and is zstd's. Unpack it: "
                f"zstd -d {path.name}",
                f"{path.name} is compressed by zstd",
            )
        if compressor is None:
            return file
        with file:
            content = file.read()
        return io.BytesIO(_inflated(path, compressor.decompress, content))
    except _DAMAGED as error:  # before OSError, which is a parent of BadGzipFile
        raise ShardError(
            f"{path} is cut short or damaged ({error}). Fetch it or write it again.", _ended_early(path)
        ) from error
    except FileNotFoundError as error:
        raise ShardError(f"{path} cannot be opened: {error.strerror}.", f"{path.name} is missing") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _inflated(path: Path, inflate: Callable[[bytes], bytes], content: bytes) -> bytes:
    try:
        return inflate(content)
    except (ValueError, OSError) as error:  # what bz2 says of damage
        raise ShardError(
            f"{path} is cut short or damaged ({error}). Fetch it or write it again.", _ended_early(path)
        ) from error


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
