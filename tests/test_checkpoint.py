import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from diptych.errors import DataError, WeightsError
from diptych.model.clip import CLIP
from diptych.train.checkpoint import (
    Checkpoint,
    has_digests,
    list_checkpoints,
    optimizer_tensors,
    restore_optimizer,
)
from diptych.train.optim import parameter_groups
from diptych.weights.bundle import Bundle
from test_files import names, room_for


def new_optimizer(model: CLIP) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-2, fused=True)


def learn(model: CLIP, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Some steps whose batches are a function of their number."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(4, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
        output = model(images, torch.randint(1, 500, (4, 8), generator=generator))
        optimizer.zero_grad()
        (output.image_features * output.text_features).sum().mul(output.logit_scale).backward()
        optimizer.step()


@pytest.fixture
def bundle(tiny_recipe, tokenizer) -> Bundle:
    model = CLIP(tiny_recipe.model, torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last).train()
    return Bundle(model=model, preprocess=tiny_recipe.preprocess, tokenizer=tokenizer)


@pytest.fixture
def optimizer(bundle) -> torch.optim.Optimizer:
    """After three steps."""
    optimizer = new_optimizer(bundle.model)
    learn(bundle.model, optimizer, range(3))
    return optimizer


@pytest.fixture
def checkpoint(bundle, optimizer) -> Checkpoint:
    return Checkpoint(
        step=3,
        bundle=bundle,
        optimizer=optimizer_tensors(bundle.model, optimizer),
        counts={"pairs": 12, "bad": {"truncated": 1}},
        metrics={"set/top1": 0.25},
        recipe={"name": "tiny", "train": {"steps": 10}},
        precision="float32",
        data=["0123"],
    )


def test_everything_comes_back_to_the_bit(checkpoint, tmp_path):
    path = checkpoint.save(tmp_path, keep=1)
    assert path == tmp_path / "step-00000003"
    loaded = Checkpoint.load(path)
    for name in ("step", "counts", "metrics", "recipe", "precision", "data"):
        assert getattr(loaded, name) == getattr(checkpoint, name)
    assert loaded.bundle.fingerprint() == checkpoint.bundle.fingerprint()
    assert loaded.optimizer.keys() == checkpoint.optimizer.keys()
    assert all(torch.equal(loaded.optimizer[name], value) for name, value in checkpoint.optimizer.items())


def test_learning_goes_on_as_if_it_had_never_stopped(checkpoint, optimizer, tmp_path):
    loaded = Checkpoint.load(checkpoint.save(tmp_path, keep=1))
    learn(checkpoint.bundle.model, optimizer, range(3, 6))

    model = loaded.bundle.model.to(memory_format=torch.channels_last).train()
    resumed = new_optimizer(model)
    restore_optimizer(model, resumed, loaded.optimizer)
    learn(model, resumed, range(3, 6))
    for name, value in checkpoint.bundle.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    for name, value in optimizer_tensors(checkpoint.bundle.model, optimizer).items():
        assert torch.equal(optimizer_tensors(model, resumed)[name], value), name


def test_a_checkpoint_is_a_bundle_too(checkpoint, tmp_path):
    path = checkpoint.save(tmp_path, keep=1)
    assert Bundle.load(path).fingerprint() == checkpoint.bundle.fingerprint()


def test_the_newest_are_kept_in_the_order_of_steps(checkpoint, tmp_path):
    (tmp_path / "step-by-step.txt").write_text("not a checkpoint")
    for step in (9, 10, 100):
        dataclasses.replace(checkpoint, step=step).save(tmp_path, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    assert names(tmp_path) == ["step-00000010", "step-00000100", "step-by-step.txt"]
    assert list_checkpoints(tmp_path / "not there") == []


def test_a_full_disk_is_one_sentence_and_older_checkpoints_are_untouched(checkpoint, tmp_path):
    old = dataclasses.replace(checkpoint, step=2).save(tmp_path, keep=1)
    content = {path.name: path.read_bytes() for path in old.iterdir()}
    room = len(content["model.safetensors"]) + 1000  # the model fits, the optimizer's memory of it is twice as large
    assert room < len(content["training.safetensors"])
    with room_for(room), pytest.raises(DataError) as caught:
        checkpoint.save(tmp_path, keep=1)
    path = tmp_path / "step-00000003"
    assert str(caught.value) == f"{path} could not be written: File too large. Nothing was left half-written."
    assert names(tmp_path) == ["step-00000002"]
    assert {path.name: path.read_bytes() for path in old.iterdir()} == content
    with room_for(1000), pytest.raises(DataError, match=re.escape(f"{path} could not be written: File too large.")):
        checkpoint.save(tmp_path, keep=1)  # nor does the model
    assert names(tmp_path) == ["step-00000002"]


def test_a_model_that_diverged_is_not_saved(checkpoint, tmp_path):
    with torch.no_grad():
        checkpoint.bundle.model.text.projection[0, 0] = torch.nan
    with pytest.raises(WeightsError, match="finite"):
        checkpoint.save(tmp_path, keep=1)
    assert list_checkpoints(tmp_path) == []


@pytest.mark.parametrize("name", ["training.safetensors", "training.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_damaged_checkpoint_is_one_sentence(checkpoint, tmp_path, name, damage):
    path = checkpoint.save(tmp_path, keep=1)
    content = (path / name).read_bytes()
    (path / name).unlink()
    if damage == "cut short":
        (path / name).write_bytes(content[: len(content) // 2])
    sentence = f"^{re.escape(str(path))} must be a whole checkpoint: .*There is no whole one before it: remove "
    with pytest.raises(WeightsError, match=sentence) as caught:
        Checkpoint.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"step": None}, {"speed": 1}])
def test_a_state_of_another_version_is_one_sentence(checkpoint, tmp_path, change):
    path = checkpoint.save(tmp_path, keep=1)
    state = json.loads((path / "training.json").read_text()) | change
    text = json.dumps({key: value for key, value in state.items() if value is not None})
    (path / "training.json").write_text(text)
    (path / "digests.json").unlink()
    with pytest.raises(WeightsError, match=r"step-00000003 must be a whole checkpoint: .*remove .* to start over"):
        Checkpoint.load(path)


def test_the_memory_of_another_model_is_refused(checkpoint, bundle):
    tensors = dict(checkpoint.optimizer)
    del tensors["text.projection.exp_avg"]
    with pytest.raises(WeightsError, match=r"must hold text\.projection\.exp_avg \[32, 32\]"):
        restore_optimizer(bundle.model, new_optimizer(bundle.model), tensors)
    tensors["text.projection.exp_avg"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"must hold text\.projection\.exp_avg \[32, 32\]"):
        restore_optimizer(bundle.model, new_optimizer(bundle.model), tensors)


def flipped(path: Path, place: float) -> None:
    """One bit of a file is another one."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << 4
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.9, 1.0])
def test_a_flipped_bit_in_any_file_is_noticed_and_the_checkpoint_before_is_named(checkpoint, tmp_path, place):
    average = {name: value.float() for name, value in checkpoint.bundle.model.state_dict().items()}
    checkpoint = dataclasses.replace(checkpoint, average=average)
    for step in (1, 2):
        dataclasses.replace(checkpoint, step=step).save(tmp_path, keep=9)
    path = checkpoint.save(tmp_path, keep=9)
    files = sorted(file for file in path.iterdir())
    assert {"average.safetensors", "digests.json", "training.json", "config.json"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        flipped(file, place)
        with pytest.raises(WeightsError, match=r"Remove it to go on from step-00000002, the one before\."):
            Checkpoint.load(path)
        file.write_bytes(content)
    Checkpoint.load(path)


def test_a_damaged_checkpoint_is_not_offered_in_place_of_a_damaged_one(checkpoint, tmp_path):
    for step in (1, 2):
        dataclasses.replace(checkpoint, step=step).save(tmp_path, keep=9)
    path = checkpoint.save(tmp_path, keep=9)
    flipped(tmp_path / "step-00000002" / "training.safetensors", 0.5)
    flipped(path / "training.safetensors", 0.5)
    with pytest.raises(WeightsError, match=r"training\.safetensors is not what was saved.*go on from step-00000001"):
        Checkpoint.load(path)


def test_a_checkpoint_without_digests_opens_and_can_be_told(checkpoint, tmp_path):
    path = checkpoint.save(tmp_path, keep=1)
    assert has_digests(path)
    (path / "digests.json").unlink()
    assert not has_digests(path)
    assert Checkpoint.load(path).step == 3
