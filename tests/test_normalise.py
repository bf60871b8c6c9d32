import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data.images import Preprocess
from diptych.errors import ShapeError
from diptych.weights.normalise import normalise

FLEXIBLE = Preprocess(image_size=32, resize="naflex", patch_size=8)


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_normalise_is_worked_by_hand():
    preprocess = Preprocess(image_size=1, mean=(0.5, 0.0, 1.0), std=(0.5, 2.0, 0.25))
    batch = torch.tensor([[[[255, 0, 51]]], [[[0, 255, 255]]]], dtype=torch.uint8)  # [2, 1, 1, 3]
    expected = torch.tensor([[1.0, 0.0, -3.2], [-1.0, 0.5, 0.0]]).view(2, 3, 1, 1)
    torch.testing.assert_close(normalise(preprocess, batch), expected)


def test_patches_are_normalised_by_channel_and_keep_their_places():
    preprocess = Preprocess(image_size=2, resize="naflex", patch_size=2, mean=(0.5, 0.0, 1.0), std=(0.5, 2.0, 0.25))
    row = [1, 7, *[255, 0, 51] * 2, *[0, 255, 255] * 2]  # its place, then four pixels of R, G, B
    expected = torch.tensor([[[1, 7, *[1.0, 0.0, -3.2] * 2, *[-1.0, 0.5, 0.0] * 2]]])
    torch.testing.assert_close(normalise(preprocess, torch.tensor([[row]], dtype=torch.uint8)), expected)


@pytest.mark.parametrize(
    "preprocess",
    [Preprocess(image_size=16), Preprocess(image_size=16, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1)), FLEXIBLE],
)
def test_one_picture_is_normalised_as_in_a_batch_to_the_last_digit(preprocess):
    images = [noise(20, 30, seed) for seed in range(3)]
    batch = normalise(preprocess, torch.from_numpy(np.stack([preprocess.pixels(image) for image in images])))
    each = [preprocess(image) for image in images]
    torch.testing.assert_close(batch.numpy(), np.stack(each), rtol=0, atol=0)
    assert batch.is_contiguous()
    assert all(one.flags.c_contiguous for one in each)
    assert batch.dtype == torch.float32
    assert {one.dtype for one in each} == {np.dtype(np.float32)}


def test_normalise_leaves_the_pixels_as_they_were():
    for preprocess in (Preprocess(image_size=4), FLEXIBLE):
        pixels = torch.from_numpy(preprocess.pixels(noise(9, 7, 0))[None])
        before = pixels.clone()
        normalise(preprocess, pixels)
        assert torch.equal(pixels, before)


def test_normalise_refuses_another_shape_or_type():
    preprocess = Preprocess(image_size=4)
    with pytest.raises(ShapeError, match=r"\[B, 4, 4, 3\] uint8. Got \[2, 3, 4, 4\] torch.uint8"):
        normalise(preprocess, torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="float32"):
        normalise(preprocess, torch.zeros(2, 4, 4, 3))
    with pytest.raises(ShapeError, match=r"\[B, N, 194\] uint8"):
        normalise(FLEXIBLE, torch.zeros(2, 16, 190, dtype=torch.uint8))
