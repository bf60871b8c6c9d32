"""ViTaminTower: its blocks by their formulas, positions or none, sizes that fit."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.resize import with_image_size
from diptych.model.vitamin_tower import MBConv, ViTaminTower, ViTaminTowerConfig
from diptych.torch_runtime import generator
from tower_kinds import TEXT_KINDS, text_of

CONFIG = ViTaminTowerConfig(image_size=64, stem_width=4, stage_layers=(1, 2), width=24, layers=2, heads=2)


def tower_of(config: ViTaminTowerConfig = CONFIG) -> ViTaminTower:
    """With nothing at zero or one."""
    tower = ViTaminTower(config, 20)
    tower.reset_parameters(generator(0))
    with torch.no_grad():
        for number, parameter in enumerate(tower.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(1, number)))
    return tower.eval()


def norm(x: torch.Tensor, layer: torch.nn.LayerNorm) -> torch.Tensor:
    """Of each position over its channels, [B, C, H, W], by hand."""
    centred = x - x.mean(dim=1, keepdim=True)
    x = centred / (x.var(dim=1, keepdim=True, correction=0) + layer.eps).sqrt()
    return x * layer.weight[:, None, None] + layer.bias[:, None, None]


@pytest.mark.parametrize(("channels", "out", "stride"), [(4, 4, 1), (4, 8, 2), (4, 4, 2)])
def test_a_convolutional_block_is_what_its_formula_says(channels: int, out: int, stride: int):
    tower = tower_of(dataclasses.replace(CONFIG, stage_layers=(2, 2)))
    block = next(
        module
        for module in tower.modules()
        if isinstance(module, MBConv)
        and (module.widen.in_channels, module.narrow.out_channels, module.stride) == (channels, out, stride)
    )
    x = torch.randn(2, channels, 6, 6, generator=generator(3))
    y = F.gelu(block.widen(norm(x, block.norm)))
    looked = F.conv2d(
        F.pad(y, (1, 1, 1, 1)), block.depthwise.weight, block.depthwise.bias, stride=stride, groups=4 * out
    )
    expected, beside = block.narrow(F.gelu(looked)), x
    if stride == 2:
        places = F.pad(torch.ones(1, 1, 6, 6), (1, 1, 1, 1))  # a mean over those that are within the picture
        beside = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2) / F.avg_pool2d(places, 3, 2)
    expected = expected + (beside if block.shortcut is None else block.shortcut(beside))
    assert (block.shortcut is None) == (channels == out)
    torch.testing.assert_close(block(x.contiguous(memory_format=torch.channels_last)), expected, rtol=0, atol=2e-5)


def test_the_mlp_of_a_block_is_normalised_twice_and_gated_by_gelu():
    block: Any = tower_of().blocks[0]
    x = torch.randn(2, 16, 24, generator=generator(3))
    middle = x + block.attention(block.ln_attention(x))
    first, gated = block.mlp
    y = F.layer_norm(block.ln_mlp(middle), (24,), first.weight, first.bias, eps=1e-6)
    expected = middle + gated.down(F.gelu(gated.gate(y)) * gated.up(y))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-5)


def test_the_mean_of_all_positions_is_normalised_and_not_the_positions():
    tower = tower_of()
    images = torch.randn(2, 3, 64, 64, generator=generator(2))
    tokens, feature = tower.tokens_and_feature(images)
    assert tokens.shape == (2, 16, 24)
    torch.testing.assert_close(feature, tower.projection(tower.ln_post(tokens.mean(dim=1))))
    assert not torch.allclose(feature, tower.projection(tower.ln_post(tokens).mean(dim=1)), atol=1e-3)


def test_a_tower_without_positions_takes_another_image_size_with_the_same_weights():
    for has_positions in (True, False):
        config = dataclasses.replace(CONFIG, has_positions=has_positions)
        model = CLIP(CLIPConfig(embed_dim=20, image=config, text=text_of(TEXT_KINDS[0])), generator(0))
        larger = with_image_size(model, 96)
        same = {name for name, value in larger.state_dict().items() if torch.equal(value, model.state_dict()[name])}
        assert (set(model.state_dict()) - same) == ({"image.position_embedding"} if has_positions else set())
        assert larger.encode_image(torch.zeros(1, 3, 96, 96)).isfinite().all()


def test_stages_widen_and_halve_in_their_first_block():
    config = ViTaminTowerConfig(stem_width=64, width=384, layers=14, heads=6)
    assert config.convolutions == [(64, 64, 2), (64, 64, 1), (64, 128, 2), *[(128, 128, 1)] * 3]
    assert (config.mlp_width, config.patches) == (768, 196)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 40}, r"image\.image_size must be a multiple of 16\. Got 40"),
        ({"stem_width": 5}, r"image\.stem_width must be even\. Got 5"),
        ({"stage_layers": (1, 0)}, r"image\.stage_layers must be two numbers from 1\. Got \[1, 0\]"),
        ({"stage_layers": (1,)}, r"image\.stage_layers must be two numbers from 1\. Got \[1\]"),
        ({"heads": 5}, r"image\.heads must divide image\.width"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **options)
