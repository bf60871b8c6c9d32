"""A curation from its first stage to its last: what is there is kept, what is missing is made, what changed is redone.

Killed anywhere, it goes on with what is missing. A stage whose options, whose files or whose input changed is made
again, and so are those after it; those before it stay.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.config import to_dict
from diptych.crawl.read import PairSource, Piece, fingerprint, pieces
from diptych.curate.remove import all_removed
from diptych.curate.runner import Runner
from diptych.curate.tasks import (
    ApplyPart,
    CountPart,
    CurateTask,
    ReadPart,
    ResolveBucket,
    RetryPart,
    ScatterPart,
    TotalFacts,
    has_causes,
)
from diptych.curate.work import PartedRows, mark_after, part_folder, rounds, rounds_file, sizes_file, stage_file
from diptych.curate.write_shards import WriteShard
from diptych.errors import ConfigError
from diptych.files import expanded, remove_leftovers, write_json
from diptych.pairs.shards import list_shards
from diptych.rows.columns import PICTURE
from diptych.rows.stage import Counting, CurateStage, Grouping, ReadsFiles, Recut, Waits

SHARDS = "shards"
READ = "read"  # name of the first stage, which is none: it turns sources into rows

OnProgress = Callable[[str, int, int], None]  # name of the stage, tasks done, tasks in all


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What is done to pairs, in this order.

    Args:
        sources: where pairs come from.
        part_rows: rows of a part of sources that can be cut.
        stages: each with a name of its own.
    """

    sources: tuple[PairSource, ...]
    part_rows: int
    stages: tuple[CurateStage, ...]

    def __post_init__(self) -> None:
        names = [READ, *(stage.name for stage in self.stages)]
        assert len(set(names)) == len(names), names

    def folder(self, work: Path, name: str) -> Path:
        """Of the stage of a name."""
        names = [READ, *(stage.name for stage in self.stages)]
        return work / f"{names.index(name):02}-{name}"


@dataclass(frozen=True, kw_only=True)
class Left:
    """What the last stage kept."""

    rows: PartedRows
    mark: str  # changes with all that led to it


def run_stages(
    pipeline: Pipeline,
    work: Path,
    runner: Runner,
    *,
    retry: tuple[str, ...] = (),
    on_progress: OnProgress = lambda *_: None,
) -> Left:
    """Do what is missing of all stages.

    Args:
        pipeline: what to do.
        work: the folder of what is under way; only one process may work in it (`files.folder_lock`).
        runner: who does it.
        retry: causes; rows that the first stage which `Waits` dropped for one of them are judged once more there.
        on_progress: called after each task.

    Raises:
        ConfigError, DataError: a source or an option cannot be used; what is done stays.
    """
    work.mkdir(parents=True, exist_ok=True)
    _clean(work)
    mine = {pipeline.folder(work, name) for name in (READ, *(stage.name for stage in pipeline.stages))}
    for folder in set(work.glob("[0-9][0-9]-*")) - mine:  # of a recipe with other stages
        shutil.rmtree(folder)
    found = pieces(pipeline.sources, pipeline.part_rows)
    rows, mark = _read(pipeline, found, work, runner, on_progress)
    for stage in pipeline.stages:
        folder, kind = pipeline.folder(work, stage.name), type(stage).__name__
        before, options = mark, to_dict(stage)
        mark = _mark(stage.name, kind, _without_folders(options), f"{before} {_files_mark(stage)}")
        _begin(folder, mark, {"stage": stage.name, "class": kind, "options": options, "before": before})
        if isinstance(stage, Recut):
            assert rows.pictures is None, "rows cannot be cut anew once they have pictures"
            rows = PartedRows(folder=rows.folder, part_rows=stage.part_rows)
        if retry and isinstance(stage, Waits):
            _retry(stage, folder, rows, runner, retry, on_progress)
            retry = ()
        rows = _run_stage(stage, folder, rows, runner, on_progress)
        mark = mark_after(folder)  # what was tried again may have changed all that follows
    if retry:
        raise ConfigError("--retry needs a stage that fetches pictures, and the recipe has none.")
    return Left(rows=rows, mark=mark)


