import dataclasses

import pytest
import torch
from torch import Tensor

from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.augment import Augment
from diptych.train.frozen import FrozenFeatures
from diptych.train.trainer import train
from runs import change, starting_from


class CountingTower:
    """Mean colour of each picture, and how many pictures it was given at a time."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.groups.append(len(images))
        return images.float().mean(dim=(1, 2))  # [group, 3]


@pytest.fixture
def pictures() -> Tensor:
    return torch.randint(256, (7, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_pictures_that_come_again_are_not_computed_again(pictures):
    tower = CountingTower()
    features = FrozenFeatures(tower, batch_size=3)
    plain = pictures.float().mean(dim=(1, 2))
    for rows in ([0, 1, 2], [2, 0, 0], [3, 0, 4]):
        torch.testing.assert_close(features(pictures[rows]), plain[rows], rtol=0, atol=0)
    assert tower.groups == [3, 3]  # all of the first call; 3 and 4, filled up to the group; nothing of the second


def test_the_tower_gets_groups_of_one_size(pictures):
    tower = CountingTower()
    features = FrozenFeatures(tower, batch_size=4)
    assert features(pictures).equal(pictures.float().mean(dim=(1, 2)))
    assert tower.groups == [4, 4]


def test_what_does_not_fit_in_memory_is_computed_each_time(pictures):
    tower = CountingTower()
    features = FrozenFeatures(tower, batch_size=1, most_bytes=2 * 3 * 4)  # two features of three floats
    for _ in range(2):
        assert features(pictures[:3]).equal(pictures[:3].float().mean(dim=(1, 2)))
    assert len(tower.groups) == 3 + 1


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet"])
def test_a_feature_is_the_same_to_the_bit_beside_any_other_pictures(name):
    model = CLIP(preset(name), torch.Generator().manual_seed(0)).eval()
    side = model.config.image.image_size
    images = torch.randn(6, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        here, there = model.encode_image(images[[0, 1, 2, 3]]), model.encode_image(images[[4, 0, 5, 5]])
    assert here[0].equal(there[1])


def test_a_run_learns_the_same_with_features_kept_and_without(tiny_recipe, tmp_path, monkeypatch):
    plain = change(tiny_recipe, epsilon=1e-4)
    train(change(plain, steps=1), tmp_path / "start")
    recipe = starting_from(plain, tmp_path / "start" / "bundle", freeze=("image",))
    data = dataclasses.replace(recipe.data, augment=Augment(crop_scale=(1, 1), crop_ratio=(1, 1)))
    recipe = dataclasses.replace(recipe, data=data)
    kept = train(recipe, tmp_path / "kept").bundle.model.state_dict()
    monkeypatch.setattr(Augment, "is_fixed", False)
    for name, value in train(recipe, tmp_path / "twin").bundle.model.state_dict().items():
        torch.testing.assert_close(kept[name], value, rtol=1e-4, atol=1e-5, msg=name)
