"""Drawn scenes with a right and a wrong caption: relations, sides, sizes, colours, negation, same or different; counts.

Scenes come in pairs: the wrong caption of one is the right one of the other, as in Winoground (Thrush et al.,
arXiv:2204.03162), so who reads the captions alone is right on one of two. Of a caption and its wrong one

- "name": a thing or a colour is another; who knows which words are true of a picture, in whatever order, can tell;
- "word": a word of relation, number or negation is its opposite;
- "order": the words are the same in another order; who knows words alone can only guess.

Things are solids on a floor, or drawings of the embedded set of Twemoji on white. All is a function of the seed.
Letters: N pictures.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from diptych.config import from_dict, read_toml
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.prompts import with_article
from diptych.sets.choices import ChoiceImages
from diptych.sets.counting_scenes import COLOURS, SIZE, Solid, draw_scene
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled

Material = Literal["solids", "drawings"]
Change = Literal["name", "word", "order"]
MATERIALS: tuple[Material, ...] = ("solids", "drawings")
SIDE = 320  # px, of the square picture
_FRAME = 8  # px wide
_GAP = 10  # px between a drawing and its frame
_CELLS = 4  # of a row of the grid that counted things stand on


@dataclass(frozen=True, kw_only=True)
class SceneWords:
    """The table `scenes.toml`."""

    things: tuple[str, ...]
    solids: tuple[str, ...]
    colours: tuple[str, ...]
    counts: tuple[str, ...]


@functools.cache
def words() -> SceneWords:
    return from_dict(SceneWords, read_toml(Path(__file__).with_name("scenes.toml")))


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing in a scene."""

    name: str
    colour: str = ""  # of a solid; of a drawing its frame, "" for none
    x: float  # px, of its middle
    y: float
    size: float  # px, its longer side


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is there, and what is said of it."""

    things: tuple[Thing, ...]
    caption: str


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawnChoices(ChoiceImages):
    """N scenes, drawn when asked for, each with its right and its wrong caption; 2k and 2k + 1 are a pair."""

    material: Material
    scenes: tuple[Scene, ...]  # N

    def open(self, index: int) -> Image.Image:
        """One scene, 320 x 320 px RGB."""
        return draw(self.scenes[index].things, self.material)


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawnCounts(LabelledImages):
    """N scenes of one to ten things, drawn when asked for; class 0 has one."""

    material: Material
    scenes: tuple[tuple[Thing, ...], ...]  # N

    def open(self, index: int) -> Image.Image:
        """One scene, 320 x 320 px RGB."""
        return draw(self.scenes[index], self.material)


Maker = Callable[[np.random.Generator, Material, Change], tuple[Scene, Scene]]


def scene_choices(task: str, material: Material, *, pairs: int, seed: int = 0) -> DrawnChoices:
    """The scenes of one task.

    Args:
        task: one of `SCENE_TASKS`.
        material: what the things are.
        pairs: of scenes, for each change of the caption.
        seed: of all that is drawn.
    """
    maker, changes = SCENE_TASKS[task]
    scenes: list[tuple[str, Change, Scene, str]] = []
    for change in changes:
        for number in range(pairs):
            rng = np.random.default_rng([seed, *f"{task}/{material}/{change}".encode(), number])
            one, other = maker(rng, material, change)
            scenes.append((f"{change}-{number:05d}-a", change, one, other.caption))
            scenes.append((f"{change}-{number:05d}-b", change, other, one.caption))
    return DrawnChoices(
        name=set_name(task, material),
        split="test",
        keys=tuple(f"{key}.png" for key, *_ in scenes),
        boxes=(None,) * len(scenes),
        image_of=np.arange(len(scenes)),
        right=tuple(scene.caption for _, _, scene, _ in scenes),
        wrong=tuple(wrong for *_, wrong in scenes),
        kinds=tuple(change for _, change, _, _ in scenes),
        _sources=(),
        material=material,
        scenes=tuple(scene for _, _, scene, _ in scenes),
    )


def scene_counts(material: Material, *, count: int, seed: int = 0) -> DrawnCounts:
    """Scenes of one to ten things, each number equally often, up to one picture.

    Args:
        material: solids of all shapes and colours, or copies of one drawing.
        count: pictures.
        seed: of all that is drawn.
    """
    names, scenes = words().counts, []
    order = np.random.default_rng([seed, *f"counting/{material}".encode()]).permutation(count)
    numbers = [int(one) % len(names) for one in order]
    for number, things in enumerate(numbers):
        rng = np.random.default_rng([seed, *f"counting/{material}".encode(), number])
        scenes.append(_scattered(rng, material, things + 1))
    return DrawnCounts(
        name=set_name("counting", material),
        split="test",
        keys=tuple(f"{number:05d}.png" for number in range(count)),
        classnames=tuple(f"{name} thing{'s' * (name != names[0])}" for name in names),
        templates=("{}",),
        targets=np.array(numbers, dtype=np.int64),
        _sources=(),
        material=material,
        scenes=tuple(scenes),
    )


def set_name(task: str, material: Material) -> str:
    """Of its folder, and in the table of tasks.

    >>> set_name("left-right", "solids")
    'scenes_left_right_solids'
    """
    return f"scenes_{task.replace('-', '_')}_{material}"


def draw(things: Sequence[Thing], material: Material) -> Image.Image:
    """The picture of a scene, 320 x 320 px RGB; what comes later lies before the others."""
    if material == "solids":
        margin = (SIZE[0] - SIDE) // 2
        solids = [
            Solid(shape=one.name, colour=one.colour, shiny=False, x=one.x + margin, y=one.y, radius=one.size / 2)
            for one in sorted(things, key=lambda one: one.y)
        ]
        return draw_scene(solids).crop((margin, 0, margin + SIDE, SIDE))
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    for one in things:
        shown = drawing(one.name, round(one.size))
        left, top = round(one.x - shown.width / 2), round(one.y - shown.height / 2)
        if one.colour:
            far = _GAP + _FRAME
            box = (left - far, top - far, left + shown.width + far - 1, top + shown.height + far - 1)
            ImageDraw.Draw(picture).rectangle(box, fill="white", outline=COLOURS[one.colour], width=_FRAME)
        picture.paste(shown, (left, top))
    return picture


@functools.lru_cache(maxsize=512)
def drawing(name: str, size: int) -> Image.Image:
    """A drawing of the embedded set without the white around it, its longer side `size` px."""
    whole = _drawings()[name]
    scale = size / max(whole.size)
    return whole.resize([max(1, round(scale * side)) for side in whole.size], Image.Resampling.LANCZOS)


@functools.cache
def _drawings() -> Mapping[str, Image.Image]:
    data = read_labelled(data_path(HELD_OUT))
    row_of = {data.classnames[number]: row for row, number in enumerate(data.targets.tolist())}
    found = {}
    for name in words().things:
        picture = data.open(row_of[name])
        ink = np.asarray(picture.convert("L")) < 250
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        found[name] = picture.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return found


def _names(rng: np.random.Generator, material: Material, count: int) -> list[str]:
    """Different ones."""
    pool = words().solids if material == "solids" else words().things
    return [pool[number] for number in rng.permutation(len(pool))[:count]]


def _colours(rng: np.random.Generator, count: int) -> list[str]:
    return [words().colours[number] for number in rng.permutation(len(words().colours))[:count]]


def _near(rng: np.random.Generator, x: float, y: float, far: tuple[float, float]) -> tuple[float, float]:
    return x + float(rng.uniform(-far[0], far[0])), y + float(rng.uniform(-far[1], far[1]))


def _things(
    names: Sequence[str],
    spots: Sequence[tuple[float, float]],
    colours: Sequence[str],
    material: Material,
    sizes: Sequence[float] = (86, 86),
    *,
    framed: bool = False,
) -> tuple[Thing, ...]:
    """A solid needs a colour; a drawing has one only where it is what is asked."""
    return tuple(
        Thing(name=name, colour=colour if framed or material == "solids" else "", x=x, y=y, size=size)
        for name, (x, y), colour, size in zip(names, spots, colours, sizes, strict=False)
    )


def _side_by_side(rng: np.random.Generator) -> list[tuple[float, float]]:
    return [_near(rng, 85, 165, (15, 45)), _near(rng, 235, 165, (15, 45))]


def _relation(said: tuple[str, str], spots: Callable[[np.random.Generator], list[tuple[float, float]]]) -> Maker:
    """Two things; the first word is true of the one on the first spot."""

    def make(rng: np.random.Generator, material: Material, change: Change) -> tuple[Scene, Scene]:
        a, b = _names(rng, material, 2)
        colours, places, first = _colours(rng, 2), spots(rng), int(rng.integers(2))
        word, opposite = said[first], said[1 - first]
        here, there = places[first], places[1 - first]
        one = Scene(
            things=_things([a, b], [here, there], colours, material),
            caption=f"{with_article(a)} {word} {with_article(b)}",
        )
        exchanged = _things([a, b], [there, here], colours, material)
        if change == "order":
            return one, Scene(things=exchanged, caption=f"{with_article(b)} {word} {with_article(a)}")
        return one, Scene(things=exchanged, caption=f"{with_article(a)} {opposite} {with_article(b)}")

    return make


def _above_each_other(rng: np.random.Generator) -> list[tuple[float, float]]:
    return [_near(rng, 160, 90, (45, 12)), _near(rng, 160, 235, (45, 12))]


def _side(rng: np.random.Generator, material: Material, _change: Change) -> tuple[Scene, Scene]:
    """One thing, left or right."""
    names, colours, places = _names(rng, material, 1), _colours(rng, 1), _side_by_side(rng)
    left, right = (
        Scene(
            things=_things(names, [place], colours, material),
            caption=f"{with_article(names[0])} on the {word} side",
        )
        for place, word in zip(places, ("left", "right"), strict=True)
    )
    return left, right


def _size(rng: np.random.Generator, material: Material, change: Change) -> tuple[Scene, Scene]:
    a, b = _names(rng, material, 2)
    colours, places, first = _colours(rng, 2), _side_by_side(rng), int(rng.integers(2))
    word, opposite = (("bigger", "smaller"), ("smaller", "bigger"))[first]
    sizes = ((118, 58), (58, 118))[first]
    one = Scene(
        things=_things([a, b], places, colours, material, sizes),
        caption=f"{with_article(a)} that is {word} than {with_article(b)}",
    )
    exchanged = _things([a, b], places, colours, material, sizes[::-1])
    if change == "order":
        return one, Scene(things=exchanged, caption=f"{with_article(b)} that is {word} than {with_article(a)}")
    return one, Scene(things=exchanged, caption=f"{with_article(a)} that is {opposite} than {with_article(b)}")


def _colour(rng: np.random.Generator, material: Material, change: Change) -> tuple[Scene, Scene]:
    """Which of two things has which colour; of a drawing it is the frame's."""
    names, places = _names(rng, material, 2), _side_by_side(rng)
    first, second, third = _colours(rng, 3)

    def scene(colours: Sequence[str]) -> Scene:
        said = (
            f"{with_article(colour)} {name}"
            if material == "solids"
            else f"{with_article(name)} in {with_article(colour)} frame"
            for name, colour in zip(names, colours, strict=True)
        )
        things = _things(names, places, colours, material, (70, 70), framed=True)
        return Scene(things=things, caption=" and ".join(said))

    return scene([first, second]), scene([second, first] if change == "order" else [third, second])


