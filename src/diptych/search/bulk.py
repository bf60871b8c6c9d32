"""Features of millions of samples, part by part, as Parquet files or a Lance table; resumable, and shared among ranks.

Part p holds the samples from p times the part's size on, and belongs to rank p modulo the number of ranks. A part is
whole or absent, so whoever is started again does what is absent. A sample that cannot be read has its row too, with the
reason in place of features: rows are never shifted and nothing is lost silently.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from diptych.data.ahead import batched, decoded_ahead, pixels_of
from diptych.data.facts import Facts
from diptych.data.images import Preprocess
from diptych.embed import encode_fast
from diptych.errors import ConfigError, DataError, missing_extra
from diptych.files import atomic_file
from diptych.pairs.sources import Pairs
from diptych.search.feature_table import FeatureRow, feature_schema, feature_table
from diptych.weights.dual_encoder import DualEncoder

PARTS_FORMAT = "diptych-features-2"


@dataclass(frozen=True, kw_only=True)
class Bulk:
    """What a rank did."""

    parts: int  # of this rank, now there
    samples: int  # encoded now
    skipped: int  # of these, could not be read
    complete: bool  # False after a stop


class _Target(Protocol):
    def done(self) -> set[int]: ...

    def write(self, part: int, table: Any) -> None: ...


def embed_bulk(
    bundle: DualEncoder,
    pairs: Pairs,
    out: Path,
    *,
    part_size: int = 10_000,
    batch_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Bulk:
    """Encode this rank's parts that are not there yet.

    Args:
        bundle: the model; pictures go through `Preprocess.fast_pixels` and `encode_fast`.
        pairs: the samples, as `open_pairs` gives them; captions are not read.
        out: `NAME.parquet`, a folder of files, or `NAME.lance`, a Lance table; columns as of
            `feature_schema`.
        part_size: samples of one part; what a killed process loses at most.
        batch_size: pictures a forward pass.
        rank: of this process, from 0.
        world_size: processes that share the work.
        on_progress: called after each batch with samples done and to do, of this call.
        should_stop: asked after each part.

    Raises:
        ConfigError: `out` ends otherwise, or holds features of another model, other samples or another part size.
        MissingExtraError: pyarrow, or for Lance lancedb, is not installed.
    """
    sizes = {"part_size": part_size, "batch_size": batch_size, "rank": rank, "world_size": world_size}
    parts = Parts(bundle, pairs, out, **sizes)
    waiting = parts.waiting()
    total, done, skipped = sum(len(parts.samples(part)) for part in waiting), 0, 0

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        if on_progress:
            on_progress(done, total)

    for number, part in enumerate(waiting):
        skipped += parts.make(part, on_batch)
        if should_stop() and number < len(waiting) - 1:
            return Bulk(
                parts=len(parts.mine) - len(waiting) + number + 1, samples=done, skipped=skipped, complete=False
            )
    return Bulk(parts=len(parts.mine), samples=done, skipped=skipped, complete=True)


class Parts:
    """A rank's parts of one output: which are absent, and how one is made. Its rows are the same whoever makes it.

    Args and errors are those of `embed_bulk`.
    """

    def __init__(
        self,
        bundle: DualEncoder,
        pairs: Pairs,
        out: Path,
        *,
        part_size: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size or part_size < 1 or batch_size < 1:
            raise ConfigError(
                f"rank must be from 0 to world_size - 1, and sizes at least 1. Got rank={rank}, "
                f"world_size={world_size}, part_size={part_size}, batch_size={batch_size}."
            )
        self._bundle, self._pairs, self._part_size, self._batch_size = bundle, pairs, part_size, batch_size
        self._schema = _schema(bundle, pairs, part_size)
        self._target = _open_target(out, self._schema)
        self.mine = range(rank, -(-len(pairs) // part_size), world_size)

    def waiting(self) -> list[int]:
        """Those that are not there yet."""
        there = self._target.done()
        return [part for part in self.mine if part not in there]

    def samples(self, part: int) -> range:
        """Numbers of the samples of one part."""
        return range(part * self._part_size, min(len(self._pairs), (part + 1) * self._part_size))

    def make(self, part: int, on_batch: Callable[[int], None] | None = None) -> int:
        """Encode one part and write it.

        Args:
            part: its number.
            on_batch: called after each batch with its number of samples.

        Returns:
            How many of its samples could not be read.
        """
        rows: list[FeatureRow] = []
        read = functools.partial(_read, self._pairs, self._bundle.preprocess)
        samples = self.samples(part)
        with decoded_ahead(read, samples, self._batch_size, pixels=lambda sample: pixels_of(sample.pixels)) as ready:
            for batch in batched(ready, self._batch_size):
                good = [sample.pixels for sample in batch if sample.pixels is not None]
                features = iter(encode_fast(self._bundle, good))
                rows += [
                    FeatureRow(
                        key=sample.key,
                        features=None if sample.pixels is None else next(features),
                        facts=sample.facts,
                        part=part,
                        fault=sample.fault,
                    )
                    for sample in batch
                ]
                if on_batch:
                    on_batch(len(batch))
        self._target.write(part, feature_table(rows, self._schema))
        return sum(row.fault is not None for row in rows)


class _Sample(NamedTuple):
    """One sample that was read: its pixels, or why there are none."""

    key: str
    pixels: np.ndarray | None  # [S, S, 3] uint8
    fault: str | None
    facts: Facts = Facts()


def _read(pairs: Pairs, preprocess: Preprocess, index: int) -> _Sample:
    key = f"#{index}"
    try:
        sample = pairs[index]
        key = sample.key
        if sample.picture is None:
            return _Sample(key, None, "no picture")
        pixels, facts = preprocess.fast_pixels(sample.picture, key)
        return _Sample(key, pixels, None, facts)
    except DataError as error:
        return _Sample(key, None, str(error))


class _ParquetParts:
    def __init__(self, out: Path, schema: Any) -> None:
        self._out = out
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} must be a folder of parts, or absent, and is a file. Choose another name.")
        if there := sorted(out.glob("part-*.parquet")):
            import pyarrow.parquet as pq

            _check_same(out, pq.read_schema(there[0]).metadata, schema.metadata)

    def done(self) -> set[int]:
        return {int(path.stem.split("-")[1]) for path in self._out.glob("part-*.parquet")}

    def write(self, part: int, table: Any) -> None:
        import pyarrow.parquet as pq

        with atomic_file(self._out / f"part-{part:06}.parquet") as aside:
            pq.write_table(table, aside)


class _LanceParts:
    def __init__(self, out: Path, schema: Any) -> None:
        try:
            import lancedb
        except ImportError:
            raise missing_extra(f"writing {out}", "lance", "NAME.parquet is written without it.") from None
        out.parent.mkdir(parents=True, exist_ok=True)
        database = lancedb.connect(str(out.parent))
        self._table = database.create_table(out.stem, schema=schema, exist_ok=True)
        _check_same(out, self._table.schema.metadata or {}, schema.metadata)

    def done(self) -> set[int]:
        count = max(1, self._table.count_rows())  # a search without a limit may have one of its own
        parts = self._table.search().select(["part"]).limit(count).to_arrow()["part"]
        return set(parts.unique().to_pylist())

    def write(self, part: int, table: Any) -> None:
        del part  # it is a column
        self._table.add(table)  # one version of the table: all rows of a part or none


def _open_target(out: Path, schema: Any) -> _Target:
    if out.suffix not in (".parquet", ".lance"):
        raise ConfigError(f"features of many pictures are written to NAME.parquet or NAME.lance. Got {out}.")
    return (_ParquetParts if out.suffix == ".parquet" else _LanceParts)(out, schema)


def _schema(bundle: DualEncoder, pairs: Pairs, part_size: int) -> Any:
    metadata = {
        "format": PARTS_FORMAT,
        "model": bundle.fingerprint(),
        "samples": f"{len(pairs)} {pairs.fingerprint()}",
        "part size": str(part_size),
    }
    return feature_schema(bundle.embed_dim, metadata)


def _check_same(out: Path, there: dict[bytes, bytes], ours: dict[bytes, bytes]) -> None:
    for key, value in ours.items():
        if there.get(key) != value:
            raise ConfigError(
                f"{out} must have been begun with the same {key.decode()}, and was not. Choose another name, or "
                "remove it."
            )
