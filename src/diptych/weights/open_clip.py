"""Whole models of open_clip: an `open_clip_config.json` as our sizes, and the names of the tensors, both ways.

What is said of one kind of tower stands in the file of its `TowerLayout`; here they meet.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

from diptych.config import from_dict, unknown_name
from diptych.data.images import Preprocess
from diptych.data.tokenizer_file import Cleaning
from diptych.errors import ConfigError
from diptych.model.clip import INITIAL_SIGMOID_BIAS, CLIPConfig
from diptych.model.coca import CoCaImageTowerConfig, CoCaTextTowerConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.open_clip_bert import BERT
from diptych.weights.open_clip_coca import COCA_IMAGE, COCA_TEXT
from diptych.weights.open_clip_nllb import NLLB
from diptych.weights.open_clip_towers import RESNET, TEXT, VIT
from diptych.weights.timm_convnext import CONVNEXT
from diptych.weights.timm_eva import EVA
from diptych.weights.timm_fastvit import FASTVIT
from diptych.weights.timm_perception import PERCEPTION
from diptych.weights.timm_plain_vit import PLAIN_VIT
from diptych.weights.timm_siglip import SIGLIP_IMAGE, SIGLIP_TEXT
from diptych.weights.timm_swin import SWIN
from diptych.weights.timm_vit import TIMM_VIT
from diptych.weights.timm_vitamin import VITAMIN
from diptych.weights.tower_layout import Section, TowerLayout

_OpenClipCleaning = Literal["whitespace", "lower", "canonicalize"]

# The first that fits a section reads it. open_clip's own come last: they know what they are not.
_IMAGE_LAYOUTS = (
    *(SIGLIP_IMAGE, PLAIN_VIT, TIMM_VIT, EVA, PERCEPTION, VITAMIN, CONVNEXT, FASTVIT, SWIN),
    *(COCA_IMAGE, RESNET, VIT),
)
_TEXT_LAYOUTS = (NLLB, BERT, SIGLIP_TEXT, COCA_TEXT, TEXT)
# Whose activation model_cfg tells, one for both.
_BY_QUICK_GELU = (ImageTowerConfig, TextTowerConfig, CoCaImageTowerConfig, CoCaTextTowerConfig)

# All that open_clip 3.3 takes, whatever tower it is of.
_BOTH_KEYS = (
    *("layers", "width", "mlp_ratio", "ls_init_value", "final_ln_after_pool", "pool_type", "output_tokens"),
    *("act_kwargs", "norm_kwargs", "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads"),
    *("scale_attn_inner", "scale_attn", "scale_fc"),
)
_VISION_KEYS = (
    *_BOTH_KEYS,
    *("head_width", "patch_size", "image_size", "patch_dropout", "no_ln_pre", "pos_embed_type"),
    *("attentional_pool", "attn_pooler_queries", "attn_pooler_heads"),
    *("timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"),
    *("timm_drop", "timm_drop_path"),
)
_TEXT_KEYS = (
    *_BOTH_KEYS,
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "heads"),
    *("embed_cls", "pad_id", "eos_id", "no_causal_mask", "proj_bias", "proj_type"),
    *("hf_model_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"),
)

_HEAD_ROWS = (
    TensorRow(ours="logit_scale", theirs=("logit_scale",)),
    TensorRow(ours="logit_bias", theirs=("logit_bias",)),  # where it was trained with the sigmoid loss
)
_WITHOUT_MEANING = r"input_resolution|context_length|vocab_size|(transformer\..*)?attn_mask"  # sizes, and a constant
# What a text_cfg may say of a CLIP; whatever else it says makes a model with a module for its texts.
_PLAIN_TEXT = (
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "width", "heads", "layers"),
    *("mlp_ratio", "act_kwargs", "norm_kwargs", "pool_type", "eos_id", "no_causal_mask"),
)


def fits_open_clip(config: CLIPConfig) -> bool:
    """Whether open_clip has a class for such a model."""
    try:
        _sections(config)
    except ConfigError:
        return False
    return True


def kinds_of(config: CLIPConfig) -> str:
    """Both towers and the head in a few words, for those who refuse them."""
    layers = getattr(config.image, "layers", None)
    stages = f" of {len(layers)} stages" if isinstance(layers, tuple) else ""
    return f"{config.image.kind}{stages} and {config.text.kind} with a {config.head} head"


def naming_of(config: CLIPConfig) -> Naming:
    """The table for a model of these sizes, which `fits_open_clip`: theirs are `plain_names`."""
    image, text = _layouts(config)
    return Naming(
        rows=(*_HEAD_ROWS, *image.rows(config.image), *text.rows(config.text)),
        without_meaning="|".join((_WITHOUT_MEANING, image.without_meaning, text.without_meaning)),
    )


def naming_to_write(config: CLIPConfig) -> Naming:
    """As `naming_of`, but theirs are as open_clip's class for such a model names them, not `plain_names`."""
    naming = naming_of(config)
    if not _has_text_module(config):
        return naming
    rows = (
        dataclasses.replace(row, theirs=tuple(f"text.{name}" for name in row.theirs))
        if row.ours.startswith("text.")
        else row
        for row in naming.rows
    )
    return dataclasses.replace(naming, rows=tuple(rows))


