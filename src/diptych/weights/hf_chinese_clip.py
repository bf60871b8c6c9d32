"""Chinese-CLIP of `transformers`: CLIP's image tower beside a Chinese BERT; both ways."""

from typing import Any

from diptych.config import from_dict
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.clip import CLIPConfig
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.hf_bert import bert_rows, is_bert, read_bert, write_bert
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


def _read(data: Section) -> CLIPConfig:
    sizes = {
        "image": read_tower(vision_section(data), CLIP_IMAGE),
        "text": read_bert(section(data, "text_config"), pool="first", head="linear"),
    }
    return from_dict(CLIPConfig, {"embed_dim": data.get("projection_dim", 512), **sizes})


def _naming(config: CLIPConfig) -> Naming:
    assert isinstance(config.text, BertTowerConfig)
    return Naming(
        rows=(
            TensorRow(ours="logit_scale", theirs=("logit_scale",)),
            *image_rows(),
            *bert_rows(config.text, "text_model."),
            TensorRow(ours="text.head.projection.weight", theirs=("text_projection.weight",)),
        ),
        without_meaning=WITHOUT_MEANING,
        left_out=r"text_model\.pooler\..*",
    )


def _fits(config: CLIPConfig) -> bool:
    options = {"places": "index", "pool": "first", "head": "linear", "head_bias": False, "token_types": 2}
    return is_clips_image(config) and is_bert(config, **options) and config.head == "softmax"


def _write(config: CLIPConfig, tokens: TokenIds) -> dict[str, Any]:
    assert isinstance(config.text, BertTowerConfig)  # it fits
    return {
        "model_type": "chinese_clip",
        "architectures": ["ChineseCLIPModel"],
        "projection_dim": config.embed_dim,
        "text_config": {
            "model_type": "chinese_clip_text_model",
            **write_bert(config.text),
            "bos_token_id": tokens.start,
            "eos_token_id": tokens.end,
        },
        "vision_config": {
            "model_type": "chinese_clip_vision_model",
            **write_tower(config.image, CLIP_IMAGE),
            "projection_dim": config.embed_dim,
        },
    }


CHINESE_CLIP = ModelLayout(model_types=("chinese_clip",), read=_read, naming=_naming, fits=_fits, write=_write)
