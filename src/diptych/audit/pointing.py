"""Does a model look where the thing is? Maps of names, on scenes of pictures side by side whose places are known.

Pointing game: Zhang et al., arXiv:1608.00507. Deletion and insertion: RISE, arXiv:1806.07421. Letters: T, D, h, w.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.data.prompts import PLAIN
from diptych.eval.chapter import Chapter, Contrast, Example, contrasts_of, mean_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.result import DataId, Result
from diptych.eval.tasks import Prompts
from diptych.measures.compare import compare_metric
from diptych.measures.heat_maps import cosines, curve_area, overlap_of, share_beaten, smoothed
from diptych.sets.composed import COLUMNS, ComposedScene, ComposedScenes, compose
from diptych.sets.labelled import LabelledImages
from diptych.torch_runtime import generator
from diptych.where import FITS, HeatMaps, encode_whole, maps_of, other_words, whole_pixels, with_map_size

SQUARES = (2, 4)  # of a scene
_PROMPTS = {"bare": PLAIN, "sentence": ("a photo of a {}.",)}
STEPS = 5  # parts that a scene is deleted in, and inserted
_SIDE = 160  # px, longest side of an example
_EXAMPLES = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """A scene as a model sees it."""

    scene: ComposedScene
    maps: HeatMaps  # of its squares' names
    absent: float  # share of cells that a name of no square fits well
    present: float  # share of cells that the name of their own square fits well


def pointing(
    features: ModelFeatures,
    pictures: LabelledImages,
    *,
    data: DataId | None = None,
    scenes: int = 100,
    curves: int = 16,
    image_size: int | None = None,
    seed: int = 0,
) -> Chapter:
    """Whether maps of names point at the pictures that the names are of.

    Args:
        features: of the model, whose image tower has a grid.
        pictures: a labelled set, of at least as many classes as the largest scene has squares.
        data: what the set is called in the results; its name and split by default.
        scenes: of each number of squares.
        curves: scenes that are deleted and inserted, piece by piece.
        image_size: pixels of the longer side of a scene as the model sees it; see `diptych.where`.
        seed: of the scenes, the random orders and the intervals.

    Raises:
        ConfigError: the tower has no grid, or cannot take this size.
        DataError: the set has too few classes, or none of its pictures can be read.
    """
    data = data or DataId(name=pictures.name, split=pictures.split)
    bundle = with_map_size(features.bundle, image_size)
    classes = len(np.unique(pictures.targets))
    drawn = [
        compose(pictures, scenes, squares=squares, side=bundle.preprocess.image_size // COLUMNS, seed=seed)
        for squares in SQUARES
        if classes >= squares or squares == SQUARES[0]
    ]
    grids = [[encode_whole(bundle, scene.picture) for scene in some.scenes] for some in drawn]
    results: list[Result] = []
    seen: dict[tuple[str, int], list[_Seen]] = {}
    for name, templates in _PROMPTS.items():
        weights = features.class_weights(pictures.classnames, templates)
        others = features.class_weights(other_words(), templates)
        prompts = _prompts(pictures, name)
        for some, found in zip(drawn, grids, strict=True):
            squares = len(some.scenes[0].keys)
            looked = [
                _look(scene, grid, frame, weights, others, pictures.classnames, seed + number)
                for number, (scene, (grid, frame)) in enumerate(zip(some.scenes, found, strict=True))
            ]
            seen[name, squares] = looked
            results += _results(looked, some, data, prompts, {"prompts": name, "scene": f"{squares} pictures"}, seed)
    first, squares = next(iter(seen))
    in_curves = _curves(features, seen[first, squares][:curves], data, _prompts(pictures, first), seed)
    return Chapter(
        name="pointing",
        title="Does it look where the thing is?",
        question="Where does a picture speak for a name: in the part that shows it, or elsewhere?",
        sentences=(*(_sentence(result) for result in results if result.metric == "share"), *_of_curves(in_curves[0])),
        results=(*results, *in_curves[0]),
        contrasts=in_curves[1],
        examples=tuple(_examples(seen[first, squares])),
        not_measured=() if len(drawn) == len(SQUARES) else (f"Scenes of {SQUARES[1]}: the set has too few classes.",),
        notes=(
            "A scene is made of whole pictures side by side; in one picture, things overlap and have no such edges.",
            "Each cell of the model's last grid knows of its surroundings: a map is a hint, and no mask.",
        ),
        conditions={
            "scenes": f"drawn with seed {seed}, seen at {bundle.preprocess.image_size} px",
            "fits": f"better than {FITS:.0%} of {len(other_words())} other words",
        },
    )


def _prompts(pictures: LabelledImages, name: str) -> Prompts:
    names = tuple((one,) for one in pictures.classnames)
    return Prompts(templates=_PROMPTS[name], classnames=names, labels=pictures.classnames, source=name)


def _look(
    scene: ComposedScene,
    grid: Tensor,
    frame: tuple[float, float, float, float],
    weights: Tensor,
    others: Tensor,
    names: Sequence[str],
    seed: int,
) -> _Seen:
    own = list(scene.classes)
    maps = maps_of(grid, weights[own], others, texts=[names[one] for one in own], picture=scene.picture, frame=frame)
    owners = torch.from_numpy(scene.owners(*maps.heat.shape[1:]))
    present = (maps.beaten.gather(0, owners[None])[0] >= FITS).float().mean().item()
    rest = [one for one in range(len(names)) if one not in own]
    absent = float("nan")
    if rest:
        one = rest[int(torch.randint(len(rest), (), generator=generator(seed)))]
        near, other = (smoothed(cosines(grid, rows)) for rows in (weights[one : one + 1], others))
        absent = (share_beaten(near, other) >= FITS).float().mean().item()
    return _Seen(scene=scene, maps=maps, absent=absent, present=present)


def _results(
    seen: Sequence[_Seen], drawn: ComposedScenes, data: DataId, prompts: Prompts, case: dict[str, str], seed: int
) -> list[Result]:
    """Of scenes of one kind, under one set of prompts."""
    keys: list[str] = []
    hits: list[bool] = []
    shares: list[float] = []
    overlaps: list[float] = []
    scenes: list[str] = []
    for number, one in enumerate(seen):
        heat, owners = one.maps.heat, torch.from_numpy(one.scene.owners(*one.maps.heat.shape[1:]))
        best = heat.argmax(dim=0)
        scenes.append(f"{number:04d}")
        shares.append((best == owners).float().mean().item())
        for square, key in enumerate(one.scene.keys):
            keys.append(f"{number:04d}: {key}")
            hits.append(int(owners.flatten()[heat[square].argmax()]) == square)
            overlaps.append(overlap_of(best == square, owners == square))
    squares = len(seen[0].scene.keys)
    chance = {"chance": 1 / squares}
    group = torch.arange(len(keys)) // squares
    shared = {"data": data, "prompts": prompts, "skipped": drawn.skipped}
    found = [
        share_of(keys, torch.tensor(hits), case={**case, "asked": "points into it"}, numbers=chance, **shared),
        mean_of(scenes, np.array(shares), case={**case, "asked": "cells right"}, numbers=chance, seed=seed, **shared),
        mean_of(
            keys,
            np.array(overlaps),
            case={**case, "asked": "IoU"},
            numbers={"chance": 1 / (2 * squares - 1)},  # of cells that get a name at random
            group=group,
            seed=seed,
            **shared,
        ),
    ]
    for asked, values in (
        ("cells that their name fits", [one.present for one in seen]),
        ("cells that an absent name fits", [one.absent for one in seen]),
    ):
        if np.isfinite(values).all():
            chances = {"chance": 1 - FITS}
            found.append(
                mean_of(scenes, np.array(values), case={**case, "asked": asked}, numbers=chances, seed=seed, **shared)
            )
    return found


def _curves(
    features: ModelFeatures,
    seen: Sequence[_Seen],
    data: DataId,
    prompts: Prompts,
    seed: int,
) -> tuple[list[Result], tuple[Contrast, ...]]:
    """What becomes of a name's probability beside the scene's others while cells go, or come, the hottest first."""
    areas: dict[tuple[str, str], list[float]] = {}
    for number, one in enumerate(seen):
        heat = one.maps.heat[0].flatten()
        weights = features.class_weights(one.maps.texts, prompts.templates)
        orders = {
            "by the map": heat.argsort(descending=True, stable=True),
            "at random": torch.randperm(len(heat), generator=generator(seed, number)),
        }
        for way, order in orders.items():
            for curve in ("deletion", "insertion"):
                some = _states(features, one, order, is_deletion=curve == "deletion")
                logits = features.logits_per_image(some, weights)
                chances = features.probabilities(logits)[:, 0].double().cpu().numpy()
                areas.setdefault((curve, way), []).append(curve_area(chances))
    keys = [f"{number:04d}: {one.scene.keys[0]}" for number, one in enumerate(seen)]
    results = [
        mean_of(keys, np.array(values), data=data, case={"asked": curve, "order": way}, prompts=prompts, seed=seed)
        for (curve, way), values in areas.items()
    ]
    compared = []
    for curve in ("deletion", "insertion"):
        by_map, at_random = (np.array(areas[curve, way]) for way in ("by the map", "at random"))
        one = compare_metric(
            lambda drawn, values=by_map: float(values[drawn].mean()),
            lambda drawn, values=at_random: float(values[drawn].mean()),
            len(keys),
            seed=seed,
        )
        compared.append((f"area under {curve}: by the map against at random", one))
    return results, contrasts_of(compared)


def _states(features: ModelFeatures, seen: _Seen, order: Tensor, *, is_deletion: bool) -> Tensor:
    """[STEPS + 1, D]: features of a scene, from whole to grey; or from grey to whole."""
    h, w = seen.maps.heat.shape[1:]
    picture = seen.scene.picture
    mean = tuple(round(255 * value) for value in features.bundle.preprocess.mean)
    grey = Image.new("RGB", picture.size, mean)
    states: list[np.ndarray] = []
    for step in range(STEPS + 1):
        kept = torch.full((h * w,), is_deletion)
        kept[order[: round(step * h * w / STEPS)]] = not is_deletion
        cells = Image.fromarray((255 * kept.reshape(h, w)).to(torch.uint8).numpy())
        mask = cells.resize(picture.size, Image.Resampling.NEAREST)
        states.append(whole_pixels(features.bundle, Image.composite(picture, grey, mask))[0])
    return torch.from_numpy(features.bundle.encode_pixels(np.stack(states)))


def _sentence(result: Result) -> str:
    case = result.case
    return (
        f"In scenes of {case['scene']} side by side ({case['prompts']} prompts) the map of a name points into its "
        f"picture in {said(result)}; chance is {result.numbers['chance']:.0%}."
    )


def _of_curves(results: Sequence[Result]) -> list[str]:
    areas = {(result.case["asked"], result.case["order"]): result.value for result in results}
    return [
        f"The area under the {curve} curve is {areas[curve, 'by the map']:.3f} by the map and "
        f"{areas[curve, 'at random']:.3f} at random; {better} is better."
        for curve, better in (("deletion", "less"), ("insertion", "more"))
    ]


def _examples(seen: Sequence[_Seen]) -> list[Example]:
    """Maps that point elsewhere."""
    found: list[Example] = []
    for number, one in enumerate(seen):
        owners = torch.from_numpy(one.scene.owners(*one.maps.heat.shape[1:])).flatten()
        for square, (key, name) in enumerate(zip(one.scene.keys, one.maps.texts, strict=True)):
            pointed = int(owners[one.maps.heat[square].argmax()])
            if pointed != square and len(found) < _EXAMPLES:
                picture = one.maps.overlay(square)
                picture.thumbnail((_SIDE, _SIDE))
                caption = f"{name}: the map points into {one.maps.texts[pointed]}"
                found.append(Example(key=f"{number:04d}: {key}", caption=caption, picture=picture))
    return found