def write_shards(left: Left, out: Path, runner: Runner, *, size: int, on_progress: OnProgress = lambda *_: None) -> int:
    """Write what is left as shards, those that are missing, and their manifest.

    Args:
        left: what the last stage kept.
        out: of the curation; what was removed from it stays away.
        runner: who does it.
        size: samples a shard, removed ones included.
        on_progress: called after each shard.

    Returns:
        Samples in the shards.

    Raises:
        ConfigError: `out` holds shards that are not of this work.
    """
    work, shards, rows = left.rows.folder.parent, out / SHARDS, left.rows
    folder = work / SHARDS
    if shards.exists() and not folder.exists():
        raise ConfigError(f"{shards} must be absent, or of the work in {work}, and is not. Move it away.")
    mark = _mark(SHARDS, "", {"size": size}, left.mark)
    if folder.exists() and not _is_of(folder, mark):
        shutil.rmtree(shards, ignore_errors=True)
    _begin(folder, mark, {"stage": SHARDS, "size": size, "before": left.mark})
    cut, removal = PartedRows(folder=rows.folder, part_rows=size, pictures=rows.pictures), all_removed(out)
    tasks = [
        WriteShard(folder=folder, shards=shards, rows=cut, number=number, removal=removal)
        for number in range(len(cut) if sum(rows.sizes()) else 0)
    ]
    for task in tasks:
        if not task.path.exists():
            task.out.unlink(missing_ok=True)
    _do(runner.run, tasks, SHARDS, on_progress)
    listed = [json.loads(task.out.read_text(encoding="utf-8")) for task in tasks]
    list_shards(shards, listed)
    return sum(facts["samples"] for facts in listed)


def _read(
    pipeline: Pipeline, found: Sequence[Piece], work: Path, runner: Runner, on_progress: OnProgress
) -> tuple[PartedRows, str]:
    folder = pipeline.folder(work, READ)
    mark = fingerprint(found, pipeline.sources)
    plain = {"sources": [to_dict(source) for source in pipeline.sources]}
    _begin(folder, mark, {"stage": READ, **plain, "before": ""})
    tasks = [
        ReadPart(folder=folder, part=part, piece=piece, sources=pipeline.sources) for part, piece in enumerate(found)
    ]
    _do(runner.run, tasks, READ, on_progress)
    _end(folder, len(found))
    return PartedRows(folder=folder), mark_after(folder)


def _run_stage(
    stage: CurateStage, folder: Path, rows: PartedRows, runner: Runner, on_progress: OnProgress
) -> PartedRows:
    parts, buckets = range(len(rows)), 0
    brings = folder if _brings_pictures(folder) else rows.pictures
    if sizes_file(folder).exists():
        return PartedRows(folder=folder, pictures=brings)
    if isinstance(stage, Counting):
        counts = [CountPart(folder=folder, stage=stage, rows=rows, part=part) for part in parts]
        _do(runner.run, counts, f"{stage.name}: count", on_progress)
        _do(runner.run, [TotalFacts(folder=folder, stage=stage, parts=len(parts))], f"{stage.name}: sum", on_progress)
    if isinstance(stage, Grouping):
        buckets = stage.buckets(sum(rows.sizes()))
        scattered = [ScatterPart(folder=folder, stage=stage, rows=rows, part=part, buckets=buckets) for part in parts]
        _do(runner.run, scattered, f"{stage.name}: scatter", on_progress)
        resolved = [ResolveBucket(folder=folder, stage=stage, parts=len(parts), bucket=b) for b in range(buckets)]
        _do(runner.run, resolved, f"{stage.name}: resolve", on_progress)
    tasks = [ApplyPart(folder=folder, stage=stage, rows=rows, part=part, buckets=buckets) for part in parts]
    _do(runner.run_waiting if isinstance(stage, Waits) else runner.run, tasks, stage.name, on_progress)
    _end(folder, len(parts))
    return PartedRows(folder=folder, pictures=folder if _brings_pictures(folder) else rows.pictures)


