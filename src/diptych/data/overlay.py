"""Maps laid over the picture that they are of: heat, numbered parts, boxes."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Frame = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a picture's sides

# Of parts, by their number: Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
_COLD, _WARM, _HOT = (20, 20, 80), (225, 70, 40), (255, 240, 90)
_MOST, _LEAST = 0.65, 0.35  # how much of a colour covers the hottest and the coldest
_BORDER = (255, 255, 255)


def stretched(values: np.ndarray, size: tuple[int, int], frame: Frame) -> np.ndarray:
    """A grid as large as its picture, smooth between its cells.

    Args:
        values: [h, w] float.
        size: width and height of the picture, pixels.
        frame: what the grid covers of the picture; it may reach beyond it.

    Returns:
        [height, width] float32.
    """
    width, height = size
    h, w = values.shape
    left, top, right, bottom = frame
    # The part of the grid that the picture covers, in cells.
    box = (
        -left / (right - left) * w,
        -top / (bottom - top) * h,
        (1 - left) / (right - left) * w,
        (1 - top) / (bottom - top) * h,
    )
    box = (max(0.0, box[0]), max(0.0, box[1]), min(float(w), box[2]), min(float(h), box[3]))
    grid = Image.fromarray(values.astype(np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BILINEAR, box))


def heat_over(picture: Image.Image, values: np.ndarray, frame: Frame, boxes: Sequence[Frame] = ()) -> Image.Image:
    """A picture under a heat map, dark blue to yellow, from the coldest cell to the hottest.

    Args:
        picture: RGB.
        values: [h, w] float.
        frame: see `stretched`.
        boxes: drawn as white lines.
    """
    heat = stretched(values, picture.size, frame)
    low, high = float(values.min()), float(values.max())
    share = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)[..., None]  # [height, width, 1]
    cold, warm, hot = (np.array(colour, dtype=np.float32) for colour in (_COLD, _WARM, _HOT))
    colour = np.where(share < 0.5, cold + 2 * share * (warm - cold), warm + (2 * share - 1) * (hot - warm))
    cover = _LEAST + (_MOST - _LEAST) * share
    mixed = np.asarray(picture, dtype=np.float32) * (1 - cover) + colour * cover
    drawn = Image.fromarray(mixed.round().astype(np.uint8))
    for box in boxes:
        draw_box(drawn, box)
    return drawn


def parts_over(picture: Image.Image, parts: np.ndarray) -> Image.Image:
    """A picture with its parts in colours, half covered; what has no part stays as it is.

    Args:
        picture: RGB.
        parts: [height, width] int, numbers from 0; -1 where there is none.
    """
    pixels = np.asarray(picture, dtype=np.float32)
    colour = np.array(COLOURS, dtype=np.float32)[parts % len(COLOURS)]
    mixed = np.where((parts >= 0)[..., None], (pixels + colour) / 2, pixels)
    return Image.fromarray(mixed.round().astype(np.uint8))


def draw_box(picture: Image.Image, box: Frame) -> None:
    """A box, white with a dark edge so that it is seen on any picture; the picture is changed."""
    width, height = picture.size
    left, right = box[0] * (width - 1), box[2] * (width - 1)
    top, bottom = box[1] * (height - 1), box[3] * (height - 1)
    line = max(1, min(width, height) // 150)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=3 * line)
    inner = (left + line, top + line, right - line, bottom - line)
    if inner[0] < inner[2] and inner[1] < inner[3]:
        draw.rectangle(inner, outline=_BORDER, width=line)
