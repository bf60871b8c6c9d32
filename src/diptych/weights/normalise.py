"""The last step from pictures to what a tower takes, where the tower is."""

import torch
from torch import Tensor

from diptych.data.images import Preprocess
from diptych.data.patch_rows import PLACE
from diptych.errors import ShapeError


def normalise(preprocess: Preprocess, batch: Tensor) -> Tensor:
    """Pixels of a batch as numbers, on the device that they are on; `Preprocess.__call__` does so for one picture.

    Args:
        preprocess: of the model.
        batch: [B, S, S, 3] uint8, stacked `Preprocess.pixels`; or [B, N, 2 + p * p * 3], of any N.

    Returns:
        [B, 3, S, S] float32, (batch / 255 - mean) / std; or [B, N, 2 + p * p * 3], whose places stay as they are.

    Raises:
        ShapeError: the batch is neither, or not uint8.
    """
    scale, shift = (torch.from_numpy(values).to(batch.device) for values in preprocess.scale_and_shift)
    if preprocess.patch_size:
        if batch.dtype != torch.uint8 or batch.ndim != 3 or batch.shape[2] != preprocess.row_width:
            expected = f"[B, N, {preprocess.row_width}] uint8"
            raise ShapeError(f"batch must be {expected}. Got {list(batch.shape)} {batch.dtype}.")
        rows, pixels = batch.float(), preprocess.patch_size**2
        rows[..., PLACE:].mul_(scale.repeat(pixels)).sub_(shift.repeat(pixels))
        return rows
    side = preprocess.image_size
    if batch.dtype != torch.uint8 or batch.shape[1:] != (side, side, 3):
        raise ShapeError(f"batch must be [B, {side}, {side}, 3] uint8. Got {list(batch.shape)} {batch.dtype}.")
    channels_first = batch.permute(0, 3, 1, 2).contiguous()  # [B, 3, S, S]; cheaper to turn as bytes
    return channels_first.float().mul_(scale.view(3, 1, 1)).sub_(shift.view(3, 1, 1))
