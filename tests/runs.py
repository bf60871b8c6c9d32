"""Training runs small enough for a test, and what two of them have in common."""

import dataclasses
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.pipeline import Source
from diptych.train import heads as heads_module
from diptych.train import run as run_module
from diptych.train import trainer
from diptych.train.heads import Heads
from diptych.train.log import read_log
from diptych.train.recipe import TrainRecipe, read_recipe
from diptych.train.run import Run
from diptych.train.trainer import StepReport, TrainResult, train
from diptych.weights import bundle as bundle_module
from diptych.weights.bundle import Bundle
from diptych.weights.normalise import normalise
from test_files import names

_DOUBLE = "double.pt"  # of a bundle in float64


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
            signal.raise_signal(signal.SIGTERM)

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
    heads: list[Heads] = []
    patch = pytest.MonkeyPatch()
    if is_double:
        _learn_in_double(patch)
    read, measured_heads = trainer.batches, Run.measured_heads

    def listening(*args: Any, **options: Any) -> Any:
        for step, batch in enumerate(read(*args, **options), start=options["start"]):
            keys.extend(f"{step}:{key}" for key in batch.keys)
            yield batch

    def noting(run: Run) -> Heads:
        heads.append(measured_heads(run))
        return heads[-1]

    patch.setattr(trainer, "batches", listening)
    patch.setattr(Run, "measured_heads", noting)

    def fail(progress: trainer.StepReport) -> None:
        if progress.step == stop_after:
            signal.raise_signal(signal.SIGTERM)  # the first process asks for a stop; all end after the step in hand

    try:
        recipe = read_recipe(path)
        result = train(recipe, out, on_progress=fail)
        tensors = {**result.bundle.model.state_dict(), **{f"heads.{n}": t for n, t in heads[-1].tensors.items()}}
        torch.save(tensors, f"{out}.weights")
        return {"keys": keys, "step": result.step, "counts": {**result.counts, "train_seconds": 0, "time": {}}}
    finally:
        patch.undo()
        torch.set_default_dtype(torch.float32)


def _learn_in_double(patch: pytest.MonkeyPatch) -> None:
    """All of a run in float64, also the files of its checkpoints: only bundles are float32 by themselves."""
    torch.set_default_dtype(torch.float64)
    load = Bundle.load

    def save_double(bundle: Bundle, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        bundle.tokenizer.save(folder)
        parts = (bundle.model.config, bundle.model.state_dict(), bundle.preprocess, bundle.about)
        torch.save(parts, folder / _DOUBLE)

    def load_double(path: Path, **told: Any) -> Bundle:
        if not (Path(path) / _DOUBLE).is_file():  # what a run starts from
            torch.set_default_dtype(torch.float32)
            try:
                return load(path, **told)
            finally:
                torch.set_default_dtype(torch.float64)
        config, tensors, preprocess, about = torch.load(path / _DOUBLE, weights_only=False)
        model = CLIP(config)
        model.load_state_dict(tensors, assign=True)
        tokenizer = Tokenizer.load(path, context_length=config.text.context_length)
        return Bundle(model=model, preprocess=preprocess, tokenizer=tokenizer, about=about)

    for user in (bundle_module, heads_module, run_module):
        patch.setattr(user, "normalise", lambda *batch: normalise(*batch).to(torch.get_default_dtype()))
    patch.setattr(Bundle, "save", save_double)
    patch.setattr(Bundle, "load", load_double)
    patch.setattr(CLIP, "float", CLIP.double)


def learn_all(jobs: Sequence[tuple[Path, Path, bool, Sequence[tuple[int, int, int]]]]) -> None:
    """Several runs one after the other in the same processes, each in some legs with a restart between them.

    Args:
        jobs: recipe, folder of the run, whether all is float64; and of each leg how many of the processes take part,
            a free port, and after which step it stops, 0 for the end.
    """
    for recipe, out, is_double, legs in jobs:
        for count, port, stop_after in legs:
            if int(os.environ["RANK"]) < count:
                os.environ.update(MASTER_PORT=str(port), WORLD_SIZE=str(count))
                learn(recipe, out, is_double, stop_after)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(f"{out}.weights", weights_only=True)


def furthest(out: Path, other: Path) -> float:
    """The largest difference of any weight."""
    ours, theirs = weights(out), weights(other)
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


def curve(out: Path, name: str) -> list[float]:
    return [line[name] for line in read_log(out / "log.jsonl")]
