"""The same parts by daft: on its native runner here, or on Ray's workers of a cluster.

daft hands out numbers of parts. A worker loads the model and opens the samples once, then makes each part as
`embed_bulk` does, so the rows are the same. daft decodes and resizes nothing: its resize is not the one that models
were trained with.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych.cluster import import_daft
from diptych.errors import DataError, DiptychError
from diptych.pairs.sources import Source, open_pairs
from diptych.search.bulk import Bulk, Parts
from diptych.weights.engines import load


def embed_with_daft(
    model: str | None,
    source: Source,
    out: Path,
    *,
    part_size: int = 10_000,
    batch_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Bulk:
    """Let daft's workers encode this rank's parts that are not there yet.

    Which runner it is, daft is told by `DAFT_RUNNER`, "native" or "ray". With ray, every machine must see the same
    model, source and output by these paths. Ctrl-C ends the workers at once; whole parts stay.

    Args:
        model: as `load` takes it; each worker loads its own.
        source: the samples; each worker opens them itself.
        out: as for `embed_bulk`; so are the sizes, the rank and the world size.
        part_size: see there.
        batch_size: see there.
        rank: see there.
        world_size: see there.
        workers: processes that each hold a model. One uses all cores of its machine.
        on_progress: called after each part with samples done and to do, of this call.

    Raises:
        ConfigError: as `embed_bulk`.
        DataError: a part could not be made.
        MissingExtraError: daft, or what `embed_bulk` needs, is not installed.
    """
    daft = import_daft()
    source = replace(source, path=_absolute(source.path))
    job = (_absolute(model) if model else None, source, out.absolute(), part_size, batch_size)
    parts = _open_parts(*job, rank, world_size)
    waiting = parts.waiting()
    total, done, skipped = sum(len(parts.samples(part)) for part in waiting), 0, 0
    if not waiting:
        return Bulk(parts=len(parts.mine), samples=0, skipped=0, complete=True)
    frame = daft.from_pydict({"part": waiting})
    if daft.get_or_infer_runner_type() == "ray":
        frame = frame.into_partitions(len(waiting))  # a partition lies with one worker
    worker = _worker_class(daft, workers)(job)
    frame = frame.select(frame["part"], worker.make(frame["part"]).alias("made"))
    for row in frame.iter_rows(results_buffer_size=1):
        if row["made"]["error"] is not None:
            raise DataError(row["made"]["error"])
        done += len(parts.samples(row["part"]))
        skipped += row["made"]["skipped"]
        if on_progress:
            on_progress(done, total)
    return Bulk(parts=len(parts.mine), samples=done, skipped=skipped, complete=True)


def _worker_class(daft: Any, workers: int) -> Any:
    made = daft.DataType.struct({"skipped": daft.DataType.int64(), "error": daft.DataType.string()})

    @daft.cls(max_concurrency=workers)
    class Worker:
        def __init__(self, job: tuple[Any, ...]) -> None:
            self._job = job
            self._parts: Parts | None = None
            self._error: str | None = None

        @daft.method.batch(return_dtype=made, batch_size=1)  # one part at a time: what is done is told at once
        def make(self, numbers: Any) -> list[dict[str, Any]]:
            return [self._made(part) for part in numbers.to_pylist()]

        def _made(self, part: int) -> dict[str, Any]:
            skipped = 0
            if self._error is None:  # daft has all parts done before it ends: after an error nothing more is tried
                try:
                    self._parts = self._parts or _open_parts(*self._job)
                    skipped = self._parts.make(part)
                except DiptychError as error:  # as a value: daft passes on the text of an exception at most
                    self._error = str(error)
            return {"skipped": skipped, "error": self._error}

    return Worker


def _open_parts(
    model: str | None, source: Source, out: Path, part_size: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Parts:
    sizes = {"part_size": part_size, "batch_size": batch_size, "rank": rank, "world_size": world_size}
    return Parts(load(model), open_pairs(source), out, **sizes)


def _absolute(name: str) -> str:
    """A path that other processes find; a URL or a name stays what it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name
