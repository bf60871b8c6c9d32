"""`diptych index`: the index of a folder, made, looked at, checked, mended, moved, copied, exported and removed."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Path as CheckPath

from diptych.cli.console import complain, print_table
from diptych.cli.indexing import DEFAULT_OPTIONS, IndexOptions, model_of, opened, updated
from diptych.files import expanded, shown

index = App(name="index", help="Make, check, mend, move, copy, export and remove the index that diptych search uses.")


@index.command
def update(
    folder: Path = Path(),
    *,
    options: IndexOptions = DEFAULT_OPTIONS,
    retry: bool = False,
    verify: bool = False,
    forget: bool = False,
) -> None:
    """Bring the index of a folder in step with it, without a search; the first time, make it.

    Parameters
    ----------
    folder
        Of pictures and videos, read with its subfolders; by default the one you are in.
    retry
        Open again what could not be read, whatever the cause was.
    verify
        Read every file again, also where size and times are those known; only changed ones are encoded.
    forget
        Forget what is gone from the folder, also where a disk may only be away.
    """
    with opened(expanded(folder), options, many=True) as library:
        done = updated(library, options, must=True, retry=retry, verify=verify, forget=forget)
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
        print(json.dumps({**facts, "faults": {shown(path): why for path, why in faults.items()}}, indent=2))
        return
    notes = facts.pop("notes")
    print_table([(key, _cell(value)) for key, value in facts.items() if value not in ({}, [])])
    for message in (*faults.values(), *notes):
        complain(f"skipped: {message}")


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {what}" for what, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


@index.command(name="list")
def list_(*, json_: bool = False) -> None:
    """List the indexes that lie in the cache: of which folder each is, and whether that is still there.

    Parameters
    ----------
    json_
        Print JSON.
    """
    from diptych.search.moving import list_indexes

    found = list_indexes()
    if json_:
        rows = [
            {
                **asdict(one),
                "index": shown(one.index),
                "folder": shown(one.folder) if one.folder else None,
            }
            for one in found
        ]
        print(json.dumps(rows, indent=2))
        return
    if not found:
        complain("no index lies in the cache.")
        return
    print_table(
        [
            (
                shown(one.folder) if one.folder else "?",
                "" if one.is_there else "gone",
                f"{one.files:,}",
                f"{one.bytes / 1e6:,.1f}",
                one.model,
                shown(one.index),
            )
            for one in found
        ],
        header=("folder", "", "files", "MB", "model", "index"),
        numbers=[2, 3],
    )
    for one in found:
        if one.fault:
            complain(one.fault)


@index.command
def move(old: Path, new: Path, *, index: Path | None = None) -> None:
    """Tell an index that its folder has another path now; nothing is encoded again.

    A search or an update of the new path finds out by itself when the pictures are the same.

    Parameters
    ----------
    old
        The path that the folder had; it need not be there any more.
    new
        The path that it has.
    index
        The folder where the index lies, instead of the cache.
    """
    from diptych.search.moving import move_index

    print(f"the index of {new} is in {move_index(old, new, index)}")


@index.command
def remove(folder: Path, *, index: Path | None = None) -> None:
    """Remove the index of a folder; the pictures are not touched.

    Parameters
    ----------
    folder
        Of pictures; it need not be there any more.
    index
        The folder where the index lies, instead of the cache.
    """
    from diptych.search.moving import remove_index

    print(f"removed {remove_index(folder, index)}")


@index.command
def repair(folder: Path = Path(), *, options: IndexOptions = DEFAULT_OPTIONS) -> None:
    """Take what is damaged out of an index, and encode it anew.

    Parameters
    ----------
    folder
        Of pictures; by default the one you are in.
    """
    from diptych.search.repair import repair_index

    bundle, _ = model_of(folder, options)
    done = repair_index(folder, bundle.fingerprint(), bundle.embed_dim, options.index)
    for sentence in done:
        complain(sentence)
    with opened(expanded(folder), options) as library:
        update = updated(library, options, must=True)
        assert update is not None
        print(f"{update.total:,} files in {library.index_folder}: {update.added:,} encoded anew")


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