def _retry(
    stage: CurateStage,
    folder: Path,
    rows: PartedRows,
    runner: Runner,
    causes: tuple[str, ...],
    on_progress: OnProgress,
) -> None:
    """Judge dropped rows once more; what later stages made of the others is no longer whole."""
    if not sizes_file(folder).exists():
        return  # it never ended, so nothing in it is old
    parts = [part for part in range(len(rows)) if has_causes(folder, part, causes)]
    if not parts:
        return
    write_json(rounds_file(folder), rounds(folder) + 1)  # first: what follows is old from here on
    sizes_file(folder).unlink()
    tasks = [RetryPart(folder=folder, stage=stage, rows=rows, part=part, causes=causes) for part in parts]
    done = 0

    def on_done() -> None:
        nonlocal done
        done += 1
        on_progress(f"{stage.name}: once more", done, len(tasks))

    runner.run_waiting(tasks, on_done)


def _mark(name: str, kind: str, options: object, before: str) -> str:
    """Changes with what a stage is and with all that leads to it."""
    plain = json.dumps({"stage": name, "class": kind, "options": options}, sort_keys=True, default=str)
    return hashlib.sha256(f"{before}\n{plain}".encode()).hexdigest()


def _without_folders(value: Any) -> Any:
    """Options whose absolute paths are their last part: what lies there counts, not where it lies."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _is_of(folder: Path, mark: str) -> bool:
    note = stage_file(folder)
    return note.exists() and json.loads(note.read_text(encoding="utf-8"))["mark"] == mark


def _begin(folder: Path, mark: str, plain: dict[str, object]) -> None:
    """Make a stage's folder; one of another recipe is emptied."""
    if folder.exists() and not _is_of(folder, mark):
        shutil.rmtree(folder)
    if not folder.exists():
        write_json(stage_file(folder), {"mark": mark, **json.loads(json.dumps(plain, default=str))})


def _end(folder: Path, parts: int) -> None:
    """Say that a stage is whole, by the rows that it kept of each part."""
    if not sizes_file(folder).exists():
        counts = (part_folder(folder, part) / "counts.json" for part in range(parts))
        write_json(sizes_file(folder), [json.loads(path.read_text(encoding="utf-8"))["kept"] for path in counts])


def _do(
    run: Callable[[Sequence[CurateTask], Callable[[], None]], None],
    tasks: Sequence[CurateTask],
    name: str,
    on_progress: OnProgress,
) -> None:
    missing = [task for task in tasks if not task.out.exists()]
    done = len(tasks) - len(missing)

    def on_done() -> None:
        nonlocal done
        done += 1
        on_progress(name, done, len(tasks))

    run(missing, on_done)


def _brings_pictures(folder: Path) -> bool:
    return (part_folder(folder, 0) / f"{PICTURE}s.parquet").exists()


def _clean(work: Path) -> None:
    """Remove what a killed process left half-written."""
    for stage in work.iterdir():
        for folder in (stage, *(stage / name for name in ("parts", "counts", "scatter", "verdicts"))):
            if folder.is_dir():
                remove_leftovers(folder)


def _files_mark(stage: CurateStage) -> str:
    """Changes with the files and folders that a stage's options name: files by content, those in folders by size."""
    marks = hashlib.sha256()
    for name in stage.files() if isinstance(stage, ReadsFiles) else ():
        path = expanded(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            facts = [(file.relative_to(path).as_posix(), file.stat()) for file in inside]
            marks.update(repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in facts]).encode())
        elif path.is_file():
            with path.open("rb") as file:
                marks.update(hashlib.file_digest(file, "sha256").digest())
        else:
            marks.update(name.encode())
    return marks.hexdigest()
