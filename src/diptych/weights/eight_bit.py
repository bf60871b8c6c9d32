"""Weights as 8-bit numbers: every matrix with long rows as int8 with one factor a row, all else as float32.

A row is what makes one output channel of a layer, or one token of an embedding. Its largest weight becomes 127 or -127;
the factor lies in the file beside it, under the same name and ":scale". No name of a parameter holds a colon.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from diptych.errors import WeightsError
from diptych.weights.folder import SCALE

_LARGEST = 127
# Columns. Shorter rows, those of depthwise convolutions and of a first layer of pixels, hold few of the weights, and
# turn features the most when they are rounded.
_SHORT = 64


def to_eight_bits(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as it is stored in 8 bits: rows of 64 or more weights become int8.

    Their factors join, [rows] float32. A row's error is at most half of its factor, 1 / 254 of its largest weight.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim < 2 or tensor[0].numel() < _SHORT or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        rows = tensor.float().flatten(1)  # [rows, columns]
        scale = rows.abs().amax(dim=1) / _LARGEST  # [rows]
        steps = rows / scale.where(scale > 0, 1)[:, None]  # a row of zeros stays one
        stored[name] = steps.round().to(torch.int8).reshape(tensor.shape)
        stored[name + SCALE] = scale
    return stored


def from_eight_bits(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `to_eight_bits` made, as float32 again; a state dict of another kind comes back as it is.

    Raises:
        WeightsError: an 8-bit tensor has no factors, or not one for each row.
    """
    weights = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    for name, tensor in weights.items():
        if tensor.dtype != torch.int8:
            continue
        scale = stored.get(name + SCALE)
        if scale is None or scale.shape != tensor.shape[:1]:
            found = "none" if scale is None else list(scale.shape)
            raise WeightsError(f"{name}{SCALE} must hold one factor for each of {len(tensor)} rows. Got {found}.")
        weights[name] = tensor.float().mul_(scale.view(-1, *[1] * (tensor.ndim - 1)))
    return weights
