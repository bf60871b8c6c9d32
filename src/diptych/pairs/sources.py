"""Where pairs come from: tar shards here or behind a URL, a folder of pictures, a table.

Every source is the same to the pipeline: a number of samples, any of which can be asked for. What a source is, its
path tells (`open_pairs`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from diptych.data.embedded import data_path
from diptych.data.prompts import check_templates
from diptych.errors import ConfigError
from diptych.files import expanded
from diptych.outside import check_call, check_has, named
from diptych.pairs.folders import PictureFolder
from diptych.pairs.remote import RemoteConfig, is_remote
from diptych.pairs.rows import Quoting
from diptych.pairs.samples import CAPTION_COLUMNS, IMAGE_COLUMN, Columns, Members, Sample
from diptych.pairs.shards import ShardSet, shard_files
from diptych.pairs.tables import TABLES, PairTable, parquet_files


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where pairs come from, how often, and which of a picture's captions is taken."""

    path: str  # see `open_pairs`; "embedded:NAME" is a set inside the package
    kind: str = ""  # "module:name" of a class of yours that opens the path as `Pairs`; empty: by the path
    weight: float = 1.0  # share of the samples drawn, in proportion to the other sources' weights
    captions: Literal["draw", "first", "turns", "join"] = "draw"  # by data.first_caption; epoch e takes number e; all
    templates: tuple[str, ...] = ()  # in place of data.templates
    replace: bool = False  # draw with replacement: no epochs, each draw is independent of the others
    shuffle_shards: int = 0  # shards (row groups of Parquet) whose samples are shuffled together; 0: all of them
    # Of a table the picture's path, in Parquet also its bytes; of shards the ending of the member that is the picture.
    image_column: str = IMAGE_COLUMN
    # Each gives a caption, or a list of them; of shards the ending of a member, or "json:FIELD".
    caption_columns: tuple[str, ...] = CAPTION_COLUMNS
    key_column: str = ""  # rows with the same key are one sample; without it, rows with the same picture's path
    image_folder: str = ""  # where the pictures of a table are; empty: in the table's folder
    separator: str = ""  # of a CSV or TSV table; empty: comma, tab, semicolon or bar, as finds the columns
    quoting: Quoting = "auto"  # of a CSV or TSV table; auto: fields may stand in quotes unless tabs or bars part them
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
        if self.quoting not in ("auto", "quotes", "none"):
            raise ConfigError(f"data.sources.quoting must be auto, quotes or none. Got {self.quoting!r}.")
        if len(self.separator) > 1 or self.separator in ('"', "\n", "\r"):
            raise ConfigError(f"data.sources.separator must be one character, no quote. Got {self.separator!r}.")
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

    def key(self, index: int) -> str:
        """The key of one sample, without reading its picture.

        Raises:
            ShardError: its shard cannot be read.
        """
        ...

    def captions(self, index: int) -> list[str]:
        """The captions of one sample, without reading its picture.

        Raises:
            ShardError: its shard cannot be read.
            DataError: there is no caption, or it is not UTF-8; the message is the cause.
        """
        ...

    def check(self) -> list[str]:
        """Look, before a run, whether there is anything to train on.

        Returns:
            What was assumed in reading it, and what of it is not read: a sentence each.

        Raises:
            DataError: there is no pair in it; the message says what is there.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 that changes with the samples or their order; what it covers, each class says."""
        ...


def open_pairs(
    source: Source, *, max_bad: float = 0.0, remote: RemoteConfig | None = None, verify: bool = True
) -> Pairs:
    """The pairs of a source.

    Args:
        source: its `path` is one of: a folder of tar shards, or of folders of them, one shard, or a pattern; the URL of
            a folder of shards with a manifest; a table (`TABLES`); a folder with Parquet files, or a pattern, or with a
            `metadata.csv`, `.jsonl` or `.parquet` beside its pictures; else a folder of pictures, see `PictureFolder`.
        max_bad: as for `ShardSet` and `PairTable`.
        remote: how URLs are read.
        verify: as for `ShardSet`.

    Raises:
        ConfigError: a column is not there, or the cache is too small for a remote source; or what opens it is not ours
            and cannot be imported, or gives something else than `Pairs`.
        DataError: it cannot be read, or holds no pair.
        MissingExtraError: its kind needs one.
    """
    if source.kind:
        return _pairs_of_others(source)
    members = Members(source.image_column, source.caption_columns)
    if is_remote(source.path):
        remote = remote or RemoteConfig()
        shards = ShardSet(source.path.rstrip("/"), members=members, remote=remote)
        needed = shards.bytes_at_once(2 * source.shuffle_shards)  # the end of one window beside the start of the next
        if needed > remote.cache_gb * 1e9:
            raise ConfigError(
                f"data.remote.cache_gb must hold all shards of {source.path} that are shuffled together, or each would "
                f"be fetched again and again. Got {remote.cache_gb:g}, and they need {needed / 1e9:.3g}. Raise it, or "
                "set a smaller shuffle_shards of the source."
            )
        return shards
    path = data_path(source.path)
    if table := _table(path):
        columns = Columns(source.image_column, source.caption_columns, source.key_column)
        pictures = expanded(source.image_folder) if source.image_folder else None
        return PairTable(
            table, columns, pictures=pictures, separator=source.separator, quoting=source.quoting, max_bad=max_bad
        )
    if path.is_dir() and not shard_files(path) and (folder := PictureFolder(path)):
        return folder
    return ShardSet(path, members=members, max_bad=max_bad, verify=verify)


def _pairs_of_others(source: Source) -> Pairs:
    kind = named(source.kind, "data.sources.kind")
    # A class that has what is asked, or any function of one string could be had by its name, such as os:system.
    if not isinstance(kind, type):
        raise ConfigError(f"data.sources.kind must name a class (docs/how-to/extend.md). Got {source.kind}.")
    methods = ("__len__", "__getitem__", "key", "captions", "check", "fingerprint")
    check_has(kind, methods, f"the source {source.kind}")
    check_call(kind, source.kind, "(path)", source.path)
    pairs = cast("Pairs", kind(source.path))
    check_has(pairs, ("path", "shard_ends"), f"the source {source.kind}")
    if not len(pairs) or list(pairs.shard_ends)[-1:] != [len(pairs)]:
        raise ConfigError(
            f"{source.kind} must have at least one pair, and shard_ends must end with their number. "
            f"Got {len(pairs)} pairs and shard_ends={list(pairs.shard_ends)[-3:]}."
        )
    return pairs


def _table(path: Path) -> Path | None:
    """The table that a path is, or that a folder without shards is about."""
    if "*" in path.name:
        return path if any(found.suffix.lower() == ".parquet" for found in path.parent.glob(path.name)) else None
    if not path.is_dir() or path.suffix.lower() == ".parquet":  # a folder too, as Spark writes them
        return path if path.suffix.lower() in TABLES else None
    if shard_files(path):
        return None
    beside = (path / f"metadata{ending}" for ending in (".csv", ".tsv", ".jsonl", ".parquet"))
    return next((table for table in beside if table.is_file()), path if parquet_files(path) else None)
