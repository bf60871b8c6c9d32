"""AltCLIP of `transformers`: CLIP's image tower beside XLM-R; both ways."""

from typing import Any

from diptych.config import from_dict
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.clip import CLIPConfig
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.hf_bert import ROBERTA, bert_rows, is_bert, read_bert, write_bert
from diptych.weights.hf_clip import CLIP_IMAGE, image_rows, is_clips_image
from diptych.weights.model_layout import (
    WITHOUT_MEANING,
    ModelLayout,
    Section,
    TokenIds,
    read_tower,
    section,
    vision_section,
    write_tower,
)

# What its text_config is silent about: XLM-R large.
_LARGE = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    **ROBERTA,
}


def _read(data: Section) -> CLIPConfig:
    text = {**_LARGE, "project_dim": 768, **section(data, "text_config")}
    head = {"places": "words", "pool": "first", "head": "normed", "head_width": text["project_dim"]}
    sizes = {"image": read_tower(vision_section(data), CLIP_IMAGE), "text": read_bert(text, **head)}
    return from_dict(CLIPConfig, {"embed_dim": data.get("projection_dim", 768), **sizes})


def _naming(config: CLIPConfig) -> Naming:
    assert isinstance(config.text, BertTowerConfig)
    return Naming(
        rows=(
            TensorRow(ours="logit_scale", theirs=("logit_scale",)),
            *image_rows(),
            *bert_rows(config.text, "text_model.roberta."),
            TensorRow(ours="text.head.ln.{}", theirs=("text_model.pre_LN.{}",)),
            TensorRow(ours="text.head.up.{}", theirs=("text_model.transformation.{}",)),
            TensorRow(ours="text.head.projection.weight", theirs=("text_projection.weight",)),
        ),
        without_meaning=WITHOUT_MEANING,
        left_out=r"text_model\.roberta\.pooler\..*",
    )


def _fits(config: CLIPConfig) -> bool:
    options = {"places": "words", "pool": "first", "head": "normed", "token_types": 1}
    return is_clips_image(config) and is_bert(config, **options) and config.head == "softmax"


def _write(config: CLIPConfig, tokens: TokenIds) -> dict[str, Any]:
    assert isinstance(config.text, BertTowerConfig)  # it fits
    return {
        "model_type": "altclip",
        "architectures": ["AltCLIPModel"],
        "projection_dim": config.embed_dim,
        "text_config": {
            "model_type": "altclip_text_model",
            **write_bert(config.text),
            "project_dim": config.text.head_width,
            "bos_token_id": tokens.start,
            "eos_token_id": tokens.end,
        },
        "vision_config": {
            "model_type": "altclip_vision_model",
            **write_tower(config.image, CLIP_IMAGE),
            "projection_dim": config.embed_dim,
        },
    }


ALT_CLIP = ModelLayout(
    model_types=("altclip",),
    read=_read,
    naming=_naming,
    fits=_fits,
    write=_write,
    # Version 5 of the library has one word for the layers of both towers, in files the other one than in memory.
    spellings=(
        (r"^vision_model\.encoder\.layer\.", "vision_model.encoder.layers."),
        (r"^text_model\.roberta\.encoder\.layers\.", "text_model.roberta.encoder.layer."),
    ),
)
