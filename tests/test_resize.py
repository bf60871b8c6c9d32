"""`with_image_size`: positions are stretched like a picture, all else stays."""

import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.model.resize import with_image_size


@pytest.fixture(params=["tiny-vit", "tiny-resnet"])
def model(request: pytest.FixtureRequest) -> CLIP:
    return CLIP(preset(request.param), torch.Generator().manual_seed(0)).eval()


def test_the_same_size_gives_the_same_features_and_no_shared_memory(model: CLIP):
    same = with_image_size(model, model.config.image.image_size)
    images = torch.randn(2, 3, same.config.image.image_size, same.config.image.image_size)
    torch.testing.assert_close(same.encode_image(images), model.encode_image(images))
    with torch.no_grad():
        same.logit_scale.zero_()
    assert model.logit_scale.item() > 0


def test_only_positions_change_and_a_larger_picture_is_taken(model: CLIP):
    larger = with_image_size(model, 64)
    assert larger.config.image.image_size == 64
    assert larger.encode_image(torch.randn(2, 3, 64, 64)).shape == (2, model.config.embed_dim)
    before, after = model.state_dict(), larger.state_dict()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert all(name.endswith("position_embedding") and name.startswith("image.") for name in changed)
    assert len(changed) == 1
    for name in before.keys() - changed:
        assert torch.equal(before[name], after[name])


def test_positions_keep_their_place_in_the_grid():
    model = CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0))
    side = model.config.image.image_size // model.config.image.patch_size
    with torch.no_grad():  # the first channel tells the row: 0, 1, 2, ...; the class token is marked by 100
        rows = torch.arange(side).repeat_interleave(side)
        model.image.position_embedding[:, 0] = torch.cat([torch.tensor([100]), rows]).float()
    larger = with_image_size(model, 2 * model.config.image.image_size).image.position_embedding
    grid = larger[1:, 0].reshape(2 * side, 2 * side)
    assert larger[0, 0] == 100
    assert (grid.diff(dim=0)[1:-1] > 0).all()  # rows still rise
    assert grid.diff(dim=1).abs().max() < 1e-5  # along a row nothing changes
    # Pixel centres: new row 2k + 1/2 lies at old row k, so the mean of the two new rows of a middle one is its own.
    middle = side // 2
    assert grid[2 * middle : 2 * middle + 2].mean().item() == pytest.approx(middle, abs=0.05)


def test_a_size_that_the_tower_cannot_take_is_refused(model: CLIP):
    with pytest.raises(ConfigError, match="image_size"):
        with_image_size(model, 33)
