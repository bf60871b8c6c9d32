"""Files as they are on the disk: whole, in parts as players ask for them, several as one zip, or to the trash."""

import io
import mimetypes
import re
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diptych.errors import DataError, missing_extra
from diptych.files import shown
from diptych.serve.refusals import RefusedError

_BLOCK = 2**18  # bytes that are read at a time
_PART = 4 * 2**20  # bytes of one answer to who asks for a part: players ask on, and no answer lies for long
_KINDS = {".mkv": "video/x-matroska", ".webp": "image/webp", ".avif": "image/avif", ".heic": "image/heic"}
_DATED = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows


class Original(NamedTuple):
    """An answer: of HTTP its status and headers, and what follows."""

    status: int
    headers: dict[str, str]
    blocks: Iterator[bytes]


def original_of(path: Path, asked: str, *, as_file: bool, data: bytes | None = None) -> Original:
    """A file, or the part of it that a request asks for.

    Args:
        path: a plain file.
        asked: the header Range; empty asks for all.
        as_file: to be kept as a file, not shown.
        data: sent in its place.

    Raises:
        OSError: it cannot be read.
        RefusedError: the file has no such part.
    """
    size = path.stat().st_size if data is None else len(data)
    kind = _KINDS.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if not kind.startswith(("image/", "video/")) or kind == "image/svg+xml":
        kind = "application/octet-stream"
    name = urllib.parse.quote(shown(path.name))
    headers = {
        "Content-Type": kind,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"{'attachment' if as_file else 'inline'}; filename*=UTF-8''{name}",
    }
    start, end, status = 0, size, 200
    if match := re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip()):
        first, last = match.groups()
        if first:
            start = int(first[:20])
            end = min(size, int(last[:20]) + 1) if last else size
        elif last:
            start = max(0, size - int(last[:20]))
        if start >= size or end <= start:
            raise RefusedError(416, f"a part must lie within the file's {size:,} bytes.", "range")
        end, status = min(end, start + _PART), 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return Original(status, headers, _blocks(path, start, end) if data is None else iter([data[start:end]]))


def _blocks(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (block := file.read(min(_BLOCK, end - start))):
            start += len(block)
            yield block


class _Pipe(io.RawIOBase):
    """What a zip is written to, taken out block by block."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


def zip_of(
    files: Sequence[tuple[str, Path]], data_of: Callable[[Path], bytes | None] = lambda _: None
) -> Iterator[bytes]:
    """Files as one zip, made while it is read: pictures are packed already, so they are stored as they are.

    Args:
        files: names within the zip, and files. What cannot be read is left out, and named in `not-read.txt`.
        data_of: what is sent in the place of a file; None sends it as it is.
    """
    pipe = _Pipe()
    missing: list[str] = []
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            try:
                data = data_of(path)
                source = path.open("rb") if data is None else io.BytesIO(data)
            except OSError as error:
                missing.append(f"{name}: {error.strerror or error}")
                continue
            except RefusedError as error:
                missing.append(f"{name}: {error}")
                continue
            with source:
                facts = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
                with archive.open(facts, "w", force_zip64=True) as target:
                    while block := source.read(_BLOCK):
                        target.write(block)
                        yield pipe.taken()
        if missing:
            archive.writestr(zipfile.ZipInfo("not-read.txt", _DATED), "\n".join(missing) + "\n")
    yield pipe.taken()


def to_trash(path: Path) -> None:
    """Move a file to the system's trash, from which it can be taken back.

    Raises:
        DataError: the system has no trash for it.
        MissingExtraError: Send2Trash is not installed.
    """
    try:
        import send2trash
    except ImportError:
        raise missing_extra("moving pictures to the trash", "serve") from None
    try:
        send2trash.send2trash(str(path))
    except OSError as error:  # its own errors are such
        raise DataError(f"{shown(path.name)} cannot be moved to the trash: {error.strerror or error}.") from error
