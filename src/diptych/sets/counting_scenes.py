"""Scenes of 3 to 10 solids on a floor, drawn by ourselves: counting, as CLEVR asks for it.

After Johnson et al., "CLEVR", arXiv:1612.06890: three shapes, two sizes, two surfaces, eight colours. The light, the
camera and the shadows are far simpler than there, so scores are not those on CLEVR. All things lie within the middle
square, as the centre crop of most models would cut off the others and the count with them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from diptych.errors import DataError
from diptych.sets.writer import LabelledPicture

COUNTS = range(3, 11)
COLOURS = {
    "gray": (115, 115, 115),
    "red": (190, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 120, 35),
    "brown": (129, 74, 25),
    "purple": (140, 40, 200),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
SHAPES = ("sphere", "cube", "cylinder")
SIZE = (480, 320)  # px, as CLEVR's
_FINE = 2  # drawn at twice the size and made smaller, for smooth edges
_RADII = (15, 27)  # px at the front edge, of small and large things
_MAX_HIDDEN = 0.1  # share of a thing's box that another's may cover
_TRIES = 4000


@dataclass(frozen=True)
class Solid:
    """One thing in a scene."""

    shape: str
    colour: str
    shiny: bool
    x: float  # px, of its middle
    y: float
    radius: float  # px, half of its width


def scenes(count: int, *, seed: int, split: str) -> Iterator[LabelledPicture]:
    """Pictures with 3 to 10 things; class 0 has three. Each number comes equally often, up to one picture.

    Args:
        count: pictures.
        seed: of all that is drawn.
        split: another split has other pictures.
    """
    order = _generator(seed, split, 0).permutation(count)
    for number in range(count):
        things = COUNTS[int(order[number]) % len(COUNTS)]
        yield f"{number:06d}", draw_scene(place(things, _generator(seed, split, number + 1))), things - COUNTS[0]


def place(count: int, rng: np.random.Generator) -> list[Solid]:
    """Things on the floor, none of which hides more than a tenth of another; those at the back first.

    Raises:
        DataError: they do not fit.
    """
    placed: list[Solid] = []
    left, right = (SIZE[0] - SIZE[1]) / 2, (SIZE[0] + SIZE[1]) / 2  # a centre crop must not cut a thing off
    for _ in range(_TRIES):
        if len(placed) == count:
            return sorted(placed, key=lambda one: one.y)
        depth = rng.random()  # 0 at the back, 1 at the front
        radius = _RADII[int(rng.integers(2))] * (0.6 + 0.4 * depth)
        new = Solid(
            shape=SHAPES[int(rng.integers(len(SHAPES)))],
            colour=list(COLOURS)[int(rng.integers(len(COLOURS)))],
            shiny=bool(rng.integers(2)),
            x=float(rng.uniform(left + radius, right - radius)),
            y=float(120 + 160 * depth),
            radius=float(radius),
        )
        if all(hidden(new, one) <= _MAX_HIDDEN for one in placed):
            placed.append(new)
    raise DataError(f"{count} things must fit into a scene. They do not.")


def hidden(first: Solid, second: Solid) -> float:
    """Share of the smaller one's box that both boxes cover."""
    overlap = 1.0
    for a, b in ((first.x, second.x), (first.y, second.y)):
        overlap *= max(0.0, min(a + first.radius, b + second.radius) - max(a - first.radius, b - second.radius))
    return overlap / (2 * min(first.radius, second.radius)) ** 2


def draw_scene(solids: list[Solid]) -> Image.Image:
    """The picture of a scene, 480 x 320 px RGB. A thing that comes later lies before the others."""
    width, height = (_FINE * side for side in SIZE)
    shade = np.linspace(125, 205, height)[:, None, None] * np.ones((1, width, 3))
    picture = Image.fromarray(shade.astype(np.uint8))
    shadows = Image.new("L", picture.size, 0)
    for one in solids:
        x, y, r = (_FINE * value for value in (one.x + 0.5 * one.radius, one.y + 0.8 * one.radius, one.radius))
        ImageDraw.Draw(shadows).ellipse((x - 1.3 * r, y - 0.5 * r, x + 1.3 * r, y + 0.5 * r), fill=110)
    picture.paste("black", mask=shadows.filter(ImageFilter.GaussianBlur(5 * _FINE)))
    for one in solids:
        patch, mask = _solid(one)
        corner = (round(_FINE * one.x) - patch.width // 2, round(_FINE * one.y) - patch.height // 2)
        picture.paste(patch, corner, mask)
    return picture.resize(SIZE, Image.Resampling.LANCZOS)


def _solid(one: Solid) -> tuple[Image.Image, Image.Image]:
    """A square with the thing, and where in it the thing is; light comes from the upper left."""
    half = max(4, round(_FINE * one.radius))
    v, u = np.mgrid[-half:half, -half:half] / half  # [-1, 1), v downwards
    normal, inside = {"sphere": _sphere, "cube": _cube, "cylinder": _cylinder}[one.shape](u, v)
    light = np.array([-0.45, -0.65, 0.61])
    diffuse = np.clip(normal @ light, 0, 1)
    colour = np.array(COLOURS[one.colour]) * (0.35 + 0.75 * diffuse)[..., None]
    between = light + np.array([0, 0, 1])  # light and eye
    gleam = np.clip(normal @ (between / np.linalg.norm(between)), 0, 1)
    colour += (200 if one.shiny else 25) * (gleam ** (40 if one.shiny else 8))[..., None]
    patch = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
    return patch, Image.fromarray((255 * inside).astype(np.uint8))


def _sphere(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = u**2 + v**2 <= 1
    return np.stack([u, v, np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))], axis=-1), inside


def _cube(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Top, left and right face of a cube that stands on edge: a hexagon of three rhombi."""
    half_width, slope = 0.9, 0.45
    inside = (np.abs(u) <= half_width) & (np.abs(v) <= 0.95 - slope * np.abs(u) / half_width)
    top = v <= -0.05 - slope * np.abs(u) / half_width
    faces = np.where(
        top[..., None], [0.0, -0.9, 0.44], np.where((u < 0)[..., None], [-0.7, 0.3, 0.65], [0.7, 0.3, 0.65])
    )
    return faces, inside


def _cylinder(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half_width, flat = 0.75, 0.28  # of the ellipse that is its top
    rim = flat * np.sqrt(np.clip(1 - (u / half_width) ** 2, 0, 1))
    inside = (np.abs(u) <= half_width) & (v >= -0.7 - rim) & (v <= 0.65 + rim)
    top = v <= -0.7 + rim
    across = np.clip(u / half_width, -1, 1)
    side = np.stack([across, np.full_like(u, 0.15), np.sqrt(1 - across**2)], axis=-1)
    return np.where(top[..., None], [0.0, -0.9, 0.44], side), inside


def _generator(seed: int, split: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, *split.encode(), number])
