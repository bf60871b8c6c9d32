"""`diptych embed`: pictures in, one file of features out."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Path as CheckPath

from diptych.cli.console import complain, error_console, on_screen, shows_bars
from diptych.cli.options import BY_MEASURE, MANY, MEGAPIXELS, EngineOptions, find_pictures
from diptych.errors import ConfigError, DataError
from diptych.weights.packaged import check_model_name


def embed(
    *pictures: str,
    out: Annotated[Path, Parameter(validator=CheckPath(ext=("safetensors", "npz", "parquet", "lance")))],
    model: str | None = None,
    engines: EngineOptions = BY_MEASURE,
    batch_size: PositiveInt = 64,
    max_pixels: PositiveInt = MEGAPIXELS,
    part_size: PositiveInt = 10_000,
    rank: NonNegativeInt | None = None,
    world_size: PositiveInt | None = None,
    image_column: str = "image",
    key_column: str = "",
    runner: Literal["local", "daft"] = "local",
    workers: PositiveInt = 1,
) -> None:
    """Turn each picture into one row of features of unit length, for an index or a probe.

    Parameters
    ----------
    pictures
        Files, folders with their subfolders, or patterns such as "photos/*.jpg". For .parquet and .lance one source: a
        folder of pictures, a folder of tar shards or the URL of one, or a Parquet or CSV table.
    out
        Where features and paths go: NAME.safetensors or NAME.npz, one file that is written at the end. Or, for
        millions, NAME.parquet, a folder of files, or NAME.lance, a table: both grow part by part, and the same command
        goes on where it was stopped.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    batch_size
        Pictures in one forward pass.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    part_size
        Samples of one part of a .parquet or .lance; what a killed process loses at most.
    rank
        Which process of several this is, from 0; each does its share of the parts. By default as torchrun says it.
    world_size
        How many processes there are. By default as torchrun says it, else 1.
    image_column
        The column of a table that holds pictures or their paths.
    key_column
        The column of a table that names its rows.
    runner
        Who hands out the parts of a .parquet or .lance: this process, or daft, with its own runner or on a Ray cluster.
    workers
        With daft, processes that each hold a model. One uses all cores of its machine.
    """
    if out.suffix in (".parquet", ".lance"):
        if len(pictures) != 1:
            raise ConfigError(f"a .parquet or .lance is made of one source: a folder or a table. Got {len(pictures)}.")
        check_model_name(model)
        share = {
            "part_size": part_size,
            "batch_size": batch_size,
            "rank": int(os.environ.get("RANK", 0)) if rank is None else rank,
            "world_size": int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size,
        }
        try:
            columns = (image_column, key_column)
            daft_workers = workers if runner == "daft" else 0
            _embed_parts(pictures[0], columns, model, out, share, max_pixels, engines, daft_workers=daft_workers)
        except KeyboardInterrupt:
            complain("what is done is kept; the same command goes on from here.")
            raise
        return
    if runner == "daft":
        raise ConfigError(f"with daft, features are written to NAME.parquet or NAME.lance. Got {out}.")
    if out.is_dir():
        raise ConfigError(f"{out} must be a file, or absent, and is a folder. Choose another name.")
    if not pictures:
        raise ConfigError("there must be a picture to embed. Name a file, a folder or a pattern.")
    check_model_name(model)
    files = find_pictures(pictures)

    from rich.progress import Progress

    from diptych.embed import embed_images

    bundle = engines.load(model, max_pixels, many=len(files) >= MANY)
    view = Progress(console=error_console(), disable=not shows_bars(), transient=True)
    with on_screen(view) as progress:
        task = progress.add_task("embedding", total=len(files))
        embedded = embed_images(
            bundle, files, batch_size=batch_size, on_progress=lambda done, _: progress.update(task, completed=done)
        )
    for message in embedded.skipped.values():
        complain(f"skipped: {message}")
    if not embedded.keys:
        raise DataError(f"none of {len(files):,} pictures could be read. {out} was not written.")
    embedded.save(out)
    print(f"{len(embedded.keys):,} pictures -> {out}; {len(embedded.skipped):,} skipped")


def _embed_parts(
    path: str,
    columns: tuple[str, str],
    model: str | None,
    out: Path,
    share: dict[str, int],
    max_pixels: int,
    engines: EngineOptions,
    *,
    daft_workers: int,
) -> None:
    if daft_workers and (max_pixels, engines) != (MEGAPIXELS, BY_MEASURE):
        raise ConfigError(
            "with daft, --max-pixels, --engine, --device and --dtype stay as they are by default. Leave out --runner."
        )
    from rich.progress import Progress

    from diptych.pairs.sources import Source, open_pairs
    from diptych.runtime import stop_request
    from diptych.search.bulk import embed_bulk
    from diptych.search.bulk_daft import embed_with_daft

    image_column, key_column = columns
    source = Source(path=path, image_column=image_column, caption_columns=(), key_column=key_column)
    view = Progress(console=error_console(), disable=not shows_bars(), transient=True)
    with on_screen(view) as progress:
        task = progress.add_task("embedding", total=None)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if daft_workers:
            done = embed_with_daft(model, source, out, **share, workers=daft_workers, on_progress=on_progress)
        else:
            pairs, bundle = open_pairs(source), engines.load(model, max_pixels, many=True)
            with stop_request() as should_stop:
                done = embed_bulk(bundle, pairs, out, **share, on_progress=on_progress, should_stop=should_stop)
    print(f"{done.samples:,} samples -> {out}; {done.skipped:,} skipped; {done.parts:,} parts of this rank are there")
    if not done.complete:
        raise KeyboardInterrupt
