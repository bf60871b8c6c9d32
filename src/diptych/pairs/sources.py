"""Where pairs come from: tar shards here or behind a URL, a folder of pictures with texts, a table.

Every source is the same to the pipeline: a number of samples, any of which can be asked for. What a source is, its
path tells (`open_pairs`).
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from diptych.data.embedded import data_path
from diptych.data.images import PICTURE_ENDINGS
from diptych.data.prompts import check_templates
from diptych.errors import ConfigError
from diptych.files import natural_order
from diptych.pairs.remote import RemoteConfig, is_remote
from diptych.pairs.shards import Sample, ShardSet, captions_of
from diptych.pairs.tables import TABLES, Columns, PairTable, read_picture


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where pairs come from, how often, and which of a picture's captions is taken."""

    path: str  # see `open_pairs`; "embedded:NAME" is a set inside the package
    weight: float = 1.0  # share of the samples drawn, in proportion to the other sources' weights
    captions: Literal["draw", "first", "turns", "join"] = "draw"  # by data.first_caption; epoch e takes number e; all
    templates: tuple[str, ...] = ()  # in place of data.templates
    replace: bool = False  # draw with replacement: no epochs, each draw is independent of the others
    shuffle_shards: int = 0  # shards (row groups of Parquet) whose samples are shuffled together; 0: all of them
    image_column: str = "image"  # of a table: the picture's path, from the table's folder; in Parquet also its bytes
    caption_columns: tuple[str, ...] = ("caption",)  # each gives a caption; in Parquet also a list of them
    key_column: str = ""  # rows with the same key are one sample; without it, rows with the same picture's path
    teacher_images: str = ""  # stored features of the pictures: a .safetensors file, or "shard" (see pairs/teacher.py)
    teacher_texts: str = ""  # of the captions, likewise

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ConfigError(f"data.sources must name sources each with a weight above 0. Got {self.weight}.")
        if self.captions not in ("draw", "first", "turns", "join"):
            raise ConfigError(f"data.sources.captions must be draw, first, turns or join. Got {self.captions!r}.")
        if self.replace and self.captions == "turns":
            raise ConfigError("data.sources.captions must not be turns with replace=true, which has no epochs.")
        if self.shuffle_shards < 0 or (self.replace and self.shuffle_shards):
            raise ConfigError(
                f"data.sources.shuffle_shards must be 0 with replace=true, else at least 0. Got {self.shuffle_shards}."
            )
        if self.templates:
            object.__setattr__(self, "templates", check_templates(self.templates))


class Pairs(Protocol):
    """Samples with random access. Safe in many threads."""

    @property
    def path(self) -> Path | str: ...

    @property
    def shard_ends(self) -> Sequence[int]:
        """Where runs of samples end that lie together; the last one is the number of samples."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            ImageError, ShardError: it cannot be read; the `cause` is countable.
        """
        ...

    def captions(self, index: int) -> list[str]:
        """The captions of one sample, without reading its picture.

        Raises:
            ShardError: its shard cannot be read.
            DataError: there is no caption, or it is not UTF-8; the message is the cause.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 that changes with the samples or their order; what it covers, each class says."""
        ...


def open_pairs(source: Source, *, max_bad: float = 0.0, remote: RemoteConfig | None = None) -> Pairs:
    """The pairs of a source.

    Args:
        source: its `path` is one of: a folder of `.tar` shards, or one shard; the URL of a folder of shards with a
            manifest; a `.csv`, `.tsv` or `.parquet` file; else a folder of pictures with texts beside them.
        max_bad: as for `ShardSet`.
        remote: how URLs are read.

    Raises:
        ConfigError: a column is not there, or the cache is too small for a remote source.
        DataError: it cannot be read, or holds no pair.
        MissingExtraError: its kind needs one.
    """
    if is_remote(source.path):
        remote = remote or RemoteConfig()
        shards = ShardSet(source.path.rstrip("/"), remote=remote)
        needed = shards.bytes_at_once(2 * source.shuffle_shards)  # the end of one window beside the start of the next
        if needed > remote.cache_gb * 1e9:
            raise ConfigError(
                f"data.remote.cache_gb must hold all shards of {source.path} that are shuffled together, or each would "
                f"be fetched again and again. Got {remote.cache_gb:g}, and they need {needed / 1e9:.3g}. Raise it, or "
                "set a smaller shuffle_shards of the source."
            )
        return shards
    path = data_path(source.path)
    if path.suffix.lower() in TABLES:
        return PairTable(path, Columns(source.image_column, source.caption_columns, source.key_column))
    if path.is_dir() and not any(path.glob("*.tar*")) and (folder := PictureFolder(path)):
        return folder
    return ShardSet(path, max_bad=max_bad)


class PictureFolder:
    """Pictures of a folder and its subfolders, in natural order, each with `NAME.txt` beside, one caption a line.

    A sample's key is the picture's path from the folder. The fingerprint covers the names and sizes of all files. What
    starts with a dot is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = sorted(_walk(path, ""), key=lambda item: [natural_order(part) for part in item[0].split("/")])
        self._names = [name for name, _ in found if Path(name).suffix[1:].lower() in PICTURE_ENDINGS]
        self._facts = hashlib.sha256(repr(found).encode("utf-8", "surrogatepass")).hexdigest()
        self.shard_ends = [len(self._names)]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """One sample; see `Pairs`."""
        name = self._names[index]
        picture = read_picture(self.path / name)
        return Sample(name, {Path(name).suffix[1:].lower(): picture} | self._text(name))

    def captions(self, index: int) -> list[str]:
        """The captions of one sample; see `Pairs`."""
        return captions_of(Sample(self._names[index], self._text(self._names[index])))

    def fingerprint(self) -> str:
        """See `Pairs`."""
        return self._facts

    def _text(self, name: str) -> dict[str, bytes]:
        try:
            return {"txt": (self.path / name).with_suffix(".txt").read_bytes()}
        except OSError:
            return {}


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Path from the top folder and size of each file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield prefix + entry.name, entry.stat().st_size
