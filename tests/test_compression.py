from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diptych.config import to_toml
from diptych.train.checkpoint import Checkpoint
from diptych.train.compression import COLUMNS, PowerSGD, compress
from diptych.train.distributed import launched_ranks
from processes import run_ranks
from runs import curve, furthest, learn, vit


def network() -> nn.Module:
    """A convolution, a matrix and a bias; the first two are large enough to be worth two factors."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.Flatten(), nn.Linear(24 * 4, 30)).double()
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def batch(rank: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 * step + rank)
    pictures = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64)
    return pictures, torch.randn(5, 30, generator=generator, dtype=torch.float64)


def gradients(compression: str, steps: int) -> list[dict[str, Any]]:
    """Of each step, what DDP leaves in `grad`."""
    with launched_ranks() as ranks:
        model = network()
        held = DistributedDataParallel(model, gradient_as_bucket_view=True)
        power = PowerSGD(model) if compression == "powersgd" else None
        compress(held, compression, power)  # pyright: ignore[reportArgumentType]
        seen = []
        for step in range(steps):
            model.zero_grad()
            pictures, targets = batch(ranks.rank, step)
            ((held(pictures) - targets) ** 2).mean().backward()
            seen.append({name: p.grad.tolist() for name, p in model.named_parameters() if p.grad is not None})
        return seen


def true_gradients(step: int) -> dict[str, Tensor]:
    model = network()
    for rank in (0, 1):
        pictures, targets = batch(rank, step)
        (((model(pictures) - targets) ** 2).mean() / 2).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def plain_twin(steps: int) -> list[dict[str, Tensor]]:
    """PowerSGD of the mean gradient, on one process: nothing in it needs the processes' own."""
    power, seen = PowerSGD(network()), []
    state = {name: value.clone() for name, value in power.tensors().items()}
    for step in range(steps):
        found = true_gradients(step)
        for name in found:
            if f"{name}.compression_error" not in state:
                continue
            is_filter = found[name].ndim == 4  # in channels_last memory
            gradient = found[name].permute(0, 2, 3, 1) if is_filter else found[name]
            matrix = gradient.reshape(len(gradient), -1) + state[f"{name}.compression_error"]
            left = torch.linalg.qr(matrix @ state[f"{name}.compression_factor"]).Q
            state[f"{name}.compression_factor"] = matrix.T @ left
            approximate = left @ left.T @ matrix
            state[f"{name}.compression_error"] = matrix - approximate
            approximate = approximate.view(gradient.shape)
            found[name] = approximate.permute(0, 3, 1, 2) if is_filter else approximate
        seen.append(found)
    return seen


def test_two_factors_stand_for_a_gradient_and_what_they_leave_out_comes_later():
    first, second = run_ranks(gradients, 2, "powersgd", 6)
    assert first == second
    twin = plain_twin(6)
    assert sum(name.endswith("compression_error") for name in PowerSGD(network()).tensors()) == 2  # not of biases
    for found, wanted in zip(first, twin, strict=True):
        for name, value in wanted.items():
            torch.testing.assert_close(torch.tensor(found[name], dtype=torch.float64), value, rtol=1e-7, atol=1e-10)
    ranks = [
        int(torch.linalg.matrix_rank(torch.as_tensor(step["2.weight"], dtype=torch.float64), rtol=1e-9))
        for step in (first[-1], true_gradients(5))
    ]
    assert ranks[0] == COLUMNS < ranks[1]


@pytest.mark.parametrize(("compression", "bound"), [("float16", 2e-3), ("bfloat16", 2e-2), ("none", 1e-12)])
def test_a_shorter_type_rounds_gradients_and_no_more(compression, bound):
    ((found,), other) = run_ranks(gradients, 2, compression, 1)
    assert [found] == other
    for name, value in true_gradients(0).items():
        difference = (torch.tensor(found[name], dtype=torch.float64) - value).norm() / value.norm()
        assert difference < bound
        assert compression == "none" or difference > 1e-6


def left_out(run: Path, step: int) -> dict[str, Tensor]:
    tensors = Checkpoint.load(run / "checkpoints" / f"step-{step:08d}").optimizer
    return {name: value for name, value in tensors.items() if ".compression_" in name}


def test_what_was_left_out_goes_on_with_a_run(tiny_recipe, tmp_path):
    recipe = vit(tiny_recipe, steps=8, gradient_compression="powersgd", checkpoint_every=4, epsilon=1e-4)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "undisturbed", False)
    for count, stop_after in ((2, 4), (4, 0)):
        run_ranks(learn, count, tmp_path / "recipe.toml", tmp_path / "run", False, stop_after)
    errors = left_out(tmp_path / "run", 4)
    assert errors
    assert any(value.abs().max() > 0 for name, value in errors.items() if name.endswith("compression_error"))
    assert furthest(tmp_path / "run", tmp_path / "undisturbed") < 2e-4
    assert curve(tmp_path / "run", "loss") == pytest.approx(curve(tmp_path / "undisturbed", "loss"), rel=1e-3)
