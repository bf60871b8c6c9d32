"""Tar shards of pairs, in the WebDataset layout, read at random.

A sample is a run of members that share a key: `KEY.webp` (or jpg, png, ...) and `KEY.txt`, one caption a line.
The writer ends a folder with `manifest.json`: counts, sizes and SHA-256 of all shards. A folder without one is foreign
(or unfinished) and is counted by reading every shard's headers. Shards may be `.tar.gz`: those are inflated whole,
in memory, which suits the small sets that travel inside a package. A folder behind a URL needs a manifest; its shards
are fetched whole, when their first sample is asked for.
"""

import bisect
import contextlib
import functools
import gzip
import hashlib
import io
import itertools
import json
import tarfile
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from diptych.data.images import PICTURE_ENDINGS
from diptych.data.tar import TarReader, TarSample
from diptych.errors import DataError, ShardError
from diptych.files import atomic_file, sha256, write_json
from diptych.pairs.remote import RemoteConfig, RemoteFolder, is_remote

MANIFEST = "manifest.json"
SHARDS_FORMAT = "diptych-shards-1"

UNTYPED_PICTURE = "picture"  # in place of an ending, where no file name tells what kind the picture is

_OPEN_SHARDS = 256  # files that one set holds open
_OPEN_REMOTE_SHARDS = 32  # an open file keeps its place on the disk, also when the cache has let go of it


