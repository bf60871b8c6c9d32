import dataclasses

import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.image_tower import ImageTower, ImageTowerConfig
from diptych.torch_runtime import generator

CONFIG = ImageTowerConfig(image_size=16, patch_size=4, width=64, layers=2, heads=4)


@pytest.fixture(scope="module")
def tower() -> ImageTower:
    tower = ImageTower(CONFIG, 256)
    tower.reset_parameters(generator(0))
    return tower


def test_the_trunk_is_what_the_projection_is_given(tower):
    images = torch.randn(3, 3, 16, 16, generator=generator(1))
    trunk = tower.trunk(images)
    assert trunk.shape == (3, 64)
    torch.testing.assert_close(trunk.mean(dim=1), torch.zeros(3), atol=1e-6, rtol=0)  # it left a LayerNorm
    torch.testing.assert_close(tower(images), trunk @ tower.projection)


def test_patches_are_told_apart_by_place(tower):
    images = torch.randn(1, 3, 16, 16, generator=generator(1))
    moved = images.roll(4, dims=3)  # the same patches, each one place to the right
    assert (tower(images) - tower(moved)).abs().max() > 1e-3


def test_memory_order_changes_nothing(tower):
    images = torch.randn(2, 3, 16, 16, generator=generator(1))
    torch.testing.assert_close(tower(images.contiguous(memory_format=torch.channels_last)), tower(images))


def test_initial_spreads_follow_the_released_code(tower):
    for parameter in (tower.position_embedding, tower.projection, tower.class_embedding):
        n = parameter.numel()
        assert parameter.std().item() == pytest.approx(64**-0.5, rel=3 / n**0.5)  # 3 deviations are 2.1 / sqrt(n)
    # the blocks as torch starts them: uniform up to fan-in ** -0.5
    assert tower.state_dict()["blocks.1.mlp.down.weight"].abs().max().item() == pytest.approx(256**-0.5, rel=0.01)
    assert tower.ln_pre.weight.eq(1).all()


def test_the_mlp_is_four_times_as_wide_unless_told():
    assert CONFIG.mlp_width == 256
    assert dataclasses.replace(CONFIG, mlp_width=100).mlp_width == 100
    weights = ImageTower(dataclasses.replace(CONFIG, mlp_width=100), 8).state_dict()
    assert weights["blocks.0.mlp.up.weight"].shape == (100, 64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 5}, r"image\.patch_size must divide image\.image_size\. Got patch_size=5, image_size=16"),
        ({"heads": 5}, r"image\.heads must divide image\.width"),
        ({"patch_size": 0}, r"image\.patch_size must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **wrong)


def test_patches_that_are_not_kept_are_not_looked_at(tower):
    images = torch.randn(2, 3, 16, 16, generator=generator(1))
    kept = torch.tensor([[0, 5], [3, 15]])  # of 16, by rows of 4
    mask = torch.zeros(2, 16)
    mask.scatter_(1, kept, 1.0)
    visible = mask.view(2, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    other = torch.randn(2, 3, 16, 16, generator=generator(2))
    torch.testing.assert_close(tower(images, kept), tower(images * visible + other * (1 - visible), kept))
    assert (tower(images, kept) - tower(images)).abs().max() > 1e-2


def test_all_patches_in_any_order_are_the_whole_picture(tower):
    images = torch.randn(2, 3, 16, 16, generator=generator(1))
    every = torch.stack([torch.randperm(16, generator=generator(3, row)) for row in range(2)])
    torch.testing.assert_close(tower(images, every), tower(images))


@torch.no_grad()
def test_the_mean_of_the_patches_is_normed_after_it_is_taken():
    config = ImageTowerConfig(image_size=32, patch_size=8, width=24, layers=2, heads=2, pool="mean", has_ln_pre=False)
    tower = ImageTower(config, 20)
    tower.reset_parameters(generator(0))
    images = torch.rand(2, 3, 32, 32, generator=generator(1))
    patches, feature = tower.tokens_and_feature(images)
    torch.testing.assert_close(feature, tower.ln_post(patches.mean(dim=1)) @ tower.projection)
    assert not [name for name in tower.state_dict() if "ln_pre" in name]
    tower.class_embedding.copy_(torch.randn(24, generator=generator(2)))
    assert not torch.allclose(tower(images), feature), "the patches have looked at the class token"


@torch.no_grad()
def test_a_stem_of_convolutions_gives_the_grid_that_a_patch_would_and_the_class_token_has_no_place():
    sizes = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 1, "heads": 2}
    tower = ImageTower(ImageTowerConfig(**sizes, stem="convolutions", has_projection_bias=True), 20)
    tower.reset_parameters(generator(0))
    images = torch.rand(2, 3, 32, 32, generator=generator(1))
    assert tower.patch_embedding(images).shape == (2, 24, 4, 4)
    assert tower.position_embedding.shape == (16, 24)
    before = tower(images)
    assert tower.projection_bias is not None
    tower.projection_bias += 1
    torch.testing.assert_close(tower(images), before + 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool": "max"}, r"image\.pool: max is not an option\..*class, mean"),
        ({"stem": "convolution"}, r"image\.stem: convolution is not an option\. Did you mean convolutions"),
        ({"stem": "convolutions", "patch_size": 2}, r"must be multiples of 4 .* Got patch_size=2, width=24"),
    ],
)
def test_options_that_are_none_are_refused(wrong, message):
    sizes = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 1, "heads": 2}
    with pytest.raises(ConfigError, match=message):
        ImageTowerConfig(**sizes | wrong)
