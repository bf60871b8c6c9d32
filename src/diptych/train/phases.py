"""Runs whose first steps see smaller pictures and shorter texts: which step has which sizes, and what changes hands.

Sources: short sequences first, CLIPA, arXiv:2305.07017; a last stretch at a higher resolution, as CLIP's ViT-L/14@336
had, arXiv:2103.00020, section 2.5.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from diptych.model.resize import POSITIONS, stretch_positions
from diptych.pairs.lengths import pairs_at
from diptych.train.checkpoint import Checkpoint
from diptych.train.int8 import decoded, encoded
from diptych.train.recipe import TrainRecipe


class Stage(NamedTuple):
    """Some steps of a run, of one size."""

    start: int  # updates done before
    stop: int  # updates done after
    image_size: int  # px
    context_length: int  # tokens


def stages(recipe: TrainRecipe) -> list[Stage]:
    """All steps of a run: its phases, then the model's own sizes."""
    own = recipe.model.image.image_size, recipe.model.text.context_length
    sizes = [(phase.image_size, phase.context_length or own[1]) for phase in recipe.train.phases]
    ends = [*itertools.accumulate(phase.steps for phase in recipe.train.phases), recipe.train.steps]
    return [Stage(*pair, *size) for pair, size in zip(itertools.pairwise([0, *ends]), [*sizes, own], strict=True)]


def stage_at(recipe: TrainRecipe, step: int) -> Stage:
    """The stage of the next update.

    Args:
        recipe: of the run.
        step: updates done; of a run that has ended, all.
    """
    found = stages(recipe)
    return next((stage for stage in found if step < stage.stop), found[-1])


def recipe_at(recipe: TrainRecipe, stage: Stage) -> TrainRecipe:
    """The recipe of a run that has the sizes of one stage from first to last."""
    image = dataclasses.replace(recipe.model.image, image_size=stage.image_size)
    text = dataclasses.replace(recipe.model.text, context_length=stage.context_length)
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, image=image, text=text),
        preprocess=dataclasses.replace(recipe.preprocess, image_size=stage.image_size),
        train=dataclasses.replace(recipe.train, phases=()),
    )


def recipes_by_length(recipe: TrainRecipe) -> list[TrainRecipe]:
    """A recipe for each sequence length that a run draws, as it is for that length's batches; itself where none is."""
    lengths, train = recipe.data.sequence_lengths, recipe.train
    return [
        dataclasses.replace(
            recipe,
            data=dataclasses.replace(recipe.data, sequence_lengths=(length,)),
            train=dataclasses.replace(train, batch_size=pairs_at(length, lengths=lengths, batch_size=train.batch_size)),
        )
        for length in lengths
    ] or [recipe]


def fitted(saved: Checkpoint, image_size: int) -> Checkpoint:
    """A run's state for pictures of another size: learned positions are stretched, and all that is kept of each.

    The optimizer's moments are stretched linearly, so that the second stays positive.

    Args:
        saved: at any size.
        image_size: S, pixels of one side.
    """
    old = saved.bundle.model.config.image
    if old.image_size == image_size:
        return saved
    grids = old.patches, dataclasses.replace(old, image_size=image_size).patches
    average, optimizer = dict(saved.average), dict(saved.optimizer)
    for name in POSITIONS:
        if name in average:
            average[name] = stretch_positions(average[name], *grids)
        if f"{name}.exp_avg" in optimizer:
            optimizer |= _stretched_moments(optimizer, name, grids, saved.step)
    bundle = saved.bundle.with_image_size(image_size)
    return dataclasses.replace(saved, bundle=bundle, average=average, optimizer=optimizer)


def _stretched_moments(
    optimizer: Mapping[str, Tensor], name: str, grids: tuple[int, int], step: int
) -> dict[str, Tensor]:
    stretched = {}
    for key in (f"{name}.exp_avg", f"{name}.exp_avg_sq"):
        value, scales = optimizer[key], optimizer.get(f"{key}_scale")
        numbers = value.float() if scales is None else decoded(value, scales)
        numbers = stretch_positions(numbers, *grids, mode="bilinear")
        if scales is None:
            stretched[key] = numbers.to(value.dtype)
        else:
            chance = torch.Generator(numbers.device).manual_seed(step)
            signed = value.dtype == torch.int8
            stretched[key], stretched[f"{key}_scale"] = encoded(numbers, signed=signed, chance=chance)
    return stretched
