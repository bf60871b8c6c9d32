import dataclasses

import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.align_tower import AlignTower, AlignTowerConfig
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.torch_runtime import generator

SMALL = AlignTowerConfig(image_size=64, width=0.15, depth=0.5)


@pytest.fixture
def tower() -> AlignTower:
    model = CLIP(dataclasses.replace(preset("tiny-vit"), embed_dim=48, image=SMALL), generator(0)).eval()
    assert isinstance(model.image, AlignTower)
    return model.image


def test_the_defaults_are_efficientnet_b7_of_600_pixels_and_more():
    config = AlignTowerConfig()
    assert (len(config.blocks), config.stem_width, config.token_width, config.patches) == (55, 64, 640, 81)
    assert dataclasses.replace(config, image_size=600).patches == 18**2
    strides = [block.stride for block in config.blocks if block.stride > 1]
    assert strides == [2, 2, 2, 2]
    assert [block.has_shortcut for block in config.blocks[:5]] == [False, True, True, True, False]


@torch.no_grad()
def test_the_feature_is_the_mean_of_the_grid(tower):
    images = torch.rand(2, 3, 64, 64, generator=generator(1))
    grid = tower.grid(images)
    assert grid.shape == (2, 2, 2, 48)
    torch.testing.assert_close(grid.mean(dim=(1, 2)), tower(images))
    tokens, feature = tower.tokens_and_feature(images)
    torch.testing.assert_close(tokens.mean(dim=1), feature)


@torch.no_grad()
def test_blocks_padded_alike_keep_one_position_more_of_an_odd_side():
    odd = dataclasses.replace(SMALL, image_size=75)  # 37 positions behind the stem; the second block shrinks them
    assert odd.blocks[1].side_after(37) == 18
    alike = dataclasses.replace(odd, padded_alike=(1,))
    assert alike.blocks[1].side_after(37) == 19


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match=r"image\.width must be above 0\. Got 0"):
        dataclasses.replace(SMALL, width=0.0)
    with pytest.raises(ConfigError, match=r"numbers of blocks, 0 to 9\. Got \[11\]"):
        dataclasses.replace(SMALL, padded_alike=(11,))
    with pytest.raises(ConfigError, match=r"embed_dim must be 48"):
        dataclasses.replace(preset("tiny-vit"), image=SMALL)
