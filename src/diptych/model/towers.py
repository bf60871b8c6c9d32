"""Every kind of tower, as two unions of configs. CONTRIBUTING.md tells what adding one takes.

A config tells all that the rest of the house asks about its tower; nobody else asks which class it is.

Of an image tower: `kind`, its name in recipes; `image_size`; `row_width`, numbers in a row of its input where pictures
come as patches that keep their shape, a row each, and 0 where they come as squares; `patches`, positions of its last
grid, or of a square picture of `image_size`; `can_drop_patches`;
`needs_whole_batch`, as batch norm does; `wants_channels_last`, the memory order of its weights; `fixed_embed_dim`, D
where it has no projection to any other; `token_width`, channels of what its `tokens_and_feature` gives beside the
feature, one row a position, and 0 where it has no such method; `has_grid`, whether it has the method `grid`, what
each position says in the space of the words.

Of a text tower: `kind`; `context_length`; `vocab_size`; `reads_padding`; `rows_are_features`, whether it adds up rows
of its token embedding, each the feature of that token; `golden_texts`, which a saved model is checked with;
`check_tokenizer`.

Of both: `has_blocks`, of the kind that can be computed a second time, compiled and shared out; `summary`, a few words;
`build`, the module; `cost`, of one sample.

A recipe may name a config from outside the package as its `kind`, "module:name" (docs/how-to/extend.md); the same facts
are asked of it, here instead of by pyright.
"""

import math

from torch import nn

from diptych.errors import ConfigError
from diptych.model.align_tower import AlignTowerConfig
from diptych.model.bag_tower import BagTowerConfig
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.coca import CoCaImageTowerConfig, CoCaTextTowerConfig
from diptych.model.convnext_tower import ConvNeXtTowerConfig
from diptych.model.efficientnet_tower import EfficientNetTowerConfig
from diptych.model.eva_tower import EvaTowerConfig
from diptych.model.fastvit_tower import FastViTTowerConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.naflex import NaFlexTowerConfig
from diptych.model.nllb_tower import NLLBTowerConfig
from diptych.model.perception_tower import PerceptionTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.sentence_tower import SentenceTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.model.swin_tower import SwinTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.model.vitamin_tower import ViTaminTowerConfig
from diptych.outside import check_has

# The first of each is what a recipe means that names no kind.
ImageConfig = (
    ImageTowerConfig
    | ResNetTowerConfig
    | SigLIPImageTowerConfig
    | EfficientNetTowerConfig
    | NaFlexTowerConfig
    | CoCaImageTowerConfig
    | ConvNeXtTowerConfig
    | FastViTTowerConfig
    | SwinTowerConfig
    | EvaTowerConfig
    | PerceptionTowerConfig
    | ViTaminTowerConfig
    | AlignTowerConfig
)
TextConfig = (
    TextTowerConfig
    | SigLIPTextTowerConfig
    | SentenceTowerConfig
    | BagTowerConfig
    | CoCaTextTowerConfig
    | BertTowerConfig
    | NLLBTowerConfig
)

_OF_BOTH = ("kind", "has_blocks", "summary", "build", "cost")
_FACTS = {
    "image": (
        "image_size",
        "row_width",
        "patches",
        "can_drop_patches",
        "needs_whole_batch",
        "wants_channels_last",
        "fixed_embed_dim",
        "token_width",
        "has_grid",
        *_OF_BOTH,
    ),
    "text": (
        "context_length",
        "vocab_size",
        "reads_padding",
        "rows_are_features",
        "golden_texts",
        "check_tokenizer",
        *_OF_BOTH,
    ),
}
_METHODS = {"image": ("trunk", "project", "forward", "reset_parameters"), "text": ("forward", "reset_parameters")}
_MORE = {
    "token_width": ("tokens_and_feature",),
    "has_grid": ("grid",),
    "rows_are_features": ("token_embedding", "token_weights"),
}  # by fact


def check_facts(config: object, tower: str) -> None:
    """Refuse a config that does not tell what the house asks of a tower.

    Args:
        config: of a tower.
        tower: "image" or "text".

    Raises:
        ConfigError: facts are missing; they are named.
    """
    check_has(config, _FACTS[tower], f"a config of {tower} towers")


def check_module(module: object, config: "ImageConfig | TextConfig", tower: str) -> None:
    """Refuse what a config built where it is no tower.

    Args:
        module: that `build` gave.
        config: of it.
        tower: "image" or "text".

    Raises:
        ConfigError: it is no torch module, or lacks something.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"`build` of {config.kind} must give a torch module. Got {type(module).__name__}.")
    further = [name for fact, names in _MORE.items() if getattr(config, fact, False) for name in names]
    check_has(module, [*_METHODS[tower], *further], f"the {tower} tower that {config.kind} builds")


def blank(module: nn.Module) -> None:
    """Fill what `reset_parameters` is to fill with NaN, so that `check_drawn` sees what its author forgot."""
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.fill_(math.nan)


def check_drawn(module: nn.Module, what: str) -> None:
    """Refuse a module some of whose parameters `reset_parameters` left as `blank` had them.

    Args:
        module: of somebody else.
        what: it is, for the message.

    Raises:
        ConfigError: one is named.
    """
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ConfigError(f"`reset_parameters` of {what} must fill all its parameters. {name} was left out.")
