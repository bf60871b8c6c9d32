"""Objectives small enough for a test: their recipes, and a model with heads of random weights."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from diptych.model.bag_tower import BagTowerConfig
from diptych.model.clip import CLIP
from diptych.torch_runtime import generator
from diptych.train.learner import Learner
from diptych.train.objectives import Objective, build_heads
from diptych.train.recipe import TrainRecipe
from diptych.train.seen import Seen
from diptych.train.word_classes import WordCounts
from runs import change


class Ends(NamedTuple):
    """What a head asks of a tokenizer."""

    start_token_id: int | None = 1
    end_token_id: int = 2


def counts(vocab_size: int) -> WordCounts:
    """Of 1,000 texts; token 1 is in each, and of the others none is as frequent as another."""
    return WordCounts(1000, torch.tensor([1000, 1000, *(1 + 7 * n % 997 for n in range(2, vocab_size))]))


def learner_of(model: CLIP, objectives: Sequence[Objective], ends: Ends = Ends()) -> Learner:  # noqa: B008, frozen
    """A model with heads that were drawn, in the model's type; nothing in them is at zero."""
    heads = build_heads(objectives, model.config, ends).to_empty(device="cpu")
    for number, head in enumerate(heads.values()):
        head.reset_parameters(generator(5, number), counts(model.config.text.vocab_size))  # pyright: ignore[reportCallIssue]
        with torch.no_grad():
            for place, parameter in enumerate(head.parameters()):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(6, number, place)))
    return Learner(model, heads.to(model.logit_scale.dtype), objectives)


def seen_of(batch: int, *, width: int, tokens: torch.Tensor, **more: Any) -> Seen:
    """Random features of unit length, float64, in a model without word rows."""
    features = torch.randn(batch, width, generator=generator(7), dtype=torch.float64)
    given = {"image_tokens": None, "logit_scale": torch.tensor(9.0, dtype=torch.float64)}
    given |= {"word_rows": None, "word_weights": None} | more
    return Seen(image_features=torch.nn.functional.normalize(features, dim=1), tokens=tokens, **given)


def with_bag(recipe: TrainRecipe, *objectives: Any, **options: Any) -> TrainRecipe:
    """A recipe whose text tower is a bag of words."""
    text = BagTowerConfig(context_length=recipe.model.text.context_length, vocab_size=recipe.model.text.vocab_size)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, text=text))
    return change(recipe, objectives=objectives, **options)
