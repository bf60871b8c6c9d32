"""Rotary positions of patches: queries and keys are turned by row and column, so that their product tells distance.

Source: RoFormer, arXiv:2104.09864, section 3.2; in two dimensions, as EVA-02, arXiv:2303.11331, section 2.1.
Letters: B, H, L, P, E = W / H.
"""

import torch
from torch import Tensor

from diptych.errors import ConfigError

_BASE = 10_000.0  # of the wavelengths, which grow from 2 pi places by this factor


def rotation_of(
    side: int, head_width: int, *, grid: int, first: int, columns_first: bool, device: torch.device
) -> Tensor:
    """By which angles the patches of a square picture are turned.

    Args:
        side: patches of one side, P = side^2.
        head_width: E, a multiple of 4: one half of it is turned by the row, one by the column.
        grid: patches of one side that a picture counts as, whatever it has: places are scaled to it.
        first: the number of the first row and of the first column.
        columns_first: whether it is the first half of E that is turned by the column.
        device: where the angles are wanted.

    Returns:
        [P, 2, E / 2] float32, cosine and sine of a patch's angles.
    """
    bands = torch.arange(head_width // 4, device=device, dtype=torch.float32) / (head_width // 4)
    places = (torch.arange(side, device=device, dtype=torch.float32) + first) / side * grid
    angles = places[:, None] / _BASE**bands  # [side, E / 4]
    rows, columns = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
    both = torch.cat([columns, rows] if columns_first else [rows, columns], dim=-1).flatten(0, 1)  # [P, E / 2]
    return torch.stack([both.cos(), both.sin()], dim=1)


def rotation_of_kept(rotation: Tensor, kept: Tensor | None) -> Tensor:
    """Of some patches of each picture: [P, 2, E / 2] and [B, K] int64 to [B, K, 2, E / 2]; all when not given."""
    return rotation if kept is None else rotation[kept]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Queries and keys, each pair of channels turned by its angle.

    Args:
        x: [B, L, 2, H, E]; what comes before the last P positions, such as a class token, is left as it is.
        rotation: [P, 2, E / 2], see `rotation_of`, or [B, P, 2, E / 2].

    Returns:
        [B, L, 2, H, E], of the type of x.
    """
    before = x.shape[1] - rotation.shape[-3]
    cosine, sine = rotation[..., None, None, :].unbind(-4)  # [..., P, 1, 1, E / 2] each
    even, odd = x[:, before:, ..., 0::2], x[:, before:, ..., 1::2]
    turned = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1).flatten(-2).to(x.dtype)
    return torch.cat([x[:, :before], turned], dim=1) if before else turned


def check_rotary(head_width: int, grid: int) -> None:
    """Refuse sizes that no picture is rotated with.

    Raises:
        ConfigError: a grid below 1, or channels of a head that are not halves of pairs.
    """
    if grid < 1:
        raise ConfigError(f"image.rotary_grid must be at least 1. Got {grid}.")
    if head_width % 4:
        raise ConfigError(
            "image.width / image.heads must be a multiple of 4: pairs of channels are turned by row, and as many by "
            f"column. Got {head_width}."
        )