def plain_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Without the "text." that open_clip's newer models put before the text tower's names."""
    return {re.sub(r"^text\.", "", name): tensor for name, tensor in tensors.items()}


def config_from_open_clip(model_cfg: Section) -> CLIPConfig:
    """Sizes from the `model_cfg` of an `open_clip_config.json`; what it is silent about is as there.

    Raises:
        ConfigError: it describes a model that `CLIP` cannot be.
    """
    vision, text = _section(model_cfg, "vision_cfg"), _section(model_cfg, "text_cfg")
    for name, section, known in (("vision_cfg", vision, _VISION_KEYS), ("text_cfg", text, _TEXT_KEYS)):
        for key, value in section.items():
            if key not in known and value:  # what is off is of no matter, whatever it is
                raise ConfigError(unknown_name(f"{name}.{key}", f"{name}.", known, "an option that open_clip has"))
    try:
        sizes = {
            "image": next(layout for layout in _IMAGE_LAYOUTS if layout.fits(vision)).read(vision, model_cfg),
            "text": next(layout for layout in _TEXT_LAYOUTS if layout.fits(text)).read(text, model_cfg),
        }
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"vision_cfg and text_cfg must give sizes as numbers, and one is none ({error}).") from error
    head = "softmax" if model_cfg.get("init_logit_bias") is None else "sigmoid"
    return from_dict(CLIPConfig, {"embed_dim": model_cfg.get("embed_dim"), "head": head, **sizes})


def as_named(config: CLIPConfig, names: Collection[str]) -> CLIPConfig:
    """What the config of an open_clip folder says, put right by the names of its tensors, those of `plain_names`."""
    image, text = _layouts(config)
    return dataclasses.replace(
        config, image=image.by_names(config.image, names), text=text.by_names(config.text, names)
    )


def cleaning_of(model_cfg: Section) -> Cleaning:
    """What open_clip does to a text before the tokenizer that the `model_cfg` of an `open_clip_config.json` names.

    Raises:
        ConfigError: it does what `Tokenizer` does not.
    """
    text = _section(model_cfg, "text_cfg")
    options = text.get("tokenizer_kwargs") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"text_cfg.tokenizer_kwargs must be a JSON object. Got {options!r}.")
    if text.get("tokenizer_mode"):
        raise ConfigError(f"text_cfg.tokenizer_mode must be absent. Got {text['tokenizer_mode']!r}.")
    is_own = not text.get("hf_tokenizer_name")  # CLIP's, whose rules are all in its merges
    clean = options.get("clean", "lower" if is_own else "whitespace")
    for key, value in {**options, "clean": clean}.items():
        if key == "strip_sep_token" and not is_own:
            continue  # `ends_with_padding` tells it
        known = ("lower",) if is_own else get_args(_OpenClipCleaning)
        if value not in known if key == "clean" else value:
            must = " or ".join(known) if key == "clean" else "absent"
            raise ConfigError(f"text_cfg.tokenizer_kwargs.{key} must be {must}. Got {value!r}.")
    return "file" if is_own else clean


def ends_with_padding(model_cfg: Section) -> bool:
    """Whether open_clip puts padding where the tokenizer that a `model_cfg` names puts an end token.

    `cleaning_of` must have taken the `model_cfg`.
    """
    text = _section(model_cfg, "text_cfg")
    return bool((text.get("tokenizer_kwargs") or {}).get("strip_sep_token"))


def own_padding(model_cfg: Section) -> int | None:
    """What open_clip's own tokenizer pads with, which it takes where a `model_cfg` names none; else None."""
    return None if _section(model_cfg, "text_cfg").get("hf_tokenizer_name") else 0


