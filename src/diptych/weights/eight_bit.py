"""Weights as 8-bit numbers: every matrix with long rows as int8 with one factor a row, all else as float32.

A row is what makes one output channel of a layer, or one token of an embedding. Its largest weight becomes 127 or -127;
the factor lies in the file beside it, under the same name and ":scale". No name of a parameter holds a colon.

The table that tokens are looked up in may have 4 bits instead, two numbers a byte, as it is large and its errors add up
least: each of its rows is needed by a few texts alone. There 32 columns share a factor.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from diptych.errors import WeightsError
from diptych.weights.folder import SCALE, TABLE_GROUP

TableBits = Literal[8, 4]

_LARGEST = 127
# Columns. Shorter rows, those of depthwise convolutions and of a first layer of pixels, hold few of the weights, and
# turn features the most when they are rounded.
_SHORT = 64
_TABLE = "token_embedding.weight"  # ends the name of the table in which a text tower looks its tokens up


def to_eight_bits(weights: Mapping[str, Tensor], *, table_bits: TableBits = 8) -> dict[str, Tensor]:
    """A state dict as it is stored in 8 bits: rows of 64 or more weights become int8.

    Their factors join, [rows] float32. A row's error is at most half of its factor, 1 / 254 of its largest weight.

    Args:
        weights: the state dict.
        table_bits: of the table of tokens; 4 where its width is a multiple of 32 and its weights are not out of all
            proportion; else 8 all the same.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim < 2 or tensor[0].numel() < _SHORT or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        rows = tensor.float().flatten(1)  # [rows, columns]
        if table_bits == 4 and name.endswith(_TABLE) and _fits_four_bits(rows):
            stored[name], stored[name + SCALE] = _to_four_bits(rows)
            continue
        scale = rows.abs().amax(dim=1) / _LARGEST  # [rows]
        steps = rows / scale.where(scale > 0, 1)[:, None]  # a row of zeros stays one
        stored[name] = steps.round().to(torch.int8).reshape(tensor.shape)
        stored[name + SCALE] = scale
    return stored


def from_eight_bits(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `to_eight_bits` made, as float32 again; a state dict of another kind comes back as it is.

    Raises:
        WeightsError: an 8-bit tensor has no factors, or not one for each row; or one of 4 bits not one for 32 columns.
    """
    weights = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    for name, tensor in weights.items():
        scale = stored.get(name + SCALE)
        if tensor.dtype == torch.int8:
            _check_factors(name, scale, tensor.shape[:1], f"one factor for each of {len(tensor)} rows")
            assert scale is not None
            weights[name] = tensor.float().mul_(scale.view(-1, *[1] * (tensor.ndim - 1)))
        elif tensor.dtype == torch.uint8 and tensor.ndim == 2 and scale is not None:
            groups = torch.Size((len(tensor), 2 * tensor.shape[1] // TABLE_GROUP))
            _check_factors(name, scale, groups, f"{groups[1]} factors for each of {len(tensor)} rows")
            steps = torch.cat([tensor & 15, tensor >> 4], dim=1).float() - 8  # [rows, columns]
            weights[name] = (steps.view(*groups, -1) * scale.float()[:, :, None]).flatten(1)
    return weights


def _check_factors(name: str, scale: Tensor | None, shape: torch.Size, must: str) -> None:
    if scale is None or scale.shape != shape:
        found = "none" if scale is None else list(scale.shape)
        raise WeightsError(f"{name}{SCALE} must hold {must}. Got {found}.")


def _fits_four_bits(rows: Tensor) -> bool:
    """Whether 32 columns can share a factor, and float16 holds the factors."""
    return rows.shape[1] % TABLE_GROUP == 0 and 1e-3 < rows.abs().max().item() < 1e5


def _to_four_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Steps from -8 to 7 of 32 columns each, by the factor that loses least in squares.

    Returns:
        [rows, columns / 2] uint8, whose low halves are the first columns, 8 added; [rows, columns / 32] float16.
    """
    groups = rows.view(len(rows), -1, TABLE_GROUP)
    largest = groups.abs().amax(dim=2)
    best = torch.full_like(largest, torch.inf)
    steps, scale = torch.zeros_like(groups), torch.zeros_like(largest)
    for share in torch.linspace(0.6, 1.1, 21):  # of what the largest asks for: the few that are cut count less
        tried = (largest / 7 * share).half().float()
        rounded = (groups / tried.where(tried > 0, 1)[:, :, None]).round().clamp(-8, 7)
        loss = (rounded * tried[:, :, None] - groups).square().sum(dim=2)
        better = loss < best
        best = loss.where(better, best)
        scale = tried.where(better, scale)
        steps = rounded.where(better[:, :, None], steps)
    low, high = (steps.flatten(1) + 8).to(torch.uint8).chunk(2, dim=1)
    return low | high << 4, scale.half()
