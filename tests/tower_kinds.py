"""One small tower of each kind there is: what a new one needs here, for the tests that go over all of them."""

import dataclasses
from typing import Any, get_args

from diptych.model.clip import CLIPConfig
from diptych.model.towers import ImageConfig, TextConfig
from diptych.train.recipe import TrainRecipe

IMAGE_KINDS, TEXT_KINDS = get_args(ImageConfig), get_args(TextConfig)
# 32 pixels, 16 tokens of 600, D is 24.
_IMAGES: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2},
    "resnet": {"width": 4, "layers": (1, 1, 1, 1), "heads": 2},
    "siglip": {"patch_size": 8, "width": 24, "layers": 2, "heads": 2},
    "efficientnet-lite": {"width": 0.5, "depth": 0.5, "final_width": 40},
}
_TEXTS: dict[str, dict[str, Any]] = {
    "clip": {"width": 24, "layers": 2, "heads": 2},
    "siglip": {"width": 24, "layers": 2, "heads": 2},
    "sentence": {"width": 24, "layers": 2, "heads": 2, "head_width": 20, "anchors": 9},
    "bag-of-words": {},
}


def kind_of(cls: Any) -> str:
    return cls.__dataclass_fields__["kind"].default


def image_of(cls: Any) -> Any:
    return cls(image_size=32, **_IMAGES[kind_of(cls)])


def text_of(cls: Any) -> Any:
    return cls(context_length=16, vocab_size=600, **_TEXTS[kind_of(cls)])


def with_model(recipe: TrainRecipe, image: Any, text: Any = None, **options: Any) -> TrainRecipe:
    """The tiny recipe with these towers, and some options of its loop changed."""
    config = CLIPConfig(embed_dim=24, image=image, text=text or text_of(TEXT_KINDS[0]))
    return dataclasses.replace(recipe, model=config, train=dataclasses.replace(recipe.train, **options))