def _negation(rng: np.random.Generator, material: Material, change: Change) -> tuple[Scene, Scene]:
    """Two things, of which one is always there; the other is there or not, or there in place of a third."""
    always, a, b = _names(rng, material, 3)
    colours, places = _colours(rng, 2), _side_by_side(rng)
    with_a = _things([always, a], places, colours, material)
    with_b = _things([always, b], places, colours, material)
    one, other = with_article(a), with_article(b)
    if change == "order":
        return (
            Scene(things=with_a, caption=f"a scene with {one} and without {other}"),
            Scene(things=with_b, caption=f"a scene with {other} and without {one}"),
        )
    return (
        Scene(things=with_a, caption=f"a scene with {one}"),
        Scene(things=with_b, caption=f"a scene without {one}"),
    )


def _same(rng: np.random.Generator, material: Material, _change: Change) -> tuple[Scene, Scene]:
    """Two things that are alike in all but their place, or differ in what they are."""
    a, b = _names(rng, material, 2)
    colour, places = _colours(rng, 1) * 2, _side_by_side(rng)
    return (
        Scene(things=_things([a, a], places, colour, material), caption="two things that are the same"),
        Scene(things=_things([a, b], places, colour, material), caption="two things that are different"),
    )


def _which(rng: np.random.Generator, material: Material, _change: Change) -> tuple[Scene, Scene]:
    """Which things are there: what a model should know before it is asked how they stand."""
    a, b, c = _names(rng, material, 3)
    colours, places = _colours(rng, 2), _side_by_side(rng)
    one, other = (
        Scene(
            things=_things([a, second], places, colours, material),
            caption=f"{with_article(a)} and {with_article(second)}",
        )
        for second in (b, c)
    )
    return one, other


