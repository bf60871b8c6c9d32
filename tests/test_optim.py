import dataclasses
import math

import pytest
import torch
from torch import nn

from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import preset
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.train.optim import CompactAdamW, adamw, clamp_logit_scale, parameter_groups


@pytest.fixture(params=["tiny-vit", "tiny-resnet"])
def model(request) -> CLIP:
    return CLIP(preset(request.param), torch.Generator().manual_seed(0))


def test_matrices_decay_and_gains_biases_and_the_temperature_do_not(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = parameter_groups(model, weight_decay=0.3)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    decayed_names, free_names = ({names[id(p)] for p in group["params"]} for group in (decayed, free))
    assert {"text.token_embedding.weight", "text.position_embedding", "text.projection"} <= decayed_names
    assert {"logit_scale", "text.ln_final.weight", "text.ln_final.bias"} <= free_names
    assert {name for name in names.values() if name.endswith("bias")} <= free_names
    assert decayed_names | free_names == set(names.values())
    assert not decayed_names & free_names


def test_decay_reaches_the_first_group_alone(model):
    decayed, free = parameter_groups(model, weight_decay=0.5)
    before = [[p.detach().clone() for p in group["params"]] for group in (decayed, free)]
    optimizer = torch.optim.AdamW([decayed, free], lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group, olds, factor in zip((decayed, free), before, (1 - 0.1 * 0.5, 1.0), strict=True):
        for new, old in zip(group["params"], olds, strict=True):
            torch.testing.assert_close(new, old * factor)


def test_frozen_parameters_are_left_out(model):
    model.image.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1)
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for name, p in model.named_parameters() if not name.startswith("image.")}


def factors(model: CLIP, layer_decay: float) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.3, layer_decay=layer_decay)
    found = [(names[id(p)], group["rate_factor"]) for group in groups for p in group["params"]]  # pyright: ignore
    assert len(found) == len(names)  # each once
    for group in groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.3}  # pyright: ignore
    return dict(found)  # pyright: ignore


TEXT_FACTORS = {
    "text.projection": 1,
    "text.ln_final.weight": 1,
    "text.blocks.1.mlp.up.weight": 1 / 2,
    "text.blocks.0.ln_attention.bias": 1 / 4,
    "text.token_embedding.weight": 1 / 8,
    "text.position_embedding": 1 / 8,
    "logit_scale": 1,
}


def test_each_layer_learns_by_a_factor_slower_than_the_one_above_it():
    found = factors(CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0)), 0.5)
    wanted = TEXT_FACTORS | {
        "image.projection": 1,
        "image.ln_post.bias": 1,
        "image.blocks.1.attention.in_projection.weight": 1 / 2,
        "image.blocks.0.attention.in_projection.weight": 1 / 4,
        "image.ln_pre.weight": 1 / 8,
        "image.class_embedding": 1 / 8,
        "image.position_embedding": 1 / 8,
        "image.patch_embedding.weight": 1 / 8,
    }
    assert {name: found[name] for name in wanted} == wanted
    assert set(found.values()) == {1, 1 / 2, 1 / 4, 1 / 8}


def test_the_stages_of_a_resnet_are_its_layers():
    found = factors(CLIP(preset("tiny-resnet"), torch.Generator().manual_seed(0)), 0.5)
    wanted = TEXT_FACTORS | {
        "image.projection.weight": 1,
        "image.pool.position_embedding": 1,  # of the attention pool, at the top
        "image.stages.3.0.conv1.weight": 1 / 2,
        "image.stages.2.0.bn1.weight": 1 / 4,
        "image.stages.1.0.conv1.weight": 1 / 8,
        "image.stages.0.0.conv1.weight": 1 / 16,
        "image.stem.0.weight": 1 / 32,
    }
    assert {name: found[name] for name in wanted} == wanted


def test_siglips_towers_have_their_pool_and_norms_at_the_top():
    config = CLIPConfig(
        embed_dim=32,
        head="sigmoid",
        image=SigLIPImageTowerConfig(image_size=32, patch_size=8, width=32, layers=1, heads=2),
        text=SigLIPTextTowerConfig(context_length=16, vocab_size=512, width=32, layers=1, heads=2),
    )
    found = factors(CLIP(config, torch.Generator().manual_seed(0)), 0.5)
    top = {name for name, factor in found.items() if factor == 1}
    assert {name.split(".")[1] for name in top if "." in name} == {"pool", "ln_post", "ln_final", "projection"}
    assert {"logit_scale", "logit_bias"} <= top
    assert {name for name, factor in found.items() if factor == 1 / 4} == {
        "image.patch_embedding.weight",
        "image.patch_embedding.bias",
        "image.position_embedding",
        "text.token_embedding.weight",
        "text.position_embedding",
    }


@pytest.mark.parametrize(("factor", "expected"), [(0.5, 1.0), (1.0, 1.0), (14.0, 14.0), (100.0, 100.0), (1e4, 100.0)])
def test_the_factor_is_held_between_1_and_100(model, factor, expected):
    with torch.no_grad():
        model.logit_scale.fill_(math.log(factor))
    clamp_logit_scale(model)
    assert model.logit_scale.exp().item() == pytest.approx(expected)


def test_a_sigmoid_factor_is_free(model):
    config = dataclasses.replace(model.config, head="sigmoid")
    model = CLIP(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.logit_scale.fill_(6.0)
    clamp_logit_scale(model)
    assert model.logit_scale.item() == 6.0


def updates(state: str, steps: int) -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
    """Steps of gradients that are a function of their number."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((64, 32), (16,))]
    groups = [{"params": parameters[:1], "weight_decay": 0.2}, {"params": parameters[1:], "weight_decay": 0.0}]
    optimizer = adamw(groups, betas=(0.9, 0.98), epsilon=1e-6, state=state)  # pyright: ignore[reportArgumentType]
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator) + 0.5
        optimizer.step()
    return [parameter.detach() for parameter in parameters], optimizer


def test_compact_moments_take_half_the_memory_and_the_first_step_is_adamws():
    (ours, compact), (theirs, plain) = updates("bfloat16", 1), updates("float32", 1)
    assert isinstance(compact, CompactAdamW)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # both moments are used before they are rounded

    def size(optimizer: torch.optim.Optimizer) -> int:
        return sum(t.nbytes for state in optimizer.state.values() for name, t in state.items() if name != "step")

    assert 2 * size(compact) == size(plain)


def test_compact_moments_go_where_adamw_goes():
    (ours, _), (theirs, _) = updates("bfloat16", 200), updates("float32", 200)
    start, _ = updates("float32", 0)
    for our, their, first in zip(ours, theirs, start, strict=True):
        moved = (their - first).norm()
        assert (our - their).norm() < 0.01 * moved
