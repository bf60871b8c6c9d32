"""Pictures changed in one thing: cut out and put before another, without colour, in another's texture, framed, marked.

An object can be cut out where it stands on a plain ground, as drawings do. Letters: H, W.
"""

import colorsys
from collections.abc import Mapping
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from diptych.sets.changed import Change
from diptych.sets.shifts import shift

_ALIKE = 12  # levels of a channel, within which a ground is plain
_PLAIN = 0.6  # share of the border that must be; what stands there may touch the rest
_PATCHES = 4  # of a row of a shuffled picture
GROUNDS: Mapping[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "red": (200, 40, 40),
    "green": (60, 150, 60),
    "blue": (50, 80, 190),
}
_MARK = "SAMPLE"


def object_mask(picture: Image.Image) -> np.ndarray | None:
    """[H, W] bool, what is not the plain ground around it; None where the ground is not plain.

    The ground is what hangs together with the border in the border's own colour, so white within an object stays.
    """
    values = np.asarray(picture).astype(int)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    colour = np.median(border, axis=0)
    if (np.abs(border - colour).max(axis=1) <= _ALIKE).mean() < _PLAIN:
        return None
    height, width = values.shape[:2]
    like_ground = np.ones((height + 2, width + 2), dtype=np.uint8)  # a rim joins all parts of the ground
    like_ground[1:-1, 1:-1] = np.abs(values - colour).max(axis=2) <= _ALIKE
    filled = Image.fromarray(255 * like_ground).copy()  # one over an array is not to be written to
    ImageDraw.floodfill(filled, (0, 0), 128)
    mask = np.asarray(filled)[1:-1, 1:-1] != 128
    return mask if mask.any() and not mask.all() else None


def on_colour(picture: Image.Image, _index: int, *, colour: tuple[int, int, int]) -> Image.Image:
    """The object on a plain ground of another colour."""
    mask = _mask(picture)
    ground = Image.new("RGB", picture.size, colour)
    ground.paste(picture, mask=mask)
    return ground


def before(picture: Image.Image, ground: Image.Image) -> Image.Image:
    """The object before another picture, whose middle fills the frame."""
    shown = ImageOps.fit(ground, picture.size, Image.Resampling.BICUBIC)
    shown.paste(picture, mask=_mask(picture))
    return shown


def silhouette(picture: Image.Image, _index: int) -> Image.Image:
    """The object in black on white: its shape alone."""
    shown = Image.new("RGB", picture.size, "white")
    shown.paste("black", mask=_mask(picture))
    return shown


def in_texture(picture: Image.Image, other: Image.Image) -> Image.Image:
    """The shape of one object, filled with small tiles of what another is made of, on white."""
    mask = object_mask(other)
    assert mask is not None, "the other's ground is plain"
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    within = other.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    tile = within.resize([max(4, side // 3) for side in picture.size], Image.Resampling.BICUBIC)
    tiles = Image.new("RGB", picture.size)
    for top in range(0, picture.height, tile.height):
        for left in range(0, picture.width, tile.width):
            tiles.paste(tile, (left, top))
    shown = Image.new("RGB", picture.size, "white")
    shown.paste(tiles, mask=_mask(picture))
    return shown


def turned_hue(picture: Image.Image, _index: int, *, turn: float) -> Image.Image:
    """All hues turned by a share of the circle; grey stays grey.

    >>> turned_hue(Image.new("RGB", (1, 1), (255, 0, 0)), 0, turn=1 / 3).getpixel((0, 0))
    (0, 255, 0)
    """
    values = np.asarray(picture) / 255  # [H, W, 3]
    flat, where = np.unique(values.reshape(-1, 3), axis=0, return_inverse=True)
    turned = np.array([_turned(red, green, blue, turn) for red, green, blue in flat.tolist()])
    return Image.fromarray(np.rint(255 * turned[where.ravel()]).astype(np.uint8).reshape(values.shape))


def grey(picture: Image.Image, _index: int) -> Image.Image:
    return picture.convert("L").convert("RGB")


def shuffled(picture: Image.Image, index: int, *, seed: int) -> Image.Image:
    """A picture cut into 4 x 4 parts, which change places: texture and colour without shape."""
    width, height = (_PATCHES * max(1, side // _PATCHES) for side in picture.size)
    whole = picture.resize((width, height), Image.Resampling.BICUBIC)
    w, h = width // _PATCHES, height // _PATCHES
    order = np.random.default_rng([seed, index]).permutation(_PATCHES**2).tolist()
    shown = Image.new("RGB", (width, height))
    for place, part in enumerate(order):
        left, top = part % _PATCHES * w, part // _PATCHES * h
        piece = whole.crop((left, top, left + w, top + h))
        shown.paste(piece, (place % _PATCHES * w, place // _PATCHES * h))
    return shown


def framed(picture: Image.Image, _index: int, *, colour: str) -> Image.Image:
    """A border of a tenth of the shorter side around the picture."""
    return ImageOps.expand(picture, border=max(1, round(0.1 * min(picture.size))), fill=colour)


def marked(picture: Image.Image, _index: int) -> Image.Image:
    """A half-transparent mark over the picture, as agencies put it."""
    font = ImageFont.load_default(max(6.0, 0.2 * min(picture.size)))
    mask = Image.new("L", picture.size)
    middle = (picture.width / 2, picture.height / 2)
    ImageDraw.Draw(mask).text(middle, _MARK, fill=128, font=font, anchor="mm")
    shown = picture.copy()
    shown.paste("white" if np.asarray(picture).mean() < 128 else "black", mask=mask)
    return shown


def coarser(picture: Image.Image, _index: int, *, side: int) -> Image.Image:
    """As if the picture had `side` px on its shorter side."""
    scale = min(1.0, side / min(picture.size))
    small = picture.resize([max(1, round(scale * one)) for one in picture.size], Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def _as(picture: Image.Image, _index: int, *, kind: str, severity: int) -> Image.Image:
    return shift(picture, kind, severity=severity, rng=np.random.default_rng(0))


def plain_changes(seed: int) -> dict[str, dict[str, Change]]:
    """What can be done to any picture: by what is varied, then by its name."""
    return {
        "colour": {
            "grey": grey,
            **{f"hues turned by {360 // 3 * n}°": partial(turned_hue, turn=n / 3) for n in (1, 2)},
        },
        "shape": {"edges alone": partial(_as, kind="edges", severity=1)},
        "texture": {"parts shuffled": partial(shuffled, seed=seed)},
        "border": {f"{colour} frame": partial(framed, colour=colour) for colour in ("black", "white", "red")},
        "mark": {f'"{_MARK}" across': marked},
        "resolution": {f"as if of {side} px": partial(coarser, side=side) for side in (64, 32, 16)},
        "JPEG": {
            f"quality {quality}": partial(_as, kind="jpeg", severity=level) for quality, level in ((25, 1), (7, 5))
        },
    }


def object_changes() -> dict[str, dict[str, Change]]:
    """What can be done to an object that can be cut out."""
    return {
        "background": {f"on {name}": partial(on_colour, colour=colour) for name, colour in GROUNDS.items()},
        "shape": {"silhouette": silhouette},
    }


def _mask(picture: Image.Image) -> Image.Image:
    mask = object_mask(picture)
    assert mask is not None, "the ground is plain"
    return Image.fromarray((255 * mask).astype(np.uint8))


def _turned(red: float, green: float, blue: float, turn: float) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
