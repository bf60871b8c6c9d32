"""Tar shards of pairs, in the WebDataset layout, read at random.

A sample is a run of members that share a key: `KEY.webp` (or jpg, png, ...) and `KEY.txt`, one caption a line; shards
of others may name them otherwise (`samples.Members`). The writer ends a folder with `manifest.json`: counts, sizes and
SHA-256 of all shards. A folder without one is foreign (or unfinished) and is counted by reading every shard's headers.
Shards may be compressed: those are inflated whole, in memory, which suits the small sets that travel inside a package.
A folder behind a URL needs a manifest; its shards are fetched whole, when their first sample is asked for.
"""

import bisect
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import itertools
import json
import re
import tarfile
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from diptych.data.tar import TAR_ENDINGS, TarIndex, TarReader, TarSample
from diptych.errors import DataError, ShardError
from diptych.files import atomic_file, sha256, write_json
from diptych.pairs.packed import PackedSamples
from diptych.pairs.remote import RemoteConfig, RemoteFolder, is_remote
from diptych.pairs.samples import Ledger, Members, Sample, captions_of, counted, key_hash, splits_said

MANIFEST = "manifest.json"
SHARDS_FORMAT = "diptych-shards-1"

_INSIDE = re.compile(r"(?!\.\.?/)[^/\\]+(?:/(?!\.\.?$)[^/\\]+)?")  # a file of the folder, or of a folder in it
_LOOKED_AT = 100  # samples whose captions are read before a run
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
        if there := [path.name for path in (folder / MANIFEST, *shard_files(folder)) if path.exists()]:
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
        path = self._folder / self._name.format(len(self._shards))
        self._shards.append(write_shard(path, self._waiting, compress=self._compress))
        self._waiting = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._waiting:
                self._write_shard()
            list_shards(self._folder, self._shards)


def write_shard(
    path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]], *, compress: bool = False
) -> dict[str, str | int]:
    """One shard, whole or not at all: same samples, same bytes.

    Args:
        path: of the shard.
        samples: (key, content by ending) each.
        compress: with gzip.

    Returns:
        What the manifest says of it.
    """
    buffer, count = io.BytesIO(), 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for key, parts in samples:
            count += 1
            for ending, content in parts.items():
                member = tarfile.TarInfo(f"{key}.{ending}")  # time 0, no owner
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with atomic_file(path) as aside:
        aside.write_bytes(gzip.compress(buffer.getbuffer(), mtime=0) if compress else buffer.getbuffer())
    return {"file": path.name, "samples": count, "bytes": path.stat().st_size, "sha256": sha256(path)}


def list_shards(folder: Path, shards: Sequence[Mapping[str, str | int]]) -> None:
    """Write the manifest of shards, of which `write_shard` told the facts."""
    total = sum(int(shard["samples"]) for shard in shards)
    write_json(folder / MANIFEST, {"format": SHARDS_FORMAT, "samples": total, "shards": list(shards)})


@dataclass(frozen=True)
class _Shard:
    name: str  # of the file
    samples: int
    size: int  # bytes
    sha256: str  # empty where no manifest tells it


