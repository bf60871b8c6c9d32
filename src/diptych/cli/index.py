"""`diptych index`: the index of a folder, made, looked at, checked, copied and exported."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Path as CheckPath

from diptych.cli.console import complain, print_table
from diptych.cli.options import MEGAPIXELS

index = App(name="index", help="Make, check, copy and export the index that diptych search uses.")


@index.command
def update(
    folder: Path = Path(),
    *,
    model: str | None = None,
    index: Path | None = None,
    reindex: bool = False,
    batch_size: PositiveInt = 64,
    max_pixels: PositiveInt = MEGAPIXELS,
) -> None:
    """Bring the index of a folder in step with it, without a search; the first time, make it.

    Parameters
    ----------
    folder
        Of pictures and videos, read with its subfolders; by default the one you are in.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    index
        The folder where the index lies, instead of the cache.
    reindex
        Encode all pictures anew when the index is of another model; until that is through the old one answers.
    batch_size
        Pictures in one forward pass.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    """
    from diptych.cli.indexing import opened, updated

    with opened(folder.expanduser(), model, index=index, reindex=reindex, max_pixels=max_pixels) as library:
        done = updated(library, batch_size=batch_size, must=True)
        assert done is not None
        print(
            f"{done.total:,} files in {library.index_folder}: {done.added:,} added, {done.changed:,} changed, "
            f"{done.moved:,} moved, {done.deleted:,} deleted, {len(done.broken):,} skipped"
        )


@index.command
def status(folder: Path = Path(), *, index: Path | None = None, json_: bool = False) -> None:
    """Say where the index of a folder lies, of which model it is, what it holds and what it could not read.

    Parameters
    ----------
    folder
        Of pictures; by default the one you are in.
    index
        The folder where the index lies, instead of the cache.
    json_
        Print JSON.
    """
    from diptych.search.index_folder import open_store, status_of

    about, store = open_store(folder, index)
    facts, faults = status_of(about, store), store.faults()
    if json_:
        print(json.dumps({**facts, "faults": faults}, indent=2))
        return
    print_table([(key, f"{value:,}" if isinstance(value, int) else str(value)) for key, value in facts.items()])
    for message in faults.values():
        complain(f"skipped: {message}")


@index.command
def check(folder: Path = Path(), *, index: Path | None = None) -> None:
    """Verify the index of a folder: its database, that every file has its rows, and that all rows are whole.

    Parameters
    ----------
    folder
        Of pictures; by default the one you are in.
    index
        The folder where the index lies, instead of the cache.
    """
    from diptych.search.index_folder import check_index

    print(f"{check_index(folder, index):,} rows are whole")


@index.command
def compact(folder: Path = Path(), *, index: Path | None = None) -> None:
    """Clear rows of removed files away. An update does it by itself when they are a quarter of all.

    Parameters
    ----------
    folder
        Of pictures; by default the one you are in.
    index
        The folder where the index lies, instead of the cache.
    """
    from diptych.search.writing import compact_index

    print(f"{compact_index(folder, index):,} rows were cleared away")


@index.command
def copy(out: Path, folder: Path = Path(), *, index: Path | None = None) -> None:
    """Copy the index of a folder as it is at this moment, also while it is being updated.

    Parameters
    ----------
    out
        A new folder for the copy; --index reads it.
    folder
        Of pictures; by default the one you are in.
    index
        The folder where the index lies, instead of the cache.
    """
    from diptych.search.export import copy_index

    print(f"{copy_index(folder, out, index):,} rows -> {out}")


@index.command
def export(
    out: Annotated[Path, Parameter(validator=CheckPath(dir_okay=False, ext=("parquet", "npz", "safetensors")))],
    folder: Path = Path(),
    *,
    index: Path | None = None,
) -> None:
    """Write paths, facts and features of an index for other programs.

    Parameters
    ----------
    out
        NAME.parquet holds all of it; NAME.npz and NAME.safetensors hold features and paths, as `diptych embed` writes.
    folder
        Of pictures; by default the one you are in.
    index
        The folder where the index lies, instead of the cache.
    """
    from diptych.search.export import export_index

    print(f"{export_index(folder, out, index):,} rows -> {out}")
