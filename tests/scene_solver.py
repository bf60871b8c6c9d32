"""Reads drawn scenes by rule: what stands where, from the picture alone. What it cannot read, no model needs to."""

import functools
import re

import numpy as np
from PIL import Image

from diptych.sets.counting_scenes import COLOURS
from diptych.sets.scene_tasks import Material, Thing, drawing, words

_COARSE = 4  # px: parts of a drawing that are nearer than this are one


def things_in(picture: Image.Image, material: Material) -> list[Thing]:
    """Everything that stands in a scene."""
    values = np.asarray(picture).astype(int)
    lowest = values.min(axis=2)
    seen = values.max(axis=2) - lowest > 45 if material == "solids" else lowest < 250  # floor and shadows are grey
    found = []
    for top, bottom, left, right in _boxes(seen):
        part, mask = values[top:bottom, left:right], seen[top:bottom, left:right]
        if material == "solids":
            name, colour = _solid(mask), _nearest_hue(part[mask])
        else:
            name, colour = _drawn(part)
        x, y, size = (left + right) / 2, (top + bottom) / 2, max(bottom - top, right - left)
        found.append(Thing(name=name, colour=colour, x=x, y=y, size=size))
    return found


def is_true(caption: str, things: list[Thing]) -> bool:
    """Whether a caption says what is there."""
    names = [one.name for one in things]
    if match := re.fullmatch(r"an? (\w+) on the (left|right) side", caption):
        return names == [match[1]] and (things[0].x < 160) == (match[2] == "left")
    if match := re.fullmatch(r"an? (\w+)", caption):
        return names == [match[1]]
    if match := re.fullmatch(r"two things that are (the same|different)", caption):
        return len(things) == 2 and (names[0] == names[1]) == (match[1] == "the same")
    if match := re.fullmatch(r"a scene (with|without) an? (\w+)(?: and without an? (\w+))?", caption):
        return (match[2] in names) == (match[1] == "with") and match[3] not in names
    if match := re.fullmatch(r"an? (\w+) in an? (\w+) frame and an? (\w+) in an? (\w+) frame", caption):
        return {(one.name, one.colour) for one in things} == {(match[1], match[2]), (match[3], match[4])}
    if match := re.fullmatch(r"an? (\w+) (\w+) and an? (\w+) (\w+)", caption):
        return {(one.name, one.colour) for one in things} == {(match[2], match[1]), (match[4], match[3])}
    if match := re.fullmatch(r"an? (\w+) and an? (\w+)", caption):
        return sorted(names) == sorted(match.groups())
    match = re.fullmatch(r"an? (\w+) (to the left of|to the right of|above|below|that is \w+ than) an? (\w+)", caption)
    assert match, caption
    if sorted(names) != sorted((match[1], match[3])):
        return False
    first, second = (next(one for one in things if one.name == name) for name in (match[1], match[3]))
    return {
        "to the left of": first.x < second.x,
        "to the right of": first.x > second.x,
        "above": first.y < second.y,
        "below": first.y > second.y,
        "that is bigger than": first.size > second.size,
        "that is smaller than": first.size < second.size,
    }[match[2]]


def _boxes(seen: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left and right of each group of pixels that lie together."""
    side = -(-len(seen) // _COARSE)
    coarse = (
        np.add.reduceat(np.add.reduceat(seen, range(0, len(seen), _COARSE), 0), range(0, len(seen), _COARSE), 1) > 0
    )
    left, boxes = {(int(y), int(x)) for y, x in zip(*coarse.nonzero(), strict=True)}, []
    while left:
        group, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            group.add((y, x))
            near = {(y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1)} & left
            left -= near
            border += near
        cells = np.zeros((side, side), dtype=bool)
        cells[tuple(np.array(sorted(group)).T)] = True
        fine = seen & np.kron(cells, np.ones((_COARSE, _COARSE), dtype=bool))[: len(seen), : len(seen)]
        rows, columns = np.flatnonzero(fine.any(axis=1)), np.flatnonzero(fine.any(axis=0))
        boxes.append((int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1))
    large = sorted(box for box in boxes if box[1] - box[0] > 8)
    return [box for box in large if not any(_is_within(box, other) for other in large)]  # a frame holds its drawing


def _is_within(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return other[0] < box[0] and box[1] < other[1] and other[2] < box[2] and box[3] < other[3]


def _solid(mask: np.ndarray) -> str:
    """A cylinder is narrow; a cube has a corner at its top, a sphere is round there."""
    height, width = mask.shape
    if width / height < 0.86:
        return "cylinder"
    return "cube" if mask[: max(1, round(0.06 * height))].any(axis=0).sum() / width < 0.36 else "sphere"


def _nearest_hue(pixels: np.ndarray) -> str:
    mean = pixels.mean(axis=0)
    return max(
        words().colours, key=lambda name: _cosine(mean - mean.min(), np.array(COLOURS[name]) - min(COLOURS[name]))
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _drawn(part: np.ndarray) -> tuple[str, str]:
    """The drawing that a part looks most like, and the colour of the frame around it."""
    edge = part[1, :, :]
    colour = ""
    if (edge == edge[0]).all():
        colour = next(name for name, rgb in COLOURS.items() if tuple(edge[0]) == rgb)
        part = part[12:-12, 12:-12]
        ink = part.min(axis=2) < 250
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        part = part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    seen = _small(Image.fromarray(part.astype(np.uint8)))
    return min(words().things, key=lambda name: float(((seen - _template(name)) ** 2).sum())), colour


@functools.cache
def _template(name: str) -> np.ndarray:
    return _small(drawing(name, 96))


def _small(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((24, 24), Image.Resampling.BOX)).astype(float)
