"""Towers and options in several processes: each comes to the weights of one process, or is refused in a sentence."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import drawing, png
from diptych.config import to_toml
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.pairs.augment import Augment
from diptych.pairs.pipeline import Source, batches, pair_sources
from diptych.pairs.shards import ShardWriter
from diptych.pairs.teacher import IN_SHARD
from diptych.train.recipe import Phase, TrainRecipe, read_recipe
from diptych.weights.bundle import Bundle
from processes import free_port, run_ranks
from runs import change, curve, furthest, learn, learn_all
from tower_kinds import IMAGE_KINDS, image_of, kind_of, with_model

SEED = 1  # with which each of two processes has no pair at all in some batch, and no batch has fewer than two
PARALLEL = ("ddp", "fsdp")
TOWERS = ("vit", "resnet", "efficientnet-lite")
# Of the table in docs/how-to/distributed.md: its name for an option, the tower it is tried with, and its recipe.
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "distillation": ("resnet", {"distillation": 0.5}),
    "ema_decay": ("resnet", {"ema_decay": 0.9}),
    "phases": ("resnet", {"phases": (Phase(steps=8, image_size=32),)}),
    'freeze = ["image"]': ("vit", {"freeze": ("image",)}),
    'freeze = ["image"], fixed pictures': ("resnet", {"freeze": ("image",), "fixed": True}),
    'freeze = ["text"]': ("resnet", {"freeze": ("text",)}),
    "freeze_batch_statistics": ("resnet", {"freeze_batch_statistics": True}),
}
WAYS = {
    f"{name}, {parallel}": (tower, {**options, "parallel": parallel})
    for name, (tower, options) in ({tower: (tower, {}) for tower in TOWERS} | OPTIONS).items()
    for parallel in PARALLEL
}


def npy(*features: float) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(features, dtype=np.float32))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """40 drawings, every second of which cannot be read, with stored features of a teacher."""
    folder = tmp_path_factory.mktemp("pairs")
    with ShardWriter(folder) as writer:
        for n in range(40):
            picture = png(drawing(("red", "blue", "green")[n % 3], ("bar", "cross")[n % 4 // 2], 4 + n % 10))
            caption = ("red bar", "a large blue cross", "green", "cross")[n % 4]
            parts = {"png": picture[:60] if n % 2 else picture, "txt": caption.encode()}
            parts["teacher-image.npy"], parts["teacher-text.npy"] = npy(1 + n % 3, 2, n % 5), npy(1 + n % 4, 1, n % 2)
            writer.add(f"{n:02d}", parts)
    return folder


@pytest.fixture(scope="module")
def recipe_of(tiny_recipe, tokenizer, pairs, tmp_path_factory) -> Callable[[str, Mapping[str, Any]], TrainRecipe]:
    """20 steps of a tower under some options, in batches of which some process may have no pair at all."""
    started = tmp_path_factory.mktemp("start")

    def recipe_of(tower: str, options: Mapping[str, Any]) -> TrainRecipe:
        image = next(image_of(kind) for kind in IMAGE_KINDS if kind_of(kind) == tower)
        size = 64 if "phases" in options else 32
        recipe = with_model(tiny_recipe, image, steps=20, checkpoint_every=100)
        model = dataclasses.replace(recipe.model, image=dataclasses.replace(image, image_size=size))
        augment = Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0)) if "fixed" in options else Augment()
        teacher = IN_SHARD if "distillation" in options else ""
        path = recipe.data.sources[0].path if "good" in options else str(pairs)
        source = Source(path=path, teacher_images=teacher, teacher_texts=teacher)
        data = dataclasses.replace(recipe.data, sources=(source,), max_bad=0.9, augment=augment)
        preprocess = dataclasses.replace(recipe.preprocess, image_size=size)
        start = ""
        if "freeze" in options or "freeze_batch_statistics" in options:
            start = str(started / tower)
            if not (started / tower).exists():
                fresh = CLIP(model, torch.Generator().manual_seed(1))
                Bundle(model=fresh, preprocess=preprocess, tokenizer=tokenizer).save(started / tower)
        # The loss does not depend on the bias of keys: its gradient is rounding, of which a small epsilon makes steps.
        changes = {"epsilon": 1e-4, "max_gradient_norm": 5.0, **options}
        changes = {name: value for name, value in changes.items() if name not in ("fixed", "good")}
        train = dataclasses.replace(recipe.train, **changes)
        return dataclasses.replace(
            recipe, model=model, data=data, preprocess=preprocess, seed=SEED, start_from=start, train=train
        )

    return recipe_of


def test_some_process_has_no_pair_in_some_batch(recipe_of, tokenizer):
    recipe = recipe_of("vit", {})
    sizes = [
        [
            len(batch.keys)
            for batch in batches(
                pair_sources(recipe.data), recipe.data, preprocess=recipe.preprocess, tokenizer=tokenizer,
                batch_size=8, seed=recipe.seed, start=0, stop=20, part=part, parts=2,
            )
        ]
        for part in (0, 1)
    ]  # fmt: skip
    assert 0 in sizes[0] + sizes[1]


def compare(
    ways: Mapping[str, tuple[str, Mapping[str, Any]]], recipe_of: Any, folder: Path, *, is_double: bool, bound: float
) -> dict[str, str]:
    """Each way in two processes and in one: "" where weights and loss are the same, else what differs or was said."""
    jobs, twins = [], {}
    for number, (tower, options) in enumerate(ways.values()):
        recipe = recipe_of(tower, options)
        (folder / f"{number}.toml").write_text(to_toml(recipe))
        jobs.append((folder / f"{number}.toml", folder / str(number), free_port()))
        twins.setdefault(to_toml(change(recipe, parallel="ddp")), folder / f"alone-{len(twins)}")
    said = run_ranks(learn_all, 2, jobs, is_double, seconds=500)
    assert said[0] == said[1]
    for text, twin in twins.items():
        twin.with_suffix(".toml").write_text(text)
        learn(twin.with_suffix(".toml"), twin, is_double)
    outcome = {}
    for (path, out, _), name, sentence in zip(jobs, ways, said[0], strict=True):
        twin = twins[to_toml(change(read_recipe(path), parallel="ddp"))]
        outcome[name] = sentence
        if not sentence:
            far = furthest(out, twin)
            losses = max(abs(a - b) for a, b in zip(curve(out, "loss"), curve(twin, "loss"), strict=True))
            outcome[name] = "" if max(far, losses) < bound else f"weights differ by {far:.1e}, losses by {losses:.1e}"
    return outcome


# One start of processes for several ways: it takes longer than their runs.
CHUNKS = [list(WAYS)[start : start + 4] for start in range(0, len(WAYS), 4)]


@pytest.mark.parametrize("names", CHUNKS, ids=" ".join)
def test_two_processes_come_to_the_weights_of_one(recipe_of, tmp_path, names):
    ways = {name: WAYS[name] for name in names}
    assert compare(ways, recipe_of, tmp_path, is_double=True, bound=1e-9) == dict.fromkeys(names, "")


@pytest.mark.parametrize(("tower", "precision", "bound"), [("resnet", "float32", 5e-2), ("vit", "float16", 5e-2)])
def test_they_come_near_in_fewer_digits(recipe_of, tmp_path, tower, precision, bound):
    # Of batches of eight pairs: statistics of two pairs may be those of nearly equal numbers, and magnify rounding.
    ways = {way: (tower, {"parallel": way, "precision": precision, "good": True}) for way in PARALLEL}
    assert compare(ways, recipe_of, tmp_path, is_double=False, bound=bound) == dict.fromkeys(PARALLEL, "")


def test_the_table_tells_what_was_tried_and_what_is_refused(recipe_of):
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "distributed.md").read_text()
    section = page.split("## What comes to the same weights")[1].split("\n## ")[0]
    rows = [[cell.strip().replace("`", "") for cell in line.split("|")[1:4]] for line in section.splitlines()]
    told = {row[0]: row[1:] for row in rows if len(row) == 3 and row[0] not in ("what", "---")}
    assert {name for name, cells in told.items() if cells == ["same", "same"]} == {*TOWERS, *OPTIONS}
    others = {
        'optimizer_state = "int8"': ("vit", {"optimizer_state": "int8"}, ["rounds", "refused"]),
        "gradient_compression": ("vit", {"gradient_compression": "powersgd"}, ["rounds", "refused"]),
        "micro_batch_size with resnet": ("resnet", {"micro_batch_size": 2}, ["refused", "refused"]),
    }
    assert {name: told[name] for name in others} == {name: cells for name, (_, _, cells) in others.items()}
    assert len(told) == len(TOWERS) + len(OPTIONS) + len(others)
    for tower, options, cells in others.values():
        for parallel, cell in zip(PARALLEL, cells, strict=True):
            with pytest.raises(ConfigError) if cell == "refused" else contextlib.nullcontext():
                recipe_of(tower, {**options, "parallel": parallel})
