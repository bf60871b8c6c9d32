import signal
from pathlib import Path

import pytest
import torch

from diptych.config import to_toml
from diptych.errors import WeightsError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.train.checkpoint import Checkpoint
from diptych.train.ema import Average
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import StepReport, train
from diptych.weights.bundle import Bundle
from processes import run_ranks
from runs import assert_same_run, change, count_pairs, furthest, learn, vit
from test_files import names


def fill(model: CLIP, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_the_average_goes_as_worked_by_hand():
    model = CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0))
    fill(model, 0.0)
    average = Average(model, 0.3)
    fill(model, 11.0)
    average.update(model, step=1)  # decay 2 / 11, less than 0.3: 0 * 2/11 + 11 * 9/11
    assert average.tensors()["text.projection"].unique().tolist() == pytest.approx([9.0])
    fill(model, 19.0)
    average.update(model, step=100)  # decay 0.3: 9 * 0.3 + 19 * 0.7
    assert average.tensors()["logit_scale"].item() == pytest.approx(16.0)
    assert model.logit_scale.item() == 19.0


def test_batch_statistics_are_averaged_and_counts_are_copied():
    model = CLIP(preset("tiny-resnet"), torch.Generator().manual_seed(0))
    average = Average(model, 0.5)
    for name, buffer in model.named_buffers():
        buffer.fill_(7 if name.endswith("num_batches_tracked") else 3.0)
    average.update(model, step=100)
    after = average.tensors()
    for name, _ in model.named_buffers():
        was = 1.0 if name.endswith("running_var") else 0.0
        wanted = 7 if name.endswith("num_batches_tracked") else (was + 3.0) / 2
        assert after[name].flatten()[0].item() == wanted, name


def test_an_average_of_another_model_is_refused():
    model = CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0))
    saved = Average(model, 0.5).tensors()
    saved["text.projection"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"must hold text\.projection \[32, 32\]"):
        Average(model, 0.5, saved)


@pytest.fixture(scope="module")
def averaged(tiny_recipe, tmp_path_factory) -> tuple[TrainRecipe, Path]:
    """The tiny recipe with an average, run once. Not to be written to."""
    recipe = change(tiny_recipe, ema_decay=0.6, evaluate_every=3)
    out = tmp_path_factory.mktemp("averaged")
    train(recipe, out, evaluators={"set": count_pairs})
    return recipe, out


def test_what_comes_out_is_the_average_of_the_weights_of_all_steps(averaged, tiny_recipe, tmp_path):
    recipe, out = averaged
    twin = CLIP(recipe.model, generator(recipe.seed)).state_dict()
    plain = change(tiny_recipe, checkpoint_every=1, keep_checkpoints=8)
    train(plain, tmp_path / "plain")
    for step in range(1, 9):
        decay = min(0.6, (1 + step) / (10 + step))
        weights = Checkpoint.load(tmp_path / "plain" / "checkpoints" / f"step-{step:08d}").bundle.model.state_dict()
        twin = {
            name: decay * old + (1 - decay) * weights[name] if old.is_floating_point() else weights[name]
            for name, old in twin.items()
        }
    for name, value in Bundle.load(out / "bundle").model.state_dict().items():
        torch.testing.assert_close(value, twin[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    last = Checkpoint.load(out / "checkpoints" / "step-00000008")  # its bundle is what training goes on with
    assert last.bundle.fingerprint() == Bundle.load(tmp_path / "plain" / "bundle").fingerprint()
    assert last.metrics == {"set/mean": count_pairs(Bundle.load(out / "bundle"))["mean"]}


def test_a_run_with_an_average_goes_on_to_the_bit(averaged, tmp_path):
    recipe, out = averaged

    def stop(progress: StepReport) -> None:
        if progress.step == 4:
            signal.raise_signal(signal.SIGTERM)

    train(recipe, tmp_path, evaluators={"set": count_pairs}, on_progress=stop)
    train(recipe, tmp_path, evaluators={"set": count_pairs})
    assert_same_run(tmp_path, out)
    ours, theirs = (folder / "checkpoints" / "step-00000008" / "average.safetensors" for folder in (tmp_path, out))
    assert ours.read_bytes() == theirs.read_bytes()


def test_without_an_average_nothing_is_kept_of_one(tiny_recipe, tmp_path):
    train(change(tiny_recipe, steps=1), tmp_path)
    assert "average.safetensors" not in names(tmp_path / "checkpoints" / "step-00000001")


def test_processes_that_hold_shares_of_the_weights_average_as_one_does(tiny_recipe, tmp_path):
    recipe = vit(tiny_recipe, steps=4, ema_decay=0.5, parallel="fsdp")
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    learn(tmp_path / "recipe.toml", tmp_path / "alone", False)
    run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "run", False)
    assert furthest(tmp_path / "run", tmp_path / "alone") < 2e-4
