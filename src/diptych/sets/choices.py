"""Pictures with a right and a wrong caption, for compositional understanding, read at random.

1. SugarCrepe's own layout: `*.json`, one file a kind of change, of `{"0": {"filename", "caption",
   "negative_caption"}}`; the pictures of MS-COCO's `val2017` anywhere below.
2. ARO's own layout: `visual_genome_*.json`, a list of `{"image_path", "true_caption", "false_caption", "bbox_x",
   "bbox_y", "bbox_w", "bbox_h"}`; the pictures in `images/`, of which the box is what the captions are about.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diptych.errors import DataError
from diptych.sets.pictures import Pictures

Box = tuple[int, int, int, int]  # left, top, right, bottom, in px


@dataclass(frozen=True, eq=False, kw_only=True)
class ChoiceImages(Pictures):
    """N pictures, or parts of such, and Q choices between two captions of one."""

    boxes: tuple[Box | None, ...]  # N of them: the part that is shown; None for the whole
    image_of: np.ndarray  # [Q] int64
    right: tuple[str, ...]  # Q captions
    wrong: tuple[str, ...]
    kinds: tuple[str, ...]  # Q of them: what was changed, e.g. "swap_att"

    def open(self, index: int) -> Image.Image:
        """One picture, or its part, as RGB."""
        picture, box = super().open(index), self.boxes[index]
        return picture.crop(box) if box else picture


def read_choices(folder: Path, *, split: str = "test") -> ChoiceImages:
    """Find pictures with right and wrong captions.

    Args:
        folder: in one of the two layouts of this file's docstring.
        split: for the record; there is one.

    Raises:
        DataError: there is no list, or it is of another kind.
    """
    lists = sorted(folder.glob("visual_genome_*.json"))
    read = _aro_row if lists else _sugar_crepe_row
    if len(lists) > 1:
        raise DataError(f"{folder} must hold one list of ARO. It has {len(lists)}: give each a folder of its own.")
    lists = lists or sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    if not lists:
        raise DataError(f"{folder} must hold lists of right and wrong captions (*.json). It holds none.")
    rows = [(path.stem, *read(row, path)) for path in lists for row in _rows(path)]
    pictures = {(file, box): number for number, (file, box) in enumerate(dict.fromkeys((r[1], r[2]) for r in rows))}
    where = {path.name: path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")}
    return ChoiceImages(
        name=folder.resolve().name,
        split=split,
        keys=tuple(f"{file} {box}" if box else file for file, box in pictures),
        boxes=tuple(box for _, box in pictures),
        image_of=np.array([pictures[file, box] for _, file, box, _, _ in rows]),
        right=tuple(row[3] for row in rows),
        wrong=tuple(row[4] for row in rows),
        kinds=tuple(row[0] for row in rows),
        _sources=tuple(where.get(file, folder / file) for file, _ in pictures),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be a list of captions as JSON. It cannot be read: {error}.") from None
    rows = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} must be a list of captions as JSON. It holds no row.")
    return rows


def _sugar_crepe_row(row: dict[str, Any], path: Path) -> tuple[str, Box | None, str, str]:
    try:
        return Path(row["filename"]).name, None, row["caption"], row["negative_caption"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} must give filename, caption and negative_caption. It lacks {error}.") from None


def _aro_row(row: dict[str, Any], path: Path) -> tuple[str, Box | None, str, str]:
    try:
        left, top = row["bbox_x"], row["bbox_y"]
        box = (left, top, left + row["bbox_w"], top + row["bbox_h"])
        return Path(row["image_path"]).name, box, row["true_caption"], row["false_caption"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} must give image_path, captions and a box. It lacks {error}.") from None
