"""PerceptionTower: rotation goes with the patch, the pool sees all positions, a class token or none."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.model import perception_tower
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.perception_tower import PerceptionTower, PerceptionTowerConfig
from diptych.model.resize import with_image_size
from diptych.torch_runtime import generator
from tower_kinds import TEXT_KINDS, text_of

CONFIG = PerceptionTowerConfig(image_size=32, patch_size=8, width=24, layers=2, heads=2, pool_heads=3)
WITHOUT = dataclasses.replace(CONFIG, class_token=False)

each = pytest.mark.parametrize("config", [CONFIG, WITHOUT], ids=["class token", "none"])


def tower_of(config: PerceptionTowerConfig = CONFIG) -> PerceptionTower:
    """With nothing at zero or one."""
    tower = PerceptionTower(config, 20)
    tower.reset_parameters(generator(0))
    with torch.no_grad():
        for number, parameter in enumerate(tower.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(1, number)))
    return tower.eval()


def pictures() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=generator(2))


@each
def test_patches_that_are_kept_stay_where_they_are(config):
    tower, images = tower_of(config), pictures()
    order = torch.stack([torch.randperm(16, generator=generator(4, row)) for row in range(2)])
    torch.testing.assert_close(tower(images, order), tower(images), rtol=0, atol=1e-5)


def test_where_the_count_of_places_begins_matters_beside_a_class_token_alone(monkeypatch):
    images, true = pictures(), perception_tower.rotation_of
    before = [tower_of(config)(images) for config in (CONFIG, WITHOUT)]
    monkeypatch.setattr(
        perception_tower, "rotation_of", lambda *sizes, **options: true(*sizes, **options | {"first": 3})
    )
    after = [tower_of(config)(images) for config in (CONFIG, WITHOUT)]
    assert not torch.allclose(after[0], before[0], atol=1e-3)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=2e-5)


@each
def test_the_pool_has_heads_of_its_own_and_sees_all_positions(config):
    tower, images = tower_of(config), pictures()
    x = tower._positions(images, None)  # pyright: ignore[reportPrivateUsage]
    assert x.shape == (2, 16 + config.class_token, 24)
    attention, width = tower.pool.attention, 24
    parts = zip(attention.in_projection.weight.split(width), attention.in_projection.bias.split(width), strict=True)
    asked = (tower.pool.probe.expand(2, -1, -1), x, x)
    query, key, value = (
        (one @ weight.T + bias).unflatten(-1, (3, 8)) for one, (weight, bias) in zip(asked, parts, strict=True)
    )
    shares = (torch.einsum("bqhe,bkhe->bhqk", query, key) / 8**0.5).softmax(dim=-1)
    pooled = attention.out_projection(torch.einsum("bhqk,bkhe->bqhe", shares, value).flatten(2))[:, 0]
    expected = pooled + tower.pool.mlp(tower.pool.ln_mlp(pooled))
    torch.testing.assert_close(tower.trunk(images), expected, rtol=0, atol=1e-5)


def test_rotary_positions_keep_their_grid_at_another_image_size():
    model = CLIP(CLIPConfig(embed_dim=20, image=WITHOUT, text=text_of(TEXT_KINDS[0])), generator(0))
    larger = with_image_size(model, 64)
    assert isinstance(larger.config.image, PerceptionTowerConfig)
    assert (WITHOUT.rotary_grid, larger.config.image.rotary_grid, larger.config.image.patches) == (4, 4, 64)
    assert larger.encode_image(torch.zeros(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, r"image\.patch_size must divide image\.image_size\. Got patch_size=5, image_size=32"),
        ({"pool_heads": 5}, r"image\.pool_heads must divide image\.width\. Got pool_heads=5, width=24"),
        ({"pool_heads": 0}, r"image\.pool_heads must be at least 1\. Got 0"),
        ({"heads": 4}, r"must be a multiple of 4.*Got 6"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **options)
