"""Orthogonalised updates against their plain twin, and what a run with them keeps."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diptych.config import to_toml
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.train.checkpoint import Checkpoint
from diptych.train.muon import Muon, orthogonal, orthogonal_flops
from diptych.train.optim import hidden_matrices, parameter_groups
from diptych.train.recipe import read_recipe
from diptych.train.trainer import train
from processes import run_ranks
from runs import assert_same_run, change, furthest, learn, train_in_two_parts, vit


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_orthogonal(matrix: Tensor) -> Tensor:
    """The published loop, on one matrix, in float64."""
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.to(matrix.dtype)


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6), (1, 7), (64, 33)])
def test_it_equals_the_published_loop_on_each_matrix(shape):
    matrices = draw(3, *shape)
    found = orthogonal(matrices)
    for one, wanted in zip(found, map(plain_orthogonal, matrices), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-5)


def test_singular_vectors_stay_and_singular_values_come_near_1():
    u, _, v = torch.linalg.svd(draw(24, 60), full_matrices=False)
    values = torch.logspace(0, -2.3, 24)
    found = orthogonal(((u * values) @ v)[None])[0]
    after = u.T @ found @ v.T  # diagonal where the vectors are the same
    torch.testing.assert_close(after, torch.diag(after.diagonal()), rtol=0, atol=1e-3)
    assert 0.66 < after.diagonal().min() < after.diagonal().max() < 1.22


def test_no_momentum_is_no_update_and_size_does_not_count():
    assert orthogonal(torch.zeros(2, 3, 5)).equal(torch.zeros(2, 3, 5))
    matrix = draw(1, 12, 20)
    torch.testing.assert_close(orthogonal(1e-12 * matrix), orthogonal(1e12 * matrix), rtol=1e-4, atol=1e-5)


def test_few_directions_do_not_blow_up():
    matrix = draw(64, 2) @ draw(2, 256, seed=1)  # rank 2: all other eigenvalues of the Gram matrix are rounding
    found = orthogonal(matrix[None])[0]
    assert torch.linalg.svdvals(found)[:2].min() > 0.67
    assert found.norm() < 1.22 * 2**0.5 + 0.05


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_its_flops_are_those_that_torch_counts(shape):
    with FlopCounterMode(display=False) as counter:
        orthogonal(draw(1, *shape))
    assert counter.get_total_flops() == orthogonal_flops(*shape)


def test_matrices_within_blocks_and_stages_are_its_own_and_nothing_else():
    stacked = hidden_matrices(CLIP(preset("tiny-vit")))
    block = ("attention.in_projection", "attention.out_projection", "mlp.up", "mlp.down")
    assert set(stacked) == {
        f"{tower}.blocks.{number}.{name}.weight" for tower in ("image", "text") for number in (0, 1) for name in block
    }
    assert {name for name, count in stacked.items() if count == 3} == {n for n in stacked if ".in_projection." in n}
    convolutions = {name for name in hidden_matrices(CLIP(preset("tiny-resnet"))) if name.startswith("image.")}
    assert "image.stages.3.0.shortcut.1.weight" in convolutions
    assert all(name.startswith("image.stages.") and name.endswith(".weight") for name in convolutions)
    assert not any(".bn" in name for name in convolutions)


def test_its_groups_take_nothing_from_the_others_but_their_own_and_keep_decay_and_depth():
    model = CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0))
    plain = parameter_groups(model, weight_decay=0.3, layer_decay=0.5)
    groups = parameter_groups(model, weight_decay=0.3, layer_decay=0.5, optimizer="muon")
    names = {id(p): name for name, p in model.named_parameters()}

    def told(groups: list[dict]) -> dict[str, tuple[float, float]]:
        return {names[id(p)]: (g["weight_decay"], g["rate_factor"]) for g in groups for p in g["params"]}

    assert told(groups) == told(plain)  # pyright: ignore[reportArgumentType]
    assert {names[id(p)] for g in groups if "stacked" in g for p in g["params"]} == set(hidden_matrices(model))  # pyright: ignore
    assert sum(len(g["params"]) for g in groups) == len(names)  # pyright: ignore[reportArgumentType]


def plain_muon(weights: Tensor, gradients: list[Tensor], *, rate: float, decay: float, stacked: int) -> Tensor:
    """Muon on one parameter, as it is told."""
    momentum = torch.zeros_like(weights)
    for gradient in gradients:
        momentum = 0.9 * momentum + 0.1 * gradient
        ahead = 0.1 * gradient + 0.9 * momentum
        pieces = [
            0.2 * max(piece.shape) ** 0.5 * plain_orthogonal(piece)
            for piece in ahead.reshape(len(ahead), -1).chunk(stacked)
        ]
        weights = weights * (1 - rate * decay) - rate * torch.cat(pieces).reshape(weights.shape)
    return weights


SHAPES = [((12, 5), 1), ((8, 6, 3, 3), 1), ((24, 8), 3), ((12, 5), 1)]


def test_updates_equal_their_plain_twin_and_all_else_is_adamws():
    parameters = [nn.Parameter(draw(*shape, seed=number)) for number, (shape, _) in enumerate(SHAPES)]
    parameters[1].data = parameters[1].data.to(memory_format=torch.channels_last)
    rest, twin = nn.Parameter(draw(7)), nn.Parameter(draw(7))
    start = [p.detach().clone() for p in parameters]
    groups = [{"params": [rest], "weight_decay": 0.0}]
    for count in (1, 3):
        own = [p for p, (_, stacked) in zip(parameters, SHAPES, strict=True) if stacked == count]
        groups.append({"params": own, "weight_decay": 0.2, "stacked": count})
    optimizer = Muon(groups, momentum=0.9, betas=(0.9, 0.98), epsilon=1e-6, state="float32")  # pyright: ignore
    adamw = torch.optim.AdamW([twin], lr=0.05, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    gradients = [[draw(*shape, seed=100 * step + n) for n, (shape, _) in enumerate(SHAPES)] for step in range(1, 6)]
    for step, of_step in enumerate(gradients):
        for parameter, gradient in zip(parameters, of_step, strict=True):
            parameter.grad = gradient
        rest.grad = twin.grad = draw(7, seed=step)
        optimizer.step()
        adamw.step()
    assert rest.equal(twin)
    for number, (_, stacked) in enumerate(SHAPES):
        given = [of_step[number] for of_step in gradients]
        wanted = plain_muon(start[number], given, rate=0.05, decay=0.2, stacked=stacked)
        torch.testing.assert_close(parameters[number].detach(), wanted, rtol=1e-4, atol=1e-4)
    assert parameters[1].is_contiguous(memory_format=torch.channels_last)


def test_matrices_that_take_turns_move_every_second_step_twice_as_far():
    parameters = [nn.Parameter(draw(6, 9, seed=n)) for n in range(3)]
    before = [[p.detach().clone() for p in parameters]]
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": parameters, "weight_decay": 0.2, "stacked": 1}]
    optimizer = Muon(groups, momentum=0.9, every=2, betas=(0.9, 0.98), epsilon=1e-6, state="float32")  # pyright: ignore
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    momenta = [torch.zeros(6, 9) for _ in parameters]
    for step in range(1, 5):
        for number, parameter in enumerate(parameters):
            parameter.grad = draw(6, 9, seed=10 * step + number)
        optimizer.step()
        for number, parameter in enumerate(parameters):
            gradient, old = draw(6, 9, seed=10 * step + number), before[-1][number]
            momenta[number] = 0.9 * momenta[number] + 0.1 * gradient
            update = 0.2 * 3 * plain_orthogonal(0.1 * gradient + 0.9 * momenta[number])
            wanted = old * (1 - 0.1 * 0.2) - 0.1 * update if step % 2 == number % 2 else old
            torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-4, atol=1e-4)
        before.append([p.detach().clone() for p in parameters])


def test_an_update_has_the_size_of_adamws():
    parameter = nn.Parameter(torch.zeros(64, 256))
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [parameter], "stacked": 1}]
    optimizer = Muon(groups, momentum=0.95, betas=(0.9, 0.98), epsilon=1e-6, state="float32")  # pyright: ignore
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    parameter.grad = draw(64, 256)
    optimizer.step()
    assert parameter.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_run_that_was_stopped_goes_on_to_the_bit(tiny_recipe, tmp_path, kind):
    options = {"optimizer": "muon", "orthogonal_every": 2}
    recipe = vit(tiny_recipe, steps=6, **options) if kind == "vit" else change(tiny_recipe, **options)
    train(recipe, tmp_path / "undisturbed")
    train_in_two_parts(recipe, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
    memory = Checkpoint.load(next(iter(sorted((tmp_path / "run" / "checkpoints").glob("step-*"))))).optimizer
    moved = {name.removesuffix(".momentum") for name in memory if name.endswith(".momentum")}
    assert moved == set(hidden_matrices(CLIP(recipe.model)))
    assert not any(f"{name}.exp_avg" in memory for name in moved)


@pytest.mark.parametrize(
    ("options", "bound"), [({}, 2e-4), ({"parallel": "fsdp", "optimizer_state": "bfloat16"}, 2e-3)]
)
def test_several_processes_move_as_one_does(tiny_recipe, tmp_path, options, bound):
    recipe = vit(tiny_recipe, steps=6, optimizer="muon", checkpoint_every=100, **options)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    learn(tmp_path / "recipe.toml", tmp_path / "alone", False)
    for stop_after in (3, 0):
        run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "run", False, stop_after)
    assert furthest(tmp_path / "run", tmp_path / "alone") < bound


def test_what_it_cannot_keep_in_8_bits_is_refused(tiny_recipe):
    with pytest.raises(ConfigError, match=r'optimizer_state="int8" needs train\.optimizer="adamw"'):
        change(tiny_recipe, optimizer="muon", optimizer_state="int8")
    with pytest.raises(ConfigError, match=r"train\.momentum must be at least 0 and below 1"):
        change(tiny_recipe, momentum=1.0)
    assert dataclasses.replace(tiny_recipe.train).optimizer == "adamw"


def test_an_older_recipe_is_adamws(tiny_recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(to_toml(tiny_recipe).replace('optimizer = "adamw"\n', ""))
    assert read_recipe(tmp_path / "recipe.toml") == tiny_recipe
