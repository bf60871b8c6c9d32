"""`diptych caption`: pictures in, a sentence for each out."""

import json
from pathlib import Path
from typing import Any

from cyclopts.types import PositiveInt

from diptych.cli.console import complain, one_line, print_table
from diptych.cli.options import MEGAPIXELS, find_pictures, limited
from diptych.errors import ConfigError, DataError, ImageError
from diptych.files import shown


def caption(
    *pictures: str,
    model: Path,
    beams: PositiveInt = 1,
    device: str = "auto",
    max_pixels: PositiveInt = MEGAPIXELS,
    json_: bool = False,
) -> None:
    """Write a caption for each picture, by a model that was trained to with the objective "caption".

    Parameters
    ----------
    pictures
        Files, folders with their subfolders, or patterns such as "photos/*.jpg".
    model
        The folder of a run's bundle, which has objectives.safetensors beside the weights.
    beams
        Texts that are followed at a time, by beam search. 1 is greedy: always the likeliest next token.
    device
        auto, the GPU where there is one; cpu; or a name that torch knows: cuda, cuda:1, mps.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    json_
        Print JSON.
    """
    if not pictures:
        raise ConfigError("there must be a picture to write a caption for. Name a file, a folder or a pattern.")
    paths = find_pictures(pictures)

    from diptych.train.heads import Captioner, Heads
    from diptych.weights.registry import load_in_torch

    write = Captioner(limited(load_in_torch(model, device=device), max_pixels), Heads.load(model))
    rows: list[tuple[str, str]] = []
    answered: list[dict[str, Any]] = []
    for path in paths:
        try:
            text, written = write(path, beams=beams)
        except ImageError as error:
            if len(paths) == 1:
                raise
            complain(f"skipped: {error}")
            continue
        rows.append((one_line(str(path)), text))
        answered.append({"path": shown(str(path)), "caption": text, "score": written.score})
    if not answered:
        raise DataError(f"none of {len(paths):,} pictures could be read.")
    if json_:
        print(json.dumps({"model": str(model), "beams": beams, "images": answered}, indent=2))
    elif len(paths) == 1:
        print(rows[0][1])
    else:
        print_table(rows)
