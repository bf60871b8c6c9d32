"""NaFlexTower: SigLIP's tower where pictures are square, the same features whatever the padding."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diptych.data.images import Preprocess
from diptych.errors import ConfigError, ShapeError
from diptych.model.blocks import KeptAttention
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.naflex import NaFlexTower, NaFlexTowerConfig
from diptych.model.resize import with_image_size
from diptych.model.siglip import SigLIPImageTower, SigLIPImageTowerConfig
from diptych.torch_runtime import generator
from tower_kinds import TEXT_KINDS, text_of

CONFIG = NaFlexTowerConfig(image_size=32, patch_size=8, width=24, layers=2, heads=2)
PREPROCESS = Preprocess(image_size=32, resize="naflex", patch_size=8)


def tower_of(config: NaFlexTowerConfig = CONFIG) -> NaFlexTower:
    tower = NaFlexTower(config)
    tower.reset_parameters(generator(0))
    return tower.eval()


def model_of(config: NaFlexTowerConfig = CONFIG) -> CLIP:
    return CLIP(CLIPConfig(embed_dim=24, image=config, text=text_of(TEXT_KINDS[0])), generator(0)).eval()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def rows_of(*sizes: tuple[int, int], length: int = 0) -> Tensor:
    preprocess = dataclasses.replace(PREPROCESS, max_patches=length)
    return torch.from_numpy(np.stack([preprocess(picture(*size, seed)) for seed, size in enumerate(sizes)]))


def padded(images: Tensor, length: int) -> Tensor:
    return torch.cat([images, images.new_zeros(len(images), length - images.shape[1], images.shape[2])], dim=1)


def test_a_square_picture_has_the_feature_of_siglips_tower_with_the_same_weights():
    flexible = tower_of()
    fixed = SigLIPImageTower(SigLIPImageTowerConfig(image_size=32, patch_size=8, width=24, layers=2, heads=2))
    state = flexible.state_dict()
    kernel = state["patch_embedding.weight"].reshape(24, 8, 8, 3).permute(0, 3, 1, 2)  # their pixels come by channel
    fixed.load_state_dict(state | {"patch_embedding.weight": kernel})
    square = Preprocess(image_size=32, resize="squash")
    pictures = [picture(40, 40, seed) for seed in range(3)]
    expected = fixed(torch.from_numpy(np.stack([square(one) for one in pictures])))
    features = flexible(torch.from_numpy(np.stack([PREPROCESS(one) for one in pictures])))
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_never_reaches_a_feature(dtype: torch.dtype):
    tower = tower_of()
    images = rows_of((40, 30), (32, 32), (20, 60))
    longer = padded(images, 25)
    noisy = longer.clone()
    noisy[..., 2:][longer[..., 0] == 0] = 1e3  # what stands in the padding is nobody's business
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        features, more, noise = tower(images), tower(longer), tower(noisy)
    bound = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(more, features, rtol=0, atol=bound)
    assert torch.equal(noise, more)
    torch.testing.assert_close(tower(images)[1:2], tower(images[1:2]), rtol=0, atol=1e-5)  # nor do its neighbours


def test_gradients_do_not_hang_on_padding():
    def gradients(images: Tensor) -> dict[str, Tensor]:
        tower = tower_of().train()
        tower(images).square().sum().backward()
        return {name: p.grad for name, p in tower.named_parameters() if p.grad is not None}

    images = rows_of((40, 30), (20, 60))
    expected, found = gradients(images), gradients(padded(images, 30))
    assert len(expected) == len(list(tower_of().parameters()))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_the_order_of_rows_is_no_matter_as_each_tells_its_place():
    tower, images = tower_of(), rows_of((40, 30))
    shuffled = images.flip(1)
    shuffled = shuffled[:, shuffled[0, :, 0].argmax() :]  # a picture has a patch in its first row
    assert not torch.equal(shuffled[:, 0], images[:, 0])
    torch.testing.assert_close(tower(shuffled), tower(images), rtol=0, atol=1e-5)


def test_positions_are_those_of_each_pictures_grid_stretched_by_itself():
    tower = tower_of(dataclasses.replace(CONFIG, position_grid=5))
    images = rows_of((40, 30), (32, 32), (20, 60), (80, 60))
    found = tower._positions(images[..., :2].long())  # pyright: ignore[reportPrivateUsage]
    grid = tower.position_embedding.T.reshape(1, 24, 5, 5)
    for image, positions in zip(images, found, strict=True):
        rows, columns = image[:, :2].amax(dim=0).int().tolist()
        stretched = F.interpolate(grid, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
        assert torch.equal(positions[: rows * columns], stretched[0].flatten(1).T)


def test_a_blank_has_a_feature_that_is_a_number():
    assert tower_of()(torch.zeros(2, 16, 194)).isfinite().all()


def test_attention_under_a_mask_is_softmax_over_what_may_be_seen():
    query, key, value = torch.randn(3, 2, 2, 5, 4, generator=generator(0), dtype=torch.float64).requires_grad_()
    mask = torch.rand(2, 1, 1, 5, generator=generator(1)) < 0.5
    mask[..., 0] = True

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = []
        for number in range(2):
            seen = mask[number, 0, 0].nonzero()[:, 0]
            logits = query[number] @ key[number][:, seen].transpose(-1, -2) / 2
            rows.append(logits.softmax(dim=-1) @ value[number][:, seen])
        return torch.stack(rows)

    fast = KeptAttention.apply(query, key, value, False, mask)
    expected = plain(query, key, value)
    torch.testing.assert_close(fast, expected)
    outer = torch.randn(expected.shape, generator=generator(2), dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(fast, (query, key, value), outer),
        torch.autograd.grad(expected, (query, key, value), outer),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("side", [3, 4, 6])
def test_the_cost_at_a_length_is_that_of_siglips_tower_for_a_square_of_as_many_patches(side: int):
    fixed = SigLIPImageTowerConfig(image_size=8 * side, patch_size=8, width=24, layers=2, heads=2)  # held to torch's
    for element in (2, 4):
        assert CONFIG.cost(24, element=element, kept_patches=side**2) == fixed.cost(24, element=element)


def test_another_size_leaves_the_weights_alone_and_lets_in_other_lengths():
    model = model_of()
    larger = with_image_size(model, 48)
    assert larger.config.image == dataclasses.replace(CONFIG, image_size=48, position_grid=4)
    assert larger.config.image.patches == 36
    assert all(torch.equal(value, larger.state_dict()[name]) for name, value in model.state_dict().items())


def test_images_of_another_form_are_refused():
    model = model_of()
    for images in (torch.zeros(2, 3, 32, 32), torch.zeros(2, 16, 100), torch.zeros(2, 16, 194).byte()):
        with pytest.raises(ShapeError, match=r"images must be \[B, N, 194\] float, a row for each patch"):
            model.encode_image(images)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 5}, r"patch_size must divide image\.image_size"),
        ({"heads": 5}, r"image\.heads must divide"),
        ({"position_grid": -1}, r"position_grid must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **wrong)


@torch.no_grad()
def test_a_grid_has_the_shape_of_its_picture_whatever_the_padding_and_is_siglips_for_a_square():
    model = model_of()
    rows = rows_of((64, 16), length=16)
    grid = model.encode_grid(rows)
    assert grid.shape == (1, 2, 8, 24)
    torch.testing.assert_close(model.encode_grid(padded(rows, 30)), grid, rtol=0, atol=1e-5)
    square = rows_of((32, 32))
    one = model.image.grid(square[:, :1])  # a picture of one patch: its grid is its feature
    torch.testing.assert_close(one[:, 0, 0], model.image(square[:, :1]), rtol=0, atol=1e-5)


def test_pictures_of_several_shapes_have_no_grid_together():
    with pytest.raises(ShapeError, match=r"one shape for one grid\. Got 2 x 8, 4 x 4"):
        model_of().encode_grid(rows_of((64, 16), (32, 32)))
