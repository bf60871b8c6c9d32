"""Another image size or context length for a trained model: its positions are stretched, nothing else changes."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import ConfigError
from diptych.model.clip import CLIP

POSITIONS = ("image.position_embedding", "image.pool.position_embedding")  # a model has one of them
_TEXT_POSITIONS = "text.position_embedding"
_KEPT = 20  # positions of texts that stay as they are: most captions that a model has seen end before


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


def with_context_length(model: CLIP, context_length: int) -> CLIP:
    """A copy of a model for texts of another length, to go on training with, as Long-CLIP was.

    Longer: the first 20 positions stay, those behind are stretched over the rest, so that texts of up to 20 tokens
    have the features that they had. Shorter: the last positions are left out, and no feature changes.
    Source: Long-CLIP, arXiv:2403.15378, section 3.2.

    Args:
        model: on any device; in train or eval mode, which the copy takes over.
        context_length: L, tokens.

    Raises:
        ConfigError: the text tower reads its padding, so that its length is part of the model; or it has no such size.
    """
    text = model.config.text
    if text.reads_padding and context_length != text.context_length:
        raise ConfigError(
            f"a {text.kind} text tower that reads its padding must keep its context length of {text.context_length}. "
            f"Got {context_length}: take a model whose text tower is causal."
        )
    resized = CLIP(dataclasses.replace(model.config, text=dataclasses.replace(text, context_length=context_length)))
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if _TEXT_POSITIONS in state and context_length != text.context_length:
        state[_TEXT_POSITIONS] = stretch_text_positions(state[_TEXT_POSITIONS], context_length)
    resized.load_state_dict(state, assign=True)
    return resized.train(model.training)


def stretch_text_positions(positions: Tensor, new: int) -> Tensor:
    """What is kept for each position of a text, for texts of another length.

    Args:
        positions: [old, W].
        new: those wanted.

    Returns:
        [new, W]. Behind the first 20 each lies on the line between its two neighbours of old, and behind the last of
        these on the line through the last two.
    """
    old = len(positions)
    if new <= old:
        return positions[:new].clone()
    kept = min(_KEPT, old - 2)
    places = torch.arange(new - kept, device=positions.device) * ((old - kept) / (new - kept))
    below = places.floor().clamp(max=old - kept - 2).long()
    share = (places - below)[:, None].to(positions.dtype)  # above 1 behind the last
    tail = positions[kept:]
    return torch.cat([positions[:kept], tail[below].lerp(tail[below + 1], share)])


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