class ShardWriter:
    """Writes samples into numbered shards of a folder; the manifest comes last, and only when nothing failed.

    Args:
        folder: made when absent.
        samples_per_shard: samples a shard, the last one excepted.
        compress: `.tar.gz`, for small sets that travel inside a package.
        name: file name of a shard without its ending, with `{}` for its number.

    Raises:
        ShardError: the folder holds shards already, which would mix with the new ones.
    """

    def __init__(
        self, folder: Path, *, samples_per_shard: int = 10_000, compress: bool = False, name: str = "shard-{:05d}"
    ) -> None:
        if there := [path.name for path in (folder / MANIFEST, *_shard_files(folder)) if path.exists()]:
            raise ShardError(f"{folder} must hold no shards yet, and has {there[0]}. Write to another folder.")
        self._folder = folder
        self._samples_per_shard = samples_per_shard
        self._compress = compress
        self._name = name + (".tar.gz" if compress else ".tar")
        self._shards: list[dict[str, str | int]] = []
        self._keys: set[str] = set()
        self._waiting: list[tuple[str, Mapping[str, bytes]]] = []  # the samples of the next shard

    def add(self, key: str, parts: Mapping[str, bytes]) -> None:
        """One sample.

        Args:
            key: unique; without a dot in its last component, where WebDataset cuts the ending off.
            parts: content by ending, e.g. {"jpg": ..., "txt": ...}.

        Raises:
            ShardError: the key came before, has a dot or is empty.
            DataError: the shard that is full now cannot be written.
        """
        name = key.rsplit("/", 1)[-1]
        if key in self._keys or not name or "." in name:
            raise ShardError(f"a sample's key must be unique, with a name that has no dot. Got {key!r}.")
        self._keys.add(key)
        self._waiting.append((key, parts))
        if len(self._waiting) == self._samples_per_shard:
            self._write_shard()

    def _write_shard(self) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for key, parts in self._waiting:
                for ending, content in parts.items():
                    member = tarfile.TarInfo(f"{key}.{ending}")  # time 0, no owner: same samples, same bytes
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        path = self._folder / self._name.format(len(self._shards))
        with atomic_file(path) as aside:
            aside.write_bytes(gzip.compress(buffer.getbuffer(), mtime=0) if self._compress else buffer.getbuffer())
        facts = {"file": path.name, "samples": len(self._waiting), "bytes": path.stat().st_size, "sha256": sha256(path)}
        self._shards.append(facts)
        self._waiting = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._waiting:
                self._write_shard()
            total = len(self._keys)
            write_json(self._folder / MANIFEST, {"format": SHARDS_FORMAT, "samples": total, "shards": self._shards})


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a shard, or as other sources put it."""

    key: str
    parts: Mapping[str, bytes]  # content by ending, e.g. {"webp": ..., "txt": ...}

    @property
    def picture(self) -> bytes | None:
        """The first part that is a picture by its ending."""
        return next(
            (part for ending, part in self.parts.items() if ending in (*PICTURE_ENDINGS, UNTYPED_PICTURE)), None
        )


def captions_of(sample: Sample) -> list[str]:
    """The captions of a sample, one a line of its `txt` part.

    Raises:
        DataError: there is no caption, or it is not UTF-8; the message is the cause.
    """
    try:
        lines = sample.parts["txt"].decode("utf-8").splitlines()
    except KeyError:
        raise DataError("no caption") from None
    except UnicodeDecodeError:
        raise DataError("caption not UTF-8") from None
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise DataError("no caption")
    return captions


@dataclass(frozen=True)
class _Shard:
    name: str  # of the file
    samples: int
    size: int  # bytes
    sha256: str  # empty where no manifest tells it


class ShardSet:
    """The samples of a folder of shards, or of one shard, in a fixed order. Safe in many threads.

    The headers of a shard are read when its first sample is asked for, and are kept.

    Args:
        path: a folder with `*.tar` or `*.tar.gz` files, one such file, or the URL of a folder with a manifest.
        max_bad: share of the samples that may lie in shards that are missing or of another size than the manifest
            says; reading one of those samples is an error.
        remote: how a URL is read.

    Raises:
        ShardError: no shard is there, or one is missing, cut short or not a tar file, or a key comes twice. Behind a
            URL: the manifest cannot be fetched.
    """

    def __init__(self, path: Path | str, *, max_bad: float = 0.0, remote: RemoteConfig | None = None) -> None:
        self.path = path
        self._remote = RemoteFolder(str(path), remote or RemoteConfig()) if is_remote(str(path)) else None
        is_one = self._remote is None and Path(path).is_file()
        self._folder = Path(path).parent if is_one else Path(path)
        self._lost: dict[int, ShardError] = {}  # shards that cannot be read, and why: no use in trying again and again
        # Of this set, not of the process: a folder that is written anew must not be read by old offsets.
        kept = _OPEN_REMOTE_SHARDS if self._remote else _OPEN_SHARDS
        self._reader = functools.lru_cache(maxsize=kept)(self._open)
        self._index = functools.lru_cache(maxsize=kept if self._remote else None)(
            lambda number: self._reader(number).index().samples
        )
        self._shards: list[_Shard] = []
        if self._remote:
            self._shards = _listed(f"{path}/{MANIFEST}", self._remote.read(MANIFEST))
        elif not is_one and (self._folder / MANIFEST).is_file():
            self._shards = _listed(str(self._folder / MANIFEST), (self._folder / MANIFEST).read_bytes())
            self._check_sizes(max_bad)
        else:
            self._find([Path(path)] if is_one else _shard_files(self._folder))
        self.shard_ends: Sequence[int] = list(itertools.accumulate(shard.samples for shard in self._shards))
        if not len(self):
            raise ShardError(f"{path} must be a folder with .tar shards of pairs, or one shard. It holds no sample.")

    def __len__(self) -> int:
        return self.shard_ends[-1] if self.shard_ends else 0

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            ShardError: its shard is missing or cut short by now, is not what the manifest says, or cannot be fetched.
        """
        number, entry = self._entry(index)
        return self._read(number, entry, entry.parts)

    def captions(self, index: int) -> list[str]:
        """The captions of one sample, without reading its picture.

        Raises:
            ShardError: as for the sample.
            DataError: there is no caption, or it is not UTF-8; the message is the cause.
        """
        number, entry = self._entry(index)
        return captions_of(self._read(number, entry, [ending for ending in entry.parts if ending == "txt"]))

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and counts of all shards; where it changes, so do the samples or their order."""
        facts = [(shard.name, shard.size, shard.samples) for shard in self._shards]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def bytes_at_once(self, shards: int) -> int:
        """Bytes at most of so many shards; of all for 0."""
        sizes = sorted((shard.size for shard in self._shards), reverse=True)
        return sum(sizes[:shards] if shards else sizes)

    def fetch_ahead(self, shards: Sequence[int]) -> None:
        """Begin to fetch some shards by their numbers; what goes wrong is told when a sample of one is asked for."""

        def fetch() -> None:
            for number in shards:
                with contextlib.suppress(ShardError):
                    self._local(number)

        if self._remote:
            threading.Thread(target=fetch, name="diptych-fetch", daemon=True).start()

    def _entry(self, index: int) -> tuple[int, TarSample]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in 0 to {len(self) - 1}. Got {index}.")
        number = bisect.bisect_right(self.shard_ends, index)
        if error := self._lost.get(number):
            raise ShardError(str(error), error.cause)
        shard = self._shards[number]
        try:
            samples = self._index(number)
            if len(samples) != shard.samples:
                raise ShardError(
                    f"{self._folder / shard.name} must hold {shard.samples:,} samples, as {MANIFEST} says. "
                    f"It holds {len(samples):,}.",
                    f"{shard.name} is not what {MANIFEST} says",
                )
        except ShardError as error:
            self._lost[number] = error
            raise
        return number, samples[index - self.shard_ends[number] + shard.samples]

    def _read(self, number: int, entry: TarSample, endings: Iterable[str]) -> Sample:
        reader = self._reader(number)
        return Sample(entry.key, {ending: reader.read(*entry.parts[ending]) for ending in endings})

    def _open(self, number: int) -> TarReader:
        return TarReader(self._local(number))

    def _local(self, number: int) -> Path:
        shard = self._shards[number]
        return self._remote.fetch(shard.name, shard.size, shard.sha256) if self._remote else self._folder / shard.name

    def _check_sizes(self, max_bad: float) -> None:
        for number, shard in enumerate(self._shards):
            path = self._folder / shard.name
            found = path.stat().st_size if path.is_file() else None
            if found != shard.size:
                state, cause = (
                    ("is missing", "is missing")
                    if found is None
                    else (f"is cut short or was changed: {found:,} bytes, not {shard.size:,}", "ended early")
                )
                self._lost[number] = ShardError(
                    f"{path} {state}. Copy it again, or remove {MANIFEST} to read what is there.",
                    f"{shard.name} {cause}",
                )
        if sum(self._shards[number].samples for number in self._lost) > max_bad * sum(s.samples for s in self._shards):
            raise next(iter(self._lost.values()))

    def _find(self, paths: Sequence[Path]) -> None:
        hashes = array("q")
        for number, path in enumerate(paths):
            self._shards.append(_Shard(path.name, 0, 0, ""))
            samples = self._index(number)
            hashes.extend(key_hash(sample.key) for sample in samples)
            self._shards[-1] = _Shard(path.name, len(samples), path.stat().st_size, "")
        if len(np.unique(np.asarray(hashes))) < len(hashes):
            self._name_twice()

    def _name_twice(self) -> None:
        home: dict[str, str] = {}
        for number, shard in enumerate(self._shards):
            for sample in self._index(number):
                if sample.key in home:
                    raise ShardError(
                        f"{self.path}: a key must come once. {sample.key!r} is in {home[sample.key]} and {shard.name}. "
                        "Pack them anew, or give each shard as a source of its own."
                    )
                home[sample.key] = shard.name


def write_manifest(folder: Path) -> None:
    """Count and hash the shards of a folder that another tool wrote, so that it opens without a scan, also remotely.

    Raises:
        ShardError: a shard is damaged, there is none, or a manifest is there already.
        DataError: the manifest cannot be written.
    """
    if (folder / MANIFEST).exists():
        raise ShardError(f"{folder} must have no {MANIFEST} yet. Remove it to have it written anew.")
    found = ShardSet(folder)
    shards = [
        {"file": shard.name, "samples": shard.samples, "bytes": shard.size, "sha256": sha256(folder / shard.name)}
        for shard in found._shards
    ]
    write_json(folder / MANIFEST, {"format": SHARDS_FORMAT, "samples": len(found), "shards": shards})


def key_hash(key: str) -> int:
    """64 bits of a key, the same on any machine."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _listed(name: str, content: bytes) -> list[_Shard]:
    """The shards of a manifest.

    Args:
        name: of the manifest, for messages.
        content: of the file.
    """
    try:
        manifest = json.loads(content)
        shards = [
            _Shard(str(shard["file"]), int(shard["samples"]), int(shard["bytes"]), str(shard["sha256"]))
            for shard in manifest["shards"]
        ]
        # A manifest from elsewhere must not lead out of its folder.
        known = manifest["format"] == SHARDS_FORMAT and all(Path(shard.name).name == shard.name for shard in shards)
    except (ValueError, KeyError, TypeError):
        known, shards = False, []
    if not known:
        raise ShardError(f"{name} must be a manifest of {SHARDS_FORMAT}. Remove it to read the folder without.")
    return shards


def _shard_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.endswith((".tar", ".tar.gz")))
