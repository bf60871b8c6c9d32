"""The stage that blurs faces, or leaves out pictures with people, with a detector that the user names.

diptych ships no such detector, and no detector finds every face: what is asked of one, and how well it does on one's
own pictures, is the user's to say.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageFilter

from diptych.curate.detectors import boxes_in
from diptych.curate.seen_pictures import seen, unreadable
from diptych.errors import ConfigError, ImageError
from diptych.outside import named
from diptych.rows.columns import PICTURE, with_column
from diptych.rows.stage import Judged, Whole

_AHEAD = 2  # whole pictures are large
_MARGIN = 0.1  # of a box's sides, put around it: a detector ends at the chin
_BLUR = 0.2  # radius, of the longer side of a box
_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class People:
    """Faces are blurred, or pictures with people dropped.

    A picture that is changed is encoded again: a JPEG as JPEG with quality 95, others as PNG, upright, in sRGB and
    without what the file told of itself; its `sha256` and `bytes` are renewed, and the column `notes` says so. Others
    stay byte for byte.

    Source: DataComp (arXiv:2304.14108, section 3.1) blurs the faces of its pool; Yang et al. (arXiv:2103.06191) find
    that blurred faces cost ImageNet classifiers less than 1 % of top-5 accuracy.
    """

    detector: str  # "module:function": [H, W, 3] uint8 -> [N, 5], left, top, right, bottom in px, confidence
    action: Literal["blur", "drop"] = "blur"
    min_confidence: float = 0.5  # as the detector means it
    name: ClassVar[str] = "people"
    reads_pictures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if ":" not in self.detector:
            raise ConfigError(f'people.detector must name a function as "module:function". Got {self.detector!r}.')

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002  # as all stages take it
        detector = named(self.detector, "people.detector")
        bad: list[tuple[int, ImageError]] = []
        counts = np.zeros(len(rows), np.int64)  # boxes
        changed: dict[int, bytes] = {}
        for row, pixels in enumerate(seen(rows, np.asarray, ahead=_AHEAD)):
            if isinstance(pixels, ImageError):
                bad.append((row, pixels))
                continue
            boxes = boxes_in(pixels, detector, self.min_confidence)
            counts[row] = len(boxes)
            if len(boxes) and self.action == "blur":
                changed[row] = _encoded(blurred(pixels, boxes), rows[PICTURE][row].as_py())
        good = np.ones(len(rows), bool)
        good[[row for row, _ in bad]] = False
        gone = unreadable(rows["key"], bad)
        if self.action == "blur":
            rows = _with_pictures(rows, changed, counts)
            return Judged(kept=rows.filter(pa.array(good)), dropped=gone)
        read = rows.drop_columns([PICTURE]).filter(pa.array(good))
        values = pa.array([f"{count} found" for count in counts[good].tolist()], pa.string())
        judged = Judged.by(read, pa.array(counts[good] == 0), self.name, value=values, limit="no person in the picture")
        return Judged(kept=judged.kept, dropped=pa.concat_tables([gone, judged.dropped]))


def blurred(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A picture with boxes that nobody is known by: [H, W, 3] uint8.

    Args:
        pixels: [H, W, 3] uint8.
        boxes: [N, 4] int64, left, top, right, bottom, px.
    """
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels.copy())
    for left, top, right, bottom in boxes.tolist():
        across, down = round(_MARGIN * (right - left)), round(_MARGIN * (bottom - top))
        box = (max(left - across, 0), max(top - down, 0), min(right + across, width), min(bottom + down, height))
        radius = max(_BLUR * max(right - left, bottom - top), 2)
        picture.paste(picture.crop(box).filter(ImageFilter.GaussianBlur(radius)), box)
    return np.asarray(picture)


def _encoded(pixels: np.ndarray, before: bytes) -> bytes:
    file = io.BytesIO()
    if before.startswith(b"\xff\xd8"):
        Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    else:
        Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _with_pictures(rows: pa.Table, changed: dict[int, bytes], counts: np.ndarray) -> pa.Table:
    mask = np.zeros(len(rows), bool)
    mask[list(changed)] = True
    which = pa.array(mask)

    def put(name: str, values: pa.Array) -> None:
        nonlocal rows
        before = rows[name] if name in rows.column_names else pa.nulls(len(rows), values.type)
        before = before.combine_chunks() if isinstance(before, pa.ChunkedArray) else before
        rows = with_column(rows, name, pc.replace_with_mask(before, which, values.cast(before.type)))

    files = list(changed.values())  # in the order of the rows
    formats = ["jpeg" if data.startswith(b"\xff\xd8") else "png" for data in files]
    put(PICTURE, pa.array(files, pa.binary()))
    put("sha256", pa.array([hashlib.sha256(data).hexdigest() for data in files], pa.string()))
    for name, values in (
        ("bytes", pa.array([len(data) for data in files], pa.int64())),
        ("format", pa.array(formats, pa.string())),
    ):
        if name in rows.column_names:
            put(name, values)
    told = [
        f"faces blurred: {counts[row]}; encoded again as {'JPEG' if format_ == 'jpeg' else 'PNG'}"
        for row, format_ in zip(changed, formats, strict=True)
    ]
    notes = rows["notes"].filter(which).to_pylist() if "notes" in rows.column_names else [None] * len(told)
    put(
        "notes",
        pa.array([f"{note}; {new}" if note else new for note, new in zip(notes, told, strict=True)], pa.string()),
    )
    return rows
