"""`diptych where`: a picture and texts in, the place of each text out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts.types import PositiveInt

from diptych.cli.console import complain, one_line, print_table
from diptych.cli.options import MEGAPIXELS, find_pictures, limited, read_templates
from diptych.data.prompts import PLAIN
from diptych.errors import ConfigError, DataError, ImageError
from diptych.files import atomic_file, shown
from diptych.weights.packaged import check_model_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from diptych.where import HeatMaps, Locator


def where(
    pictures: str,
    *texts: str,
    out: Path | None = None,
    templates: list[str] | None = None,
    templates_file: Path | None = None,
    model: str | None = None,
    size: PositiveInt | None = None,
    max_pixels: PositiveInt = MEGAPIXELS,
    json_: bool = False,
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
    templates
        A prompt template with {} for the text, or the name of a published set; as in `diptych classify`.
    templates_file
        A text file with one prompt template a line.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    size
        Pixels of the longer side that a picture is looked at with; by default twice the model's own.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    json_
        Print JSON.
    """
    if not texts:
        raise ConfigError('there must be a text to look for. Name it behind the picture, e.g. photo.jpg "a dog".')
    paths, locator = located(pictures, texts, templates, templates_file, model, size, max_pixels)
    answered: list[dict[str, Any]] = []
    for path, maps in mapped(locator, paths):
        found = maps.found()
        if not json_:
            if len(paths) > 1:
                print(f"{'' if not answered else chr(10)}{one_line(str(path))}")
            header = ("text", "at (x, y)", "box (left, top, right, bottom)", "fits better than")
            rows = [
                (
                    one.text,
                    pixels(one.point, maps.picture),
                    pixels(one.box, maps.picture),
                    f"{one.beaten:.0%} of words",
                )
                for one in found
            ]
            print_table(rows, header=header)
        if out:
            for number, text in enumerate(maps.texts):
                save_picture(maps.overlay(number), out / f"{path.stem}.{file_name(text)}.png")
        answered.append({"path": shown(path), "size": maps.picture.size, "texts": [asdict(one) for one in found]})
    if json_:
        print(json.dumps({"images": answered}, indent=2))


def located(
    pictures: str,
    texts: "Sequence[str]",
    templates: list[str] | None,
    templates_file: Path | None,
    model: str | None,
    size: int | None,
    max_pixels: int,
) -> "tuple[list[Path], Locator]":
    """The pictures, and what looks for the texts in them; words that the model does not know are said."""
    check_model_name(model)
    prompts = read_templates(templates, templates_file) or PLAIN
    paths = find_pictures([pictures])

    from diptych.weights.registry import load_in_torch
    from diptych.where import Locator

    locator = Locator(limited(load_in_torch(model), max_pixels), texts, prompts, image_size=size)
    for text in locator.unread:
        complain(str(text))
    return paths, locator


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


def pixels(shares: "Sequence[float]", picture: "Image.Image") -> str:
    """Shares of a picture's sides, x and y by turns, as pixels."""
    return ", ".join(f"{share * picture.size[number % 2]:.0f}" for number, share in enumerate(shares))


def save_picture(picture: "Image.Image", path: Path) -> None:
    with atomic_file(path) as aside:
        picture.save(aside, "PNG")


def file_name(text: str) -> str:
    """A text as a part of a file's name."""
    return "".join(character if character.isalnum() else "-" for character in text)[:60]
