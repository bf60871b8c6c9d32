"""One small tower of each kind there is: what a new one needs here, for the tests that go over all of them."""

import dataclasses
from typing import Any, get_args

import torch
from torch import Tensor

from diptych.data.images import Preprocess
from diptych.model.clip import CLIPConfig
from diptych.model.towers import ImageConfig, TextConfig
from diptych.train.recipe import TrainRecipe

IMAGE_KINDS, TEXT_KINDS = get_args(ImageConfig), get_args(TextConfig)
# 32 pixels, 16 tokens of 600, D is 24.
_IMAGES: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2},
    "resnet": {"width": 4, "layers": (1, 1, 1, 1), "heads": 2},
    "siglip": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2},
    "naflex": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2},
    "coca": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2, "queries": 4, "pool_heads": 2},
    "convnext": {"widths": (8, 16, 24, 32), "layers": (1, 1, 2, 1)},
    "fastvit": {"widths": (8, 16, 32), "layers": (1, 1, 1), "squeezed_stages": 1},
    "swin": {"width": 8, "layers": (1, 2, 1), "heads": (1, 2, 4), "window": 2},
    "eva": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2},
    "perception": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2, "pool_heads": 3},
    "vitamin": {"stem_width": 4, "stage_layers": (1, 2), "width": 24, "layers": 2, "heads": 2},
    "align": {"width": 0.075, "depth": 0.5},
    "efficientnet-lite": {"width": 0.5, "depth": 0.5, "final_width": 40},
}
_TEXTS: dict[str, dict[str, Any]] = {
    "clip": {"width": 24, "layers": 2, "heads": 2},
    "siglip": {"width": 24, "layers": 2, "heads": 2},
    "sentence": {"width": 24, "layers": 2, "heads": 2, "head_width": 20, "anchors": 9},
    "bag-of-words": {},
    "coca": {"width": 24, "layers": 2, "heads": 2},
    "nllb": {"pad_token_id": 0, "width": 24, "layers": 2, "heads": 2, "head": "mlp", "head_width": 20},
    "bert": {"width": 24, "layers": 2, "heads": 2, "pool": "mean", "head": "mlp", "head_width": 20},
}


def kind_of(cls: Any) -> str:
    return cls.__dataclass_fields__["kind"].default


def image_of(cls: Any) -> Any:
    return cls(image_size=32, **_IMAGES[kind_of(cls)])


def text_of(cls: Any) -> Any:
    return cls(context_length=16, vocab_size=600, **_TEXTS[kind_of(cls)])


def preprocess_of(config: Any) -> Preprocess:
    if not config.row_width:
        return Preprocess(image_size=32)
    return Preprocess(image_size=32, resize="naflex", patch_size=config.patch_size)


def images_for(config: Any, count: int, generator: torch.Generator) -> Tensor:
    """Pictures of random numbers, as `normalise` would give them."""
    if not config.row_width:
        return torch.rand(count, 3, 32, 32, generator=generator)
    rows = torch.rand(count, config.patches, config.row_width, generator=generator)
    side = 32 // config.patch_size
    rows[..., :2] = 1 + torch.cartesian_prod(torch.arange(side), torch.arange(side))
    return rows


def with_model(recipe: TrainRecipe, image: Any, text: Any = None, **options: Any) -> TrainRecipe:
    """The tiny recipe with these towers, and some options of its loop changed."""
    config = CLIPConfig(embed_dim=24, image=image, text=text or text_of(TEXT_KINDS[0]))
    train, preprocess = dataclasses.replace(recipe.train, **options), preprocess_of(image)
    return dataclasses.replace(recipe, model=config, train=train, preprocess=preprocess)
