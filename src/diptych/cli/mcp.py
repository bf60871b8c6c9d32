"""`diptych mcp`: a library for assistants, by the Model Context Protocol."""

import shlex
from pathlib import Path

from cyclopts.types import PositiveInt

from diptych.cli.indexing import IndexOptions, model_of
from diptych.cli.options import BY_MEASURE, MEGAPIXELS, EngineOptions
from diptych.errors import ConfigError, missing_extra
from diptych.files import expanded, shown


def mcp(
    folder: Path = Path(),
    *,
    index: Path | None = None,
    engines: EngineOptions = BY_MEASURE,
    max_pixels: PositiveInt = MEGAPIXELS,
) -> None:
    """Let an assistant search a folder and look at its pictures, read-only, by the Model Context Protocol over standard
    input and output. Needs: pip install 'diptych[mcp]'.

    The folder must be indexed (`diptych index update`); what is indexed answers. No path outside of it can be named.

    Parameters
    ----------
    folder
        Of pictures; by default the one you are in.
    index
        The folder where the index lies, instead of the cache.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    """
    from diptych.search.about import read_about
    from diptych.search.index_folder import place_of

    folder, place = place_of(expanded(folder), index)
    about = read_about(place)
    if about is None or about.folder != folder:  # else opening it would write
        words = ["diptych", "index", "update", shown(folder), *(["--index", shown(place)] if index else [])]
        raise ConfigError(f"{folder} must be indexed first, and is not: {shlex.join(words)}.")
    try:
        from diptych.assistant import server_for
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "pydantic"):
            raise
        raise missing_extra("diptych mcp", "mcp", "`diptych search --json` works without it.") from None
    from diptych.search.library import Library

    bundle, model = model_of(folder, IndexOptions(index=index, engines=engines, max_pixels=max_pixels), many=None)
    with Library.open(folder, bundle, index=index, model=model) as library:
        server_for(library).run("stdio")
