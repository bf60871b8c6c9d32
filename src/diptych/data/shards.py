"""Tar shards of pairs, in the WebDataset layout, read at random.

A sample is a run of members that share a key: `KEY.webp` (or jpg, png, ...) and `KEY.txt`, one caption a line.
The writer ends a folder with `manifest.json`: counts, sizes and SHA-256 of all shards. A folder without one is foreign
(or unfinished) and is counted by reading every shard's headers. Shards may be `.tar.gz`: those are inflated whole,
in memory, which suits the small sets that travel inside a package.
"""

import bisect
import functools
import gzip
import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from diptych.data.tar import TarReader, scan_tar
from diptych.errors import ShardError
from diptych.files import atomic_file, sha256, write_json

MANIFEST = "manifest.json"
FORMAT = "diptych-shards-1"

_OPEN_SHARDS = 256  # files that one set holds open


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
            write_json(self._folder / MANIFEST, {"format": FORMAT, "samples": total, "shards": self._shards})


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a shard."""

    key: str
    parts: Mapping[str, bytes]  # content by ending, e.g. {"webp": ..., "txt": ...}


class ShardSet:
    """The samples of a folder of shards, or of one shard, in a fixed order. Safe in many threads.

    The headers of a shard are read when its first sample is asked for, and are kept.

    Args:
        path: a folder with `*.tar` or `*.tar.gz` files, or one such file.

    Raises:
        ShardError: no shard is there, or one is missing, cut short or not a tar file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Of this set, not of the process: a folder that is written anew must not be read by old offsets.
        self._scan = functools.cache(lambda shard: scan_tar(shard).samples)
        self._reader = functools.lru_cache(maxsize=_OPEN_SHARDS)(TarReader)
        self._paths, self._counts = _listed(path) if (path / MANIFEST).is_file() else self._found()
        self._ends = list(itertools.accumulate(self._counts))
        if not len(self):
            raise ShardError(f"{path} must be a folder with .tar shards of pairs, or one shard. It holds no sample.")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            ShardError: its shard is missing or cut short by now, or is not what the manifest says.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in 0 to {len(self) - 1}. Got {index}.")
        number = bisect.bisect_right(self._ends, index)
        path, count = self._paths[number], self._counts[number]
        samples = self._scan(path)
        if len(samples) != count:
            raise ShardError(f"{path} must hold {count:,} samples, as {MANIFEST} says. It holds {len(samples):,}.")
        entry = samples[index - self._ends[number] + count]
        return Sample(entry.key, {ending: self._reader(path).read(*span) for ending, span in entry.parts.items()})

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and counts of all shards; where it changes, so do the samples or their order.

        Raises:
            ShardError: a shard is missing by now.
        """
        try:
            facts = [(path.name, path.stat().st_size, n) for path, n in zip(self._paths, self._counts, strict=True)]
        except OSError as error:
            raise ShardError(f"{error.filename} cannot be read: {error.strerror}.") from error
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _found(self) -> tuple[list[Path], list[int]]:
        paths = [self.path] if self.path.is_file() else _shard_files(self.path)
        return paths, [len(self._scan(path)) for path in paths]


def _listed(folder: Path) -> tuple[list[Path], list[int]]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        shards = [(folder / shard["file"], int(shard["samples"]), int(shard["bytes"])) for shard in manifest["shards"]]
        known = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        known, shards = False, []
    if not known:
        raise ShardError(f"{path} must be a manifest of {FORMAT}. Remove it to read the folder without.")
    for shard, _, size in shards:
        found = shard.stat().st_size if shard.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"is cut short or was changed: {found:,} bytes, not {size:,}"
            raise ShardError(f"{shard} {state}. Copy it again, or remove {MANIFEST} to read what is there.")
    return [shard for shard, _, _ in shards], [samples for _, samples, _ in shards]


def _shard_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.endswith((".tar", ".tar.gz")))