def config_to_open_clip(config: CLIPConfig, preprocess: Preprocess) -> dict[str, Any]:
    """The content of an `open_clip_config.json` with which `open_clip` gives the same features.

    Raises:
        ConfigError: open_clip has no such model.
    """
    vision, text = _sections(config)
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            **({"quick_gelu": True} if "quick_gelu" in _activations(config) else {}),
            **({"custom_text": True} if _has_text_module(config) else {}),
            **({"init_logit_bias": INITIAL_SIGMOID_BIAS} if config.head == "sigmoid" else {}),
            "vision_cfg": vision,
            # Any name of a tokenizer: in a local folder its own is read.
            "text_cfg": {"hf_tokenizer_name": "tokenizer.json beside this file", **text},
        },
        "preprocess_cfg": {
            "size": [preprocess.image_size, preprocess.image_size],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "resize_mode": preprocess.resize,
        },
    }


def preprocess_from_open_clip(preprocess_cfg: Section, image_size: int) -> Preprocess:
    """The picture recipe of an `open_clip_config.json`; what it is silent about is as there.

    Raises:
        ConfigError: it asks for what `Preprocess` does not do.
    """
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize"}
    recipe = {ours: preprocess_cfg[theirs] for theirs, ours in names.items() if preprocess_cfg.get(theirs)}
    return from_dict(Preprocess, {"image_size": image_size, **recipe}, where="preprocess_cfg")


def _layouts(config: CLIPConfig) -> tuple[TowerLayout, TowerLayout]:
    """Those of both towers.

    Raises:
        ConfigError: open_clip has no tower of the kind.
    """
    found = [
        next((layout for layout in layouts if layout.kind == tower.kind and layout.has(tower)), None)
        for tower, layouts in ((config.image, _IMAGE_LAYOUTS), (config.text, _TEXT_LAYOUTS))
    ]
    if None in found:
        raise ConfigError(
            f"open_clip has no such model. Got {kinds_of(config)}: save a SigLIP model as huggingface, and keep any "
            "other as a bundle."
        )
    return found[0], found[1]  # pyright: ignore[reportReturnType]  # none is None


def _sections(config: CLIPConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both, as open_clip has them.

    Raises:
        ConfigError: it has no such model.
    """
    image, text = _layouts(config)
    if "quick_gelu" in (activations := _activations(config)) and len(activations) > 1:
        raise ConfigError("open_clip has one activation for both towers. Save this model as huggingface.")
    return image.write(config.image), text.write(config.text)


def _activations(config: CLIPConfig) -> set[str]:
    return {tower.activation for tower in (config.image, config.text) if isinstance(tower, _BY_QUICK_GELU)}


def _has_text_module(config: CLIPConfig) -> bool:
    image, text = _layouts(config)
    return image.has_text_module or any(key not in _PLAIN_TEXT for key in text.write(config.text))


def _section(data: Section, name: str) -> Section:
    section = data.get(name)
    if not isinstance(section, Mapping):
        raise ConfigError(f"model_cfg.{name} must be a JSON object. Got {section!r}.")
    return section
