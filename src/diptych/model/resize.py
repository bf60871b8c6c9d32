"""Another image size for a model that is trained: its position grid is stretched, nothing else changes."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.model.clip import CLIP

POSITIONS = ("image.position_embedding", "image.pool.position_embedding")  # a model has one of them


def with_image_size(model: CLIP, image_size: int) -> CLIP:
    """A copy of a model for pictures of another size, to go on training with, as CLIP's ViT-L/14@336 was.

    A NaFlex tower stretches its positions itself, whatever the size: they stay as they are.

    The learned positions are resized as a picture would be, bicubic; the one of the class token, or of the mean in
    a ResNet's attention pool, stays. The paper does not state its method (CLIP, arXiv:2103.00020, section 3.2).

    Args:
        model: on any device; in train or eval mode, which the copy takes over.
        image_size: S, pixels of one side.

    Raises:
        ConfigError: the tower cannot take this size.
    """
    image = dataclasses.replace(model.config.image, image_size=image_size)
    resized = CLIP(dataclasses.replace(model.config, image=image))
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name in POSITIONS:
        if name in state and not image.row_width:
            state[name] = stretch_positions(state[name], model.config.image.patches, image.patches)
    resized.load_state_dict(state, assign=True)
    return resized.train(model.training)


def stretch_positions(positions: Tensor, old: int, new: int, *, mode: str = "bicubic") -> Tensor:
    """What is kept for each position of a square grid, as if it were a picture of another size.

    Args:
        positions: [1 + old, W], or for SigLIP, which has patches alone, [old, W]; what comes before the grid stays.
        old: positions of the grid, a square.
        new: those wanted.
        mode: "bicubic"; or "bilinear", which leaves numbers that are not negative so.

    Returns:
        [1 + new, W], or [new, W].
    """
    first, grid = positions.tensor_split([len(positions) - old])
    side, wanted = math.isqrt(old), math.isqrt(new)
    grid = grid.T.reshape(1, -1, side, side)  # [1, W, side, side]
    if old != new:
        grid = F.interpolate(grid, (wanted, wanted), mode=mode, align_corners=False, antialias=True)
    return torch.cat([first, grid.reshape(-1, new).T]).contiguous()