class ShardSet:
    """The samples of a folder of shards, or of one shard, in a fixed order. Safe in many threads.

    The headers of a shard are read when its first sample is asked for, and are kept; where a manifest tells its
    SHA-256, that is looked at then. Where shards have keys in common, the name of the shard goes before the key.

    Args:
        path: a folder with tar files (`TAR_ENDINGS`), or with folders of them, one such file, a pattern of their names
            (`FOLDER/*train*`), or the URL of a folder with a manifest.
        members: which members are pictures and captions.
        max_bad: share of the samples that may lie in shards that are missing or of another size than the manifest
            says; reading one of those samples is an error.
        remote: how a URL is read.
        verify: whether the SHA-256 of shards on a local disk is looked at; of fetched ones it always is.

    Raises:
        ShardError: no shard is there, or one is missing, cut short or not a tar file. Behind a URL: the manifest cannot
            be fetched.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        members: Members | None = None,
        max_bad: float = 0.0,
        remote: RemoteConfig | None = None,
        verify: bool = True,
    ) -> None:
        self.path = path
        self._members = members or Members()
        self._verify = verify
        self._remote = RemoteFolder(str(path), remote or RemoteConfig()) if is_remote(str(path)) else None
        is_one = self._remote is None and (Path(path).is_file() or "*" in Path(path).name)
        self._folder = Path(path).parent if is_one else Path(path)
        self._lost: dict[int, ShardError] = {}  # shards that cannot be read, and why: no use in trying again and again
        # Of this set, not of the process: a folder that is written anew must not be read by old offsets.
        kept = _OPEN_REMOTE_SHARDS if self._remote else _OPEN_SHARDS
        self._reader = functools.lru_cache(maxsize=kept)(self._open)
        self._index = functools.lru_cache(maxsize=kept if self._remote else None)(self._scan)
        self._verifying: dict[int, threading.Lock] = {}
        self._verified: set[int] = set()
        self._shards: list[_Shard] = []
        self._repeats_keys = False  # from shard to shard
        if self._remote:
            self._shards, self._repeats_keys = _listed(f"{path}/{MANIFEST}", self._remote.read(MANIFEST))
        elif not is_one and (self._folder / MANIFEST).is_file():
            name = self._folder / MANIFEST
            self._shards, self._repeats_keys = _listed(str(name), name.read_bytes())
            self._check_sizes(max_bad)
        else:
            self._find(shard_files(Path(path)))
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

    def check(self) -> list[str]:
        """See `Pairs`; of shards behind a URL nothing is read for it, of those with a manifest the first headers."""
        ledger, names = Ledger(), list[str]()
        for number, shard in enumerate(self._shards if not self._remote else []):
            try:
                index = self._index(number)
            except ShardError as error:  # its samples are counted as bad ones
                self._lost[number] = error
                continue
            ledger.add_shard(index, self._members)
            names.append(shard.name)
            if shard.sha256 and ledger.paired:
                break
        if ledger.samples and not (ledger.paired and self._has_captions()):
            raise ShardError(self._nothing_paired(ledger))
        said = ledger.sentences() + splits_said(shard.name for shard in self._shards)
        if self._repeats_keys:
            said.append("keys come again in other shards, so the name of its shard goes before each")
        where = f" ({names[0]} of {len(self._shards):,} shards)" if len(names) == 1 < len(self._shards) else ""
        return [f"{self.path}{where}: {sentence}." for sentence in said]

    def key(self, index: int) -> str:
        """See `Pairs`."""
        return self._key(*self._entry(index))

    def captions(self, index: int) -> list[str]:
        """The captions of one sample, without reading its picture.

        Raises:
            ShardError: as for the sample.
            DataError: there is no caption, or it is not UTF-8; the message is the cause.
        """
        number, entry = self._entry(index)
        texts = {ending for ending, _ in self._members.texts(entry.parts)}
        return captions_of(self._read(number, entry, [ending for ending in entry.parts if ending in texts]))

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
            samples = self._index(number).samples
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
        return Sample(
            self._key(number, entry),
            self._members.shaped({ending: reader.read(*entry.parts[ending]) for ending in endings}),
        )

    def _key(self, number: int, entry: TarSample) -> str:
        return f"{_stem(self._shards[number].name)}/{entry.key}" if self._repeats_keys else entry.key

    def _open(self, number: int) -> TarReader:
        return TarReader(self._local(number))

    def _scan(self, number: int) -> TarIndex:
        shard = self._shards[number]
        if shard.sha256 and self._verify and not self._remote:
            with self._verifying.setdefault(number, threading.Lock()):  # one thread looks, others wait
                if number not in self._verified:
                    self._check_digest(shard)
                    self._verified.add(number)
        index = self._reader(number).index()
        return dataclasses.replace(index, samples=PackedSamples(index.samples))

    def _check_digest(self, shard: _Shard) -> None:
        path = self._folder / shard.name
        try:
            found = sha256(path)
        except FileNotFoundError:
            return  # the reader says so
        except OSError as error:
            raise ShardError(f"{path} cannot be read: {error.strerror}.", f"{shard.name} cannot be read") from error
        if found != shard.sha256:
            raise ShardError(
                f"{path} is damaged or was changed: its SHA-256 is not the one in {MANIFEST}. Copy it again, or remove "
                f"{MANIFEST} to read what is there.",
                f"{shard.name} has a wrong checksum",
            )

    def _has_captions(self) -> bool:
        """Whether one of the first samples has: a JSON may be there without the field that is asked for."""
        readable = (n for n in range(len(self)) if bisect.bisect_right(self.shard_ends, n) not in self._lost)
        for index in itertools.islice(readable, _LOOKED_AT):
            with contextlib.suppress(DataError):
                return bool(self.captions(index))
        return False

    def _nothing_paired(self, ledger: Ledger) -> str:
        fields = "json:FIELD"
        for number in range(len(self._shards)):
            if number in self._lost:
                continue
            entry = next((sample for sample in self._index(number).samples if "json" in sample.parts), None)
            if entry:
                with contextlib.suppress(ValueError, TypeError, ShardError):
                    content = self._reader(number).read(*entry.parts["json"])
                    fields = " or ".join([f"json:{name}" for name in json.loads(content)][:12])
                break
        return (
            f"{self.path} must hold samples with a picture and a caption, by {self._members}. None "
            f"of {ledger.samples:,} has both; the shards have {counted(ledger.endings)}. Name the endings in "
            f"the source: image_column, caption_columns (a field of a JSON as {fields})."
        )

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
            name = path.relative_to(self._folder).as_posix()
            self._shards.append(_Shard(name, 0, 0, ""))
            samples = self._index(number).samples
            hashes.extend(key_hash(sample.key) for sample in samples)
            self._shards[-1] = _Shard(name, len(samples), path.stat().st_size, "")
        self._repeats_keys = len(np.unique(np.asarray(hashes))) < len(hashes)


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
    facts = {"format": SHARDS_FORMAT, "samples": len(found), "shards": shards}
    write_json(folder / MANIFEST, facts | ({"repeats_keys": True} if found._repeats_keys else {}))


def _listed(name: str, content: bytes) -> tuple[list[_Shard], bool]:
    """The shards of a manifest, and whether their keys come again in others.

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
        is_inside = all(_INSIDE.fullmatch(shard.name) for shard in shards)
        known, repeats = manifest["format"] == SHARDS_FORMAT and is_inside, manifest.get("repeats_keys") is True
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known, shards, repeats = False, [], False
    if not known:
        raise ShardError(f"{name} must be a manifest of {SHARDS_FORMAT}. Remove it to read the folder without.")
    return shards, repeats


def shard_files(folder: Path) -> list[Path]:
    """The tar files of a folder, or, where it has none itself, of the folders in it; or those that a pattern finds."""
    if folder.is_file():
        return [folder]
    patterns = [folder.name] if "*" in folder.name else ["*", "*/*"]
    folder = folder.parent if "*" in folder.name else folder
    for pattern in patterns:
        found = sorted(
            path
            for path in folder.glob(pattern)
            if path.name.lower().endswith(TAR_ENDINGS) and not path.name.startswith(".") and path.is_file()
        )
        if found:
            return found
    return []


def _stem(name: str) -> str:
    """A shard's name without its ending."""
    ending = next((ending for ending in sorted(TAR_ENDINGS, key=len)[::-1] if name.lower().endswith(ending)), "")
    return name.removesuffix(name[len(name) - len(ending) :]) if ending else name
