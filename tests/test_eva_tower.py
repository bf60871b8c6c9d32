"""EvaTower: its kinds of blocks by their formulas, keys without a bias, rotation that goes with the patch."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.eva_tower import EvaBlock, EvaTower, EvaTowerConfig
from diptych.model.resize import with_image_size
from diptych.torch_runtime import generator
from tower_kinds import TEXT_KINDS, text_of

CONFIG = EvaTowerConfig(image_size=32, patch_size=8, width=24, layers=2, heads=2, mlp_width=40)
KINDS = [CONFIG, dataclasses.replace(CONFIG, block="plain", rotary_grid=0)]
KINDS.append(dataclasses.replace(KINDS[1], block="post_norm"))

each_kind = pytest.mark.parametrize("config", KINDS, ids=lambda config: config.block)


def tower_of(config: EvaTowerConfig = CONFIG) -> EvaTower:
    """With nothing at zero or one."""
    tower = EvaTower(config, 20)
    tower.reset_parameters(generator(0))
    with torch.no_grad():
        for number, parameter in enumerate(tower.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(1, number)))
    return tower.eval()


def pictures() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=generator(2))


def plain_attention(block: Any, x: Tensor, rotation: Tensor | None) -> Tensor:
    """Head by head and position by position, keys without a bias."""
    attention = block.attention
    width = x.shape[-1]
    weights = attention.in_projection.weight.split(width)
    biases = (attention.query_bias, 0.0, attention.value_bias)
    query, key, value = (
        (x @ weight.T + bias).unflatten(-1, (2, -1)) for weight, bias in zip(weights, biases, strict=True)
    )
    if rotation is not None:
        turns = torch.complex(*rotation.unbind(-2))  # [P, E / 2]
        turns = torch.cat([torch.ones_like(turns[:1]), turns])[:, None]  # the class token is not turned
        query, key = (
            torch.view_as_real(torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous()) * turns).flatten(-2)
            for part in (query, key)
        )
    logits = torch.einsum("bqhe,bkhe->bhqk", query, key) / query.shape[-1] ** 0.5
    x = torch.einsum("bhqk,bkhe->bqhe", logits.softmax(dim=-1), value).flatten(2)
    return attention.out_projection(attention.ln_inside(x))


@each_kind
def test_a_block_is_what_its_formula_says(config):
    tower = tower_of(config)
    block: Any = tower.blocks[0]
    assert isinstance(block, EvaBlock)
    x = torch.randn(2, 17, 24, generator=generator(3))
    beside = tower._rotation(x, None)  # pyright: ignore[reportPrivateUsage]
    rotation = beside[0] if beside else None
    if config.block == "post_norm":
        middle = x + block.ln_attention(plain_attention(block, x, rotation))
        expected = middle + block.ln_mlp(block.mlp.down(F.gelu(block.mlp.up(middle))))
    else:
        middle = x + plain_attention(block, block.ln_attention(x), rotation)
        y = block.ln_mlp(middle)
        if config.block == "trv":
            y = block.mlp.ln_inside(F.silu(block.mlp.gate(y)) * block.mlp.up(y))
        else:
            y = F.gelu(block.mlp.up(y))
        expected = middle + block.mlp.down(y)
    torch.testing.assert_close(block(x, *beside), expected, rtol=0, atol=2e-5)


@each_kind
def test_patches_that_are_kept_stay_where_they_are(config):
    tower, images = tower_of(config), pictures()
    order = torch.stack([torch.randperm(16, generator=generator(4, row)) for row in range(2)])
    torch.testing.assert_close(tower(images, order), tower(images), rtol=0, atol=1e-5)


def test_a_rotated_tower_tells_places_apart_without_learned_positions():
    for config, tells in ((CONFIG, True), (KINDS[1], False)):
        tower, images = tower_of(config), pictures()
        with torch.no_grad():
            tower.position_embedding.zero_()
        flipped = images.unflatten(2, (4, 8)).flip(2).flatten(2, 3)  # rows of patches from the last to the first
        assert torch.allclose(tower(flipped), tower(images), atol=1e-4) != tells


def test_rotary_positions_keep_their_grid_at_another_image_size():
    model = CLIP(CLIPConfig(embed_dim=20, image=CONFIG, text=text_of(TEXT_KINDS[0])), generator(0))
    larger = with_image_size(model, 64)
    assert isinstance(larger.config.image, EvaTowerConfig)
    assert (CONFIG.rotary_grid, larger.config.image.rotary_grid, larger.config.image.patches) == (4, 4, 64)
    assert larger.encode_image(torch.zeros(1, 3, 64, 64)).isfinite().all()


@each_kind
def test_the_grid_of_a_tower_of_one_block_is_what_each_patch_says_alone(config):
    tower = tower_of(dataclasses.replace(config, layers=1))
    block: Any = tower.blocks[0]
    images = pictures()
    x = tower._embedded(images, None)  # pyright: ignore[reportPrivateUsage]
    alone = [block(x[:, [place]]) for place in range(1, 17)]  # a position that sees itself needs no rotation
    expected = tower.project(tower.ln_post(torch.cat(alone, dim=1))).unflatten(1, (4, 4))
    torch.testing.assert_close(tower.grid(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, r"image\.patch_size must divide image\.image_size\. Got patch_size=5, image_size=32"),
        ({"block": "trw"}, r"image\.block: trw is not a kind of block\. Did you mean trv"),
        ({"block": "plain"}, r"image\.rotary_grid must be 0 for plain blocks\. Got 4"),
        ({"heads": 4}, r"must be a multiple of 4.*Got 6"),
        ({"rotary_grid": -1}, r"image\.rotary_grid must be at least 1\. Got -1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **options)
