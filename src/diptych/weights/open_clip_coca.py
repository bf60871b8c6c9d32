"""CoCa's contrastive towers as open_clip has them: a pool of queries, and a class token behind the text.

A whole CoCa has a decoder for captions, too, whose tensors begin with `text_decoder.`: no feature needs them.
"""

from typing import Any

from diptych.errors import ConfigError
from diptych.model.coca import CoCaImageTowerConfig, CoCaTextTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.open_clip_towers import (
    TEXT_MUST,
    TEXT_ROWS,
    VISION_MUST,
    VIT_ROWS,
    block_options,
    own_tokenizer,
    sizes_of_vit,
    written_options,
    written_vit,
)
from diptych.weights.tower_layout import Section, TowerLayout, check_says

DECODER = r"text_decoder\..*"

_IMAGE_ROWS = (
    TensorRow(ours="image.pool.queries", theirs=("visual.attn_pool.query",)),
    TensorRow(ours="image.pool.ln_query.{}", theirs=("visual.attn_pool.ln_q.{}",)),
    TensorRow(ours="image.pool.ln_position.{}", theirs=("visual.attn_pool.ln_k.{}",)),
    TensorRow(ours="image.pool.query.weight", theirs=("visual.attn_pool.attn.q_proj_weight",)),
    TensorRow(
        ours="image.pool.key_value.weight",
        theirs=("visual.attn_pool.attn.k_proj_weight", "visual.attn_pool.attn.v_proj_weight"),
    ),
    TensorRow(ours="image.pool.bias", theirs=("visual.attn_pool.attn.in_proj_bias",)),
    TensorRow(ours="image.pool.out_projection.{}", theirs=("visual.attn_pool.attn.out_proj.{}",)),
    *VIT_ROWS,
)
_TEXT_ROWS = (
    TensorRow(ours="text.class_embedding", theirs=("cls_emb",)),
    TensorRow(ours="text.projection", theirs=("text_projection",)),
    *TEXT_ROWS,
)


def _read_image(vision: Section, model_cfg: Section) -> dict[str, Any]:
    must = VISION_MUST | {"attentional_pool": True, "pool_type": "tok", "no_ln_pre": False}
    check_says("vision_cfg", vision, must, {})
    sizes = sizes_of_vit(vision, model_cfg)
    if sizes["width"] == model_cfg.get("embed_dim"):  # torch then names the tensors of its attention otherwise
        raise ConfigError(
            "vision_cfg.width must differ from embed_dim where it has attentional_pool. "
            f"Got {sizes['width']} for both: a tower that diptych does not have."
        )
    return {
        "kind": "coca",
        **sizes,
        "queries": vision.get("attn_pooler_queries", 256),
        "pool_heads": vision.get("attn_pooler_heads", 8),
    }


def _write_image(config: CoCaImageTowerConfig) -> dict[str, Any]:
    return {
        **written_vit(config),
        "attentional_pool": True,
        "attn_pooler_queries": config.queries,
        "attn_pooler_heads": config.pool_heads,
    }


def _read_text(text: Section, model_cfg: Section) -> dict[str, Any]:
    check_says("text_cfg", text, TEXT_MUST | {"embed_cls": True, "no_causal_mask": False}, {})
    width = text.get("width", 512)
    return {
        "kind": "coca",
        "context_length": text.get("context_length", 77),
        "vocab_size": text.get("vocab_size", 49_408),
        "width": width,
        "layers": text.get("layers", 12),
        "heads": text.get("heads", 8),
        "pad_token_id": text.get("pad_id", 0),
        **block_options(text, width, model_cfg),
    }


def _write_text(config: CoCaTextTowerConfig) -> dict[str, Any]:
    if config.pad_token_id:
        raise ConfigError(
            f"open_clip's own tokenizer pads with token 0. Got {config.pad_token_id}: keep it as a bundle."
        )
    return {
        "context_length": config.context_length,
        "vocab_size": config.vocab_size,
        "width": config.width,
        "heads": config.heads,
        "layers": config.layers,
        "embed_cls": True,
        **own_tokenizer(config.vocab_size),
        **written_options(config),
    }


COCA_IMAGE = TowerLayout(
    kind="coca",
    fits=lambda vision: bool(vision.get("attentional_pool")) and not vision.get("timm_model_name"),
    read=_read_image,
    write=_write_image,
    rows=lambda _: _IMAGE_ROWS,
    without_meaning=DECODER,
)
COCA_TEXT = TowerLayout(
    kind="coca",
    fits=lambda text: bool(text.get("embed_cls")) and not text.get("hf_model_name"),
    read=_read_text,
    write=_write_text,
    rows=lambda _: _TEXT_ROWS,
    without_meaning=DECODER,
)
