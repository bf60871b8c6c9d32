"""Sentences drawn as pictures: Rendered SST2 made again from the text of SST-2.

Source: CLIP, arXiv:2103.00020, appendix A: black text on white, 448 x 448 px, the label is the sentiment. Font, size
and wrapping were not told; here the font is the one inside Pillow, so scores differ from those on the authors'
pictures.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from diptych.data.texts import read_text, text_lines
from diptych.errors import DataError
from diptych.sets.writer import LabelledPicture

SIDE = 448  # px
CLASSES = ("negative", "positive")
_MARGIN = 16  # px
_SIZES = (40, 36, 32, 28, 24, 20, 16, 12)  # px, the largest that fits is taken
_SPLITS = {"train": "train", "dev": "validation", "validation": "validation", "val": "validation", "test": "test"}


def render_text(text: str) -> Image.Image:
    """Black text on white, wrapped, as large as fits; 448 x 448 px RGB.

    Raises:
        DataError: the text does not fit at the smallest size.
    """
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    for size in _SIZES:
        font = ImageFont.load_default(size)
        lines = _wrapped(text, font)
        box = draw.multiline_textbbox((_MARGIN, _MARGIN), lines, font=font)
        if box[2] <= SIDE - _MARGIN and box[3] <= SIDE - _MARGIN:
            draw.multiline_text((_MARGIN, _MARGIN), lines, fill="black", font=font)
            return picture
    raise DataError(f"A text must fit into {SIDE} x {SIDE} px. This one does not: {text[:60]!r}...")


def sentences(source: Path) -> dict[str, list[tuple[str, int]]]:
    """Sentences with their sentiment, 0 or 1, by split.

    Args:
        source: a file, or a folder of files, train, dev (or validation, val) and test. A `.tsv` has columns sentence
            and label, as in GLUE, whose test part has no labels and is passed over; a `.txt` has a line
            `LABEL SENTENCE` each.

    Raises:
        DataError: no such file is there, or a line has no sentiment.
    """
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    found = {
        _SPLITS[path.stem.casefold()]: path
        for path in files
        if path.suffix in (".tsv", ".txt") and path.stem.casefold() in _SPLITS
    }
    read = {split: list(_tsv(path) if path.suffix == ".tsv" else _txt(path)) for split, path in found.items()}
    labelled = {split: rows for split, rows in read.items() if rows}
    if not labelled:
        raise DataError(f"{source} must hold train, dev or test as .tsv (sentence, label) or .txt. It holds none.")
    return labelled


def rendered(rows: list[tuple[str, int]]) -> Iterator[LabelledPicture]:
    """The pictures of sentences with their sentiment."""
    for number, (sentence, label) in enumerate(rows):
        yield f"{number:06d}", render_text(sentence), label


def _tsv(path: Path) -> Iterator[tuple[str, int]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if "sentence" not in (reader.fieldnames or ()):
            raise DataError(f"{path} must have the columns sentence and label. It has {reader.fieldnames}.")
        if "label" not in (reader.fieldnames or ()):
            return  # the test part of GLUE
        for row in reader:
            yield row["sentence"].strip(), _sentiment(row["label"], path)


def _txt(path: Path) -> Iterator[tuple[str, int]]:
    for line in text_lines(read_text(path)):
        label, _, sentence = line.partition(" ")
        yield sentence.strip(), _sentiment(label, path)


def _sentiment(label: str | None, path: Path) -> int:
    if label not in ("0", "1"):
        raise DataError(f"{path} must have sentiment 0 or 1 for each sentence. Got {label!r}.")
    return int(label)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    lines = [""]
    for word in re.split(r"\s+", text.strip()):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE - 2 * _MARGIN or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