def _alone(rng: np.random.Generator, material: Material, _change: Change) -> tuple[Scene, Scene]:
    """One thing in the middle, by its name: the least that the others build on."""
    names, colours = _names(rng, material, 2), _colours(rng, 1)
    one, other = (
        Scene(things=_things([name], [(160, 165)], colours, material, (118,)), caption=with_article(name))
        for name in names
    )
    return one, other


def _scattered(rng: np.random.Generator, material: Material, count: int) -> tuple[Thing, ...]:
    """Things on a grid, none touching another."""
    name = _names(rng, material, 1)[0]
    cell = SIDE / _CELLS
    things = []
    for number in rng.permutation(_CELLS**2)[:count].tolist():
        x, y = _near(rng, (number % _CELLS + 0.5) * cell, (number // _CELLS + 0.5) * cell, (8, 8))
        one = Thing(name=name, x=x, y=y, size=float(rng.uniform(44, 52)))
        if material == "solids":
            one = replace(one, name=_names(rng, material, 1)[0], colour=_colours(rng, 1)[0])
        things.append(one)
    return tuple(things)


SCENE_TASKS: Mapping[str, tuple[Maker, tuple[Change, ...]]] = {
    "alone": (_alone, ("name",)),
    "things": (_which, ("name",)),
    "colour": (_colour, ("name", "order")),
    "left-right": (_relation(("to the left of", "to the right of"), _side_by_side), ("word", "order")),
    "above-below": (_relation(("above", "below"), _above_each_other), ("word", "order")),
    "side": (_side, ("word",)),
    "size": (_size, ("word", "order")),
    "negation": (_negation, ("word", "order")),
    "same": (_same, ("word",)),
}
