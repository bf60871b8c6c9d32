"""Another image size for a model that is trained: its position grid is stretched, nothing else changes."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.model.clip import CLIP


def with_image_size(model: CLIP, image_size: int) -> CLIP:
    """A copy of a model for pictures of another size, to go on training with, as CLIP's ViT-L/14@336 was.

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
    for name in ("image.position_embedding", "image.pool.position_embedding"):
        if name in state:
            state[name] = _stretched(state[name], math.isqrt(model.config.image.patches), math.isqrt(image.patches))
    resized.load_state_dict(state, assign=True)
    return resized.train(model.training)


def _stretched(positions: Tensor, old: int, new: int) -> Tensor:
    """[1 + old * old, W] to [1 + new * new, W]; for SigLIP, which has patches alone, both without the 1."""
    first, grid = positions.tensor_split([len(positions) - old * old])
    grid = grid.T.reshape(1, -1, old, old)  # [1, W, old, old]
    if old != new:
        grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([first, grid.reshape(-1, new * new).T]).contiguous()
