"""Training runs small enough for a test, and what two of them have in common."""

import dataclasses
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.data.images import Preprocess
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.pipeline import Source
from diptych.train import run, trainer
from diptych.train.checkpoint import Checkpoint
from diptych.train.log import read_log
from diptych.train.recipe import TrainRecipe, read_recipe
from diptych.train.trainer import StepReport, TrainResult, train
from diptych.weights.bundle import Bundle
from test_files import names


def change(recipe: TrainRecipe, **options: Any) -> TrainRecipe:
    """A recipe with some options of its loop changed."""
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **options))


def with_source(recipe: TrainRecipe, folder: Path, **options: Any) -> TrainRecipe:
    data = dataclasses.replace(recipe.data, sources=(Source(path=str(folder)),), **options)
    return dataclasses.replace(recipe, data=data)


def vit(recipe: TrainRecipe, **options: Any) -> TrainRecipe:
    """The tiny recipe with a vision transformer, and some options of its loop changed."""
    model = preset("tiny-vit")
    model = dataclasses.replace(model, text=dataclasses.replace(model.text, vocab_size=600))
    return dataclasses.replace(recipe, model=model, train=dataclasses.replace(recipe.train, **options))


def starting_from(recipe: TrainRecipe, bundle: Path, **options: Any) -> TrainRecipe:
    return change(dataclasses.replace(recipe, start_from=str(bundle)), **options)


def watched(recipe: TrainRecipe, out: Path, **options: Any) -> tuple[TrainResult, list[StepReport]]:
    seen: list[StepReport] = []
    return train(recipe, out, on_progress=seen.append, **options), seen


def train_in_two_parts(recipe: TrainRecipe, out: Path, *, then: TrainRecipe | None = None) -> TrainResult:
    def stop_at_3(progress: StepReport) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(recipe, out, on_progress=stop_at_3).step == 3
    return train(then or recipe, out)


def losses(recipe: TrainRecipe, out: Path, **options: Any) -> list[float]:
    _, seen = watched(vit(recipe, steps=6, checkpoint_every=100, **options), out)
    return [progress.loss for progress in seen]


def timeless(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("seconds", "time")} for line in log]


def count_pairs(bundle: Bundle) -> dict[str, float]:
    """An evaluator that depends on the weights."""
    return {"mean": bundle.encode_texts(["red square"]).mean().item()}


def assert_same_run(out: Path, undisturbed: Path) -> None:
    """To the bit: the bundle, the optimizer's memory, and the log but for times."""
    last = max(names(undisturbed / "checkpoints"))
    assert max(names(out / "checkpoints")) == last
    for file in ("bundle/model.safetensors", f"checkpoints/{last}/training.safetensors"):
        assert (out / file).read_bytes() == (undisturbed / file).read_bytes(), file
    assert timeless(read_log(out / "log.jsonl")) == timeless(read_log(undisturbed / "log.jsonl"))


# In a process of several.


def learn(path: Path, out: Path, is_double: bool, stop_after: int = 0) -> dict[str, Any]:
    """One run; what it saw and came to."""
    keys: list[str] = []
    patch = pytest.MonkeyPatch()
    if is_double:
        torch.set_default_dtype(torch.float64)
        normalise = Preprocess.normalise
        patch.setattr(
            Preprocess, "normalise", lambda self, images: normalise(self, images).to(torch.get_default_dtype())
        )
        patch.setattr(Checkpoint, "save", lambda *_, **__: None)  # a bundle is float32
        patch.setattr(Bundle, "save", lambda *_: None)
        patch.setattr(CLIP, "float", CLIP.double)  # what a run starts from, and is checked in float32
        patch.setattr(run, "load", _in_single(run.load))
    read = trainer.batches

    def listening(*args: Any, **options: Any) -> Any:
        for step, batch in enumerate(read(*args, **options), start=options["start"]):
            keys.extend(f"{step}:{key}" for key in batch.keys)
            yield batch

    patch.setattr(trainer, "batches", listening)

    def fail(progress: trainer.StepReport) -> None:
        if progress.step == stop_after:
            os.kill(os.getpid(), 15)  # the first process asks for a stop; all end after the step in hand

    try:
        recipe = read_recipe(path)
        result = train(recipe, out, on_progress=fail)
        torch.save(result.bundle.model.state_dict(), f"{out}.weights")
        return {"keys": keys, "step": result.step, "counts": {**result.counts, "train_seconds": 0, "time": {}}}
    finally:
        patch.undo()
        torch.set_default_dtype(torch.float32)


def _in_single(load: Callable[..., Bundle]) -> Callable[..., Bundle]:
    def loaded(*args: Any, **options: Any) -> Bundle:
        torch.set_default_dtype(torch.float32)
        try:
            return load(*args, **options)
        finally:
            torch.set_default_dtype(torch.float64)

    return loaded


def learn_all(jobs: Sequence[tuple[Path, Path, int]], is_double: bool) -> list[str]:
    """Several runs one after the other in the same processes; "" for each that ended, else what was said.

    Args:
        jobs: recipe, folder of the run, and a free port each.
        is_double: whether all is float64.
    """
    said = []
    for recipe, out, port in jobs:
        os.environ["MASTER_PORT"] = str(port)
        try:
            learn(recipe, out, is_double)
            said.append("")
        except ConfigError as error:
            said.append(str(error))
    return said


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(f"{out}.weights", weights_only=True)


def furthest(out: Path, other: Path) -> float:
    """The largest difference of any weight."""
    ours, theirs = weights(out), weights(other)
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


def curve(out: Path, name: str) -> list[float]:
    return [line[name] for line in read_log(out / "log.jsonl")]
