"""`diptych where`: a picture and texts in, the place of each text out."""

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.console import complain, one_line, print_table
from diptych.cli.options import AT_TWICE_THE_SIZE, MapOptions, find_pictures
from diptych.errors import ConfigError, DataError, ImageError
from diptych.files import atomic_file, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from diptych.data.overlay import Frame
    from diptych.where import HeatMaps, Locator


def where(
    pictures: str,
    *texts: str,
    out: Path | None = None,
    options: MapOptions = AT_TWICE_THE_SIZE,
) -> None:
    """Say where a picture shows what each text says, and how much better it fits there than other words.

    Several texts are compared with each other, a single one with words of all kinds. A place is given for each text,
    also where the picture does not show it: then many other words fit that place as well. A map is a hint where the
    model looks, and no mask.

    Parameters
    ----------
    pictures
        A file, a folder with its subfolders, or a pattern such as "photos/*.jpg".
    texts
        What is looked for, e.g. "a dog" "a cat".
    out
        A folder for the maps, NAME.TEXT.png each: the picture under its heat, with a box.
    """
    if not texts:
        raise ConfigError('there must be a text to look for. Name it behind the picture, e.g. photo.jpg "a dog".')
    paths = find_pictures([pictures])
    locator = options.locator(texts)
    answered: list[dict[str, Any]] = []
    names, endings = names_without_endings(paths), _file_names(texts)
    for path, maps in mapped(locator, paths):
        found = maps.found()
        if not options.json_:
            if len(paths) > 1:
                print(f"{'' if not answered else chr(10)}{one_line(str(path))}")
            header = ("text", "at (x, y)", "box (left, top, right, bottom)", "fits better than")
            rows = [
                (
                    one.text,
                    pixel_at(one.point, maps.picture),
                    pixel_box(one.box, maps.picture),
                    f"{one.beaten:.0%} of words",
                )
                for one in found
            ]
            print_table(rows, header=header)
        if out:
            for number, ending in enumerate(endings):
                save_picture(maps.overlay(number), out / f"{names[path]}.{ending}.png")
        answered.append({"path": shown(path), "size": maps.picture.size, "texts": [asdict(one) for one in found]})
    if options.json_:
        print(json.dumps({"images": answered}, indent=2))


def mapped(locator: "Locator", paths: "Sequence[Path]") -> "Iterator[tuple[Path, HeatMaps]]":
    """Each picture with its maps; of several, one that cannot be read is said and left out.

    Raises:
        DataError: none can be read.
        ImageError: the only one cannot.
    """
    done = 0
    for path in paths:
        try:
            maps = locator(path)
        except ImageError as error:
            if len(paths) == 1:
                raise
            complain(f"skipped: {error}")
            continue
        done += 1
        yield path, maps
    if not done:
        raise DataError(f"none of {len(paths):,} pictures could be read.")


def pixel_at(point: "tuple[float, float]", picture: "Image.Image") -> str:
    """The pixel that a point lies in, given as shares of a picture's sides: x and y from 0."""
    return ", ".join(f"{min(int(share * side), side - 1)}" for share, side in zip(point, picture.size, strict=True))


def pixel_box(box: "Frame", picture: "Image.Image") -> str:
    """The smallest box of whole pixels around one that is given as shares: left, top, right, bottom."""
    # Digits that no pixel hangs on go first: 64.00000001 is 64.
    edges = [round(share * picture.size[number % 2], 3) for number, share in enumerate(box)]
    return ", ".join(map(str, [*map(math.floor, edges[:2]), *map(math.ceil, edges[2:])]))


def save_picture(picture: "Image.Image", path: Path) -> None:
    with atomic_file(path) as aside:
        picture.save(aside, "PNG")


def names_without_endings(paths: "Sequence[Path]") -> dict[Path, str]:
    """What each picture is called below a folder of outputs: as below the folder that all are in, none as another.

    Where two differ in their endings alone, all keep theirs.
    """
    base = os.path.commonpath([path.parent for path in paths])
    bare = [path.with_suffix("") for path in paths]
    named = bare if len(set(bare)) == len(paths) else paths
    return {path: os.path.relpath(name, base) for path, name in zip(paths, named, strict=True)}


def _file_names(texts: "Sequence[str]") -> list[str]:
    """Texts as parts of files' names, none as another: where two would be the same, all have their number."""
    names = ["".join(character if character.isalnum() else "-" for character in text)[:60] for text in texts]
    return names if len(set(names)) == len(names) else [f"{name}-{number}" for number, name in enumerate(names, 1)]
