"""Whole models of `transformers`: a `config.json` as our sizes, and the names of the tensors, both ways.

What is said of one type of model stands in the file of its `ModelLayout`; here they meet.
"""

from typing import Any

from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig
from diptych.weights.adapters import Naming
from diptych.weights.hf_align import ALIGN
from diptych.weights.hf_altclip import ALT_CLIP
from diptych.weights.hf_blip import BLIP
from diptych.weights.hf_chinese_clip import CHINESE_CLIP
from diptych.weights.hf_clip import CLIP_LAYOUT, CLIPSEG, OWL_V2, OWL_VIT, X_CLIP
from diptych.weights.hf_siglip import SIGLIP, SIGLIP2
from diptych.weights.model_layout import ModelLayout, Section, TokenIds
from diptych.weights.unopened import what_it_is

# Where several types fit a model, the first is written.
LAYOUTS = (CLIP_LAYOUT, SIGLIP, SIGLIP2, ALT_CLIP, CHINESE_CLIP, ALIGN, BLIP, CLIPSEG, OWL_VIT, OWL_V2, X_CLIP)


def layout_of(data: Section) -> ModelLayout:
    """What is known of the type of model that a `config.json` describes.

    Raises:
        ConfigError: it is no type that opens; the message says what it is and what to take.
    """
    kind = data.get("model_type")
    for layout in LAYOUTS:
        if kind in layout.model_types:
            return layout
    types = ", ".join(name for layout in LAYOUTS for name in layout.model_types)
    raise ConfigError(f"model_type must be {types} or diptych-clip. Got {kind!r}: it is {what_it_is(kind)}.")


def config_from_hf(data: Section) -> CLIPConfig:
    """Sizes from the content of a `config.json`; what it is silent about is as in the library.

    Raises:
        ConfigError: it describes a model that `CLIP` cannot be.
    """
    return layout_of(data).read(data)


def hugging_face_naming(config: CLIPConfig) -> Naming | None:
    """The table for a model of these sizes; None when `transformers` has no class for it."""
    layout = _layout_to_write(config)
    return layout and layout.naming(config)


def config_to_hf(
    config: CLIPConfig, *, start_token_id: int | None, end_token_id: int, vocab_size: int
) -> dict[str, Any]:
    """The content of a `config.json` with which `transformers` gives the same features.

    Args:
        config: a model that `hugging_face_naming` has a table for.
        start_token_id: of the tokenizer; SigLIP's has none.
        end_token_id: of the tokenizer.
        vocab_size: of the tokenizer; the model's may be larger.
    """
    layout = _layout_to_write(config)
    assert layout is not None  # or there would be no table
    assert layout.write is not None
    return layout.write(config, TokenIds(start_token_id, end_token_id, vocab_size))


def _layout_to_write(config: CLIPConfig) -> ModelLayout | None:
    return next((layout for layout in LAYOUTS if layout.fits(config)), None)
