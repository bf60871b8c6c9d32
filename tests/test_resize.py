"""Positions are stretched like a picture, or as Long-CLIP's were; all else stays."""

import dataclasses

import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.coca import CoCaTextTowerConfig
from diptych.model.presets import preset
from diptych.model.resize import stretch_text_positions, with_context_length, with_image_size


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


def test_text_positions_are_stretched_as_long_clips_were():
    old = torch.randn(77, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    new = stretch_text_positions(old, 248)
    for place in range(248):  # three new ones between each two, and three behind the last
        fourth = place - 20
        if place < 20:
            expected = old[place]
        elif fourth // 4 < 56:
            below = 20 + fourth // 4
            expected = old[below] + fourth % 4 / 4 * (old[below + 1] - old[below])
        else:
            expected = old[76] + (fourth - 4 * 56) / 4 * (old[76] - old[75])
        torch.testing.assert_close(new[place], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [16, 17, 40])
def test_short_texts_have_the_same_features_in_a_longer_model_and_more_tokens_are_taken(length):
    tower = dataclasses.replace(
        preset("tiny-vit"), text=dataclasses.replace(preset("tiny-vit").text, context_length=24)
    )
    model = CLIP(tower, torch.Generator().manual_seed(0)).eval()
    longer = with_context_length(model, 24 + length)
    assert longer.config.text.context_length == 24 + length
    tokens = torch.randint(1, 500, (2, 24 + length), generator=torch.Generator().manual_seed(1))
    tokens[:, 19] = 511
    with torch.no_grad():
        torch.testing.assert_close(longer.encode_text(tokens), model.encode_text(tokens[:, :24]), rtol=0, atol=1e-6)
    before, after = model.state_dict(), longer.state_dict()
    assert {name for name in before if before[name].shape != after[name].shape} == {"text.position_embedding"}


def test_a_shorter_model_is_the_same_for_texts_that_fit():
    model = CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0)).eval()
    tokens = torch.randint(1, 512, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(with_context_length(model, 9).encode_text(tokens), model.encode_text(tokens))


def test_a_tower_that_reads_its_padding_keeps_its_length():
    text = CoCaTextTowerConfig(context_length=16, vocab_size=512, width=32, layers=1, heads=2)
    model = CLIP(CLIPConfig(embed_dim=24, image=preset("tiny-vit").image, text=text), torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match=r"coca text tower that reads its padding .* length of 16\. Got 20"):
        with_context_length(model, 20)
    assert with_context_length(model, 16).config == model.config
