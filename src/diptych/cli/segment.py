"""`diptych segment`: a picture and labels in, its parts out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diptych.cli.console import one_line, print_table
from diptych.cli.options import AT_TWICE_THE_SIZE, MapOptions, find_pictures
from diptych.cli.where import mapped, names_without_endings, pixel_box, save_picture
from diptych.errors import ConfigError
from diptych.files import shown

_FITS = 0.9  # as `diptych.where.FITS`; a test holds it to that
_MOST = 254  # labels; a grey picture has 256 values, and one is for what fits none


def segment(
    pictures: str,
    *labels: str,
    out: Path | None = None,
    fits: float = _FITS,
    options: MapOptions = AT_TWICE_THE_SIZE,
) -> None:
    """Divide a picture into parts by labels: each place gets the label that fits it best, or none of them.

    The parts are as coarse as the model's grid: a cell is many pixels wide, and its feature knows of its
    surroundings. Say what else there is ("grass", "sky"), and the parts become better.

    Parameters
    ----------
    pictures
        A file, a folder with its subfolders, or a pattern such as "photos/*.jpg".
    labels
        What parts there may be, e.g. "a dog" "grass" "sky".
    out
        A folder for two pictures of each: NAME.labels.png, grey, whose values are 0 for no label and else the label's
        number from 1; and NAME.parts.png, the picture in the parts' colours.
    fits
        Share of words of all kinds that a label must fit a place better than, from 0 to 1; else the place has no
        label. 0 gives every place one.
    """
    if not 1 <= len(labels) <= _MOST:
        raise ConfigError(
            f'there must be 1 to {_MOST} labels. Got {len(labels)}. Name them behind the picture: p.jpg "a dog" sky.'
        )
    if not 0 <= fits <= 1:
        raise ConfigError(f"--fits must be a share from 0 to 1. Got {fits}.")
    paths = find_pictures([pictures])
    locator = options.locator(labels)
    import numpy as np
    from PIL import Image

    answered: list[dict[str, Any]] = []
    names = names_without_endings(paths)
    for path, maps in mapped(locator, paths):
        parts = maps.parts(fits)
        if not options.json_:
            if len(paths) > 1:
                print(f"{'' if not answered else chr(10)}{one_line(str(path))}")
            rows = [(one.label, f"{one.share:.1%}", pixel_box(one.box, maps.picture)) for one in parts]
            rows.append(("(none of these)", f"{1 - sum(one.share for one in parts):.1%}", ""))
            print_table(rows, header=("label", "of the picture", "box (left, top, right, bottom)"), numbers=[1])
        if out:
            values = (maps.label_map(fits) + 1).astype(np.uint8)
            save_picture(Image.fromarray(values), out / f"{names[path]}.labels.png")
            save_picture(maps.parts_overlay(fits), out / f"{names[path]}.parts.png")
        answered.append({"path": shown(path), "size": maps.picture.size, "parts": [asdict(one) for one in parts]})
    if options.json_:
        print(json.dumps({"labels": list(locator.texts), "fits": fits, "images": answered}, indent=2))
