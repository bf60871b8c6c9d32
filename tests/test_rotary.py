"""Rotary positions: angles by hand, turning held to complex numbers, products that tell distance alone."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.model.rotary import check_rotary, rotate, rotation_of, rotation_of_kept
from diptych.torch_runtime import generator

CPU = torch.device("cpu")


def angles(rotation: Tensor) -> Tensor:
    cosine, sine = rotation.unbind(-2)
    return torch.atan2(sine, cosine)


def near(found: Tensor, expected: list[Any]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_patches_are_turned_by_row_and_then_by_column_line_by_line():
    found = angles(rotation_of(2, 4, grid=2, first=0, columns_first=False, device=CPU))
    near(found, [[0, 0], [0, 1], [1, 0], [1, 1]])
    found = angles(rotation_of(2, 4, grid=2, first=0, columns_first=True, device=CPU))
    near(found, [[0, 0], [1, 0], [0, 1], [1, 1]])


def test_places_are_counted_from_the_first_and_scaled_to_the_grid():
    found = angles(rotation_of(2, 4, grid=1, first=1, columns_first=False, device=CPU))
    near(found, [[0.5, 0.5], [0.5, 1], [1, 0.5], [1, 1]])


def test_wavelengths_grow_within_each_half():
    found = angles(rotation_of(2, 8, grid=2, first=0, columns_first=False, device=CPU))
    near(found[1:3], [[0, 0, 1, 0.01], [1, 0.01, 0, 0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pairs_of_channels_are_turned_as_complex_numbers_and_what_comes_before_is_left(dtype: torch.dtype):
    rotation = rotation_of(3, 8, grid=5, first=1, columns_first=True, device=CPU)
    x = torch.randn(2, 10, 2, 3, 8, generator=generator(0)).to(dtype)  # one position before nine patches
    found = rotate(x, rotation)
    numbers = torch.view_as_complex(x[:, 1:].double().unflatten(-1, (4, 2)))  # [B, P, 2, H, E / 2]
    turns = torch.complex(*rotation.double().unbind(-2))[None, :, None, None]
    expected = torch.view_as_real(numbers * turns).flatten(-2)
    assert found.dtype == dtype
    assert torch.equal(found[:, :1], x[:, :1])
    torch.testing.assert_close(found[:, 1:].double(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.02)


def test_products_of_the_rotated_tell_distance_alone():
    query_key = torch.randn(1, 1, 2, 1, 8, generator=generator(0)).expand(1, 16, 2, 1, 8)
    for columns_first in (False, True):
        rotation = rotation_of(4, 8, grid=4, first=0, columns_first=columns_first, device=CPU)
        query, key = rotate(query_key, rotation)[0, :, :, 0].unbind(1)  # [P, E] each
        products = (query @ key.T).unflatten(0, (4, 4)).unflatten(-1, (4, 4))  # by row and column of both
        torch.testing.assert_close(products[:3, :3, :3, :3], products[1:, 1:, 1:, 1:], rtol=0, atol=1e-5)
        assert not torch.allclose(products[0, 0, 0, 1], products[0, 0, 1, 0], atol=1e-3)  # right is not below


def test_kept_patches_keep_their_angles():
    rotation = rotation_of(3, 8, grid=3, first=0, columns_first=False, device=CPU)
    kept = torch.tensor([[8, 0], [4, 5]])
    x = torch.randn(2, 9, 2, 3, 8, generator=generator(0))
    whole = rotate(x, rotation)
    rows = torch.arange(2)[:, None]
    assert torch.equal(rotate(x[rows, kept], rotation_of_kept(rotation, kept)), whole[rows, kept])
    assert rotation_of_kept(rotation, None) is rotation


def test_angles_beyond_the_first_turn_are_those_of_the_place():
    rotation = rotation_of(32, 64, grid=32, first=1, columns_first=True, device=CPU)
    assert rotation[-1, 0, 0].item() == pytest.approx(math.cos(32), abs=1e-6)
    assert rotation[-1, 1, 15].item() == pytest.approx(math.sin(32 / 10_000 ** (15 / 16)), abs=1e-6)


def test_what_cannot_be_rotated_is_refused():
    check_rotary(8, 1)
    with pytest.raises(ConfigError, match=r"image\.rotary_grid must be at least 1\. Got 0\."):
        check_rotary(8, 0)
    with pytest.raises(ConfigError, match=r"image\.width / image\.heads must be a multiple of 4.*Got 6\."):
        check_rotary(6, 4)
