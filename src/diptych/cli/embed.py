"""`diptych embed`: pictures in, one file of features out."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Path as CheckPath

from diptych.cli.console import complain
from diptych.cli.options import find_pictures
from diptych.errors import ConfigError, DataError


def embed(
    *pictures: str,
    out: Annotated[Path, Parameter(validator=CheckPath(dir_okay=False, ext=("safetensors", "npz")))],
    model: str | None = None,
    batch_size: PositiveInt = 64,
) -> None:
    """Turn each picture into one row of features of unit length, for an index or a probe.

    Parameters
    ----------
    pictures
        Files, folders with their subfolders, or patterns such as "photos/*.jpg".
    out
        Where features and paths go: NAME.safetensors or NAME.npz.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    batch_size
        Pictures in one forward pass.
    """
    if not pictures:
        raise ConfigError("there must be a picture to embed. Name a file, a folder or a pattern.")
    files = find_pictures(pictures)

    from rich.console import Console
    from rich.progress import Progress

    from diptych.embed import embed_images
    from diptych.weights.registry import load

    bundle = load(model)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
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
