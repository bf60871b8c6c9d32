"""CLIP and MetaCLIP 2 of `transformers`, both ways; and the CLIP inside of CLIPSeg, OWL-ViT, OWLv2 and X-CLIP."""

import dataclasses
import math
from typing import Any

from diptych.config import from_dict
from diptych.model.clip import INITIAL_TEMPERATURE, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.model_layout import (
    WITHOUT_MEANING,
    ModelLayout,
    Section,
    Table,
    TokenIds,
    read_tower,
    section,
    vision_section,
    write_tower,
)

HIGHEST_ID = 2  # their way to say that the end token is the highest id of a text: a mistake of theirs, kept since


def block_rows(ours: str, theirs: str) -> tuple[TensorRow, ...]:
    """Rows of a tower's blocks, as most types of the library name them."""
    return tuple(
        TensorRow(
            ours=f"{ours}.blocks.{{}}.{part}.{{}}",
            theirs=tuple(f"{theirs}.encoder.layers.{{}}.{their_part}.{{}}" for their_part in their_parts),
        )
        for part, their_parts in (
            ("ln_attention", ["layer_norm1"]),
            ("attention.in_projection", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
            ("attention.out_projection", ["self_attn.out_proj"]),
            ("ln_mlp", ["layer_norm2"]),
            ("mlp.up", ["mlp.fc1"]),
            ("mlp.down", ["mlp.fc2"]),
        )
    )


def image_rows(ln_pre: str = "pre_layrnorm") -> tuple[TensorRow, ...]:
    """Rows of the image tower; "layrnorm" is their spelling."""
    return (
        TensorRow(ours="image.patch_embedding.{}", theirs=("vision_model.embeddings.patch_embedding.{}",)),
        TensorRow(ours="image.position_embedding", theirs=("vision_model.embeddings.position_embedding.weight",)),
        TensorRow(ours="image.class_embedding", theirs=("vision_model.embeddings.class_embedding",)),
        TensorRow(ours="image.ln_pre.{}", theirs=(f"vision_model.{ln_pre}.{{}}",)),
        TensorRow(ours="image.ln_post.{}", theirs=("vision_model.post_layernorm.{}",)),
        TensorRow(ours="image.projection", theirs=("visual_projection.weight",), transposed=True),
        *block_rows("image", "vision_model"),
    )


TEXT_ROWS = (
    TensorRow(ours="text.token_embedding.weight", theirs=("text_model.embeddings.token_embedding.weight",)),
    TensorRow(ours="text.position_embedding", theirs=("text_model.embeddings.position_embedding.weight",)),
    TensorRow(ours="text.ln_final.{}", theirs=("text_model.final_layer_norm.{}",)),
    *block_rows("text", "text_model"),
)
HEAD_ROWS = (
    TensorRow(ours="logit_scale", theirs=("logit_scale",)),
    TensorRow(ours="logit_bias", theirs=("logit_bias",)),  # none of theirs, but of some trained from them
)
_ROWS = (
    *HEAD_ROWS,
    *TEXT_ROWS,
    TensorRow(ours="text.projection", theirs=("text_projection.weight",), transposed=True),
)
# transformers.CLIPModel and MetaClip2Model
CLIP_NAMES = Naming(rows=(*_ROWS, *image_rows()), without_meaning=WITHOUT_MEANING)
_OWL_NAMES = Naming(rows=(*_ROWS, *image_rows("pre_layernorm")), without_meaning=WITHOUT_MEANING)
# What makes X-CLIP see a film: tokens that frames send each other, a transformer over frames, prompts from pixels.
_X_CLIP_NAMES = dataclasses.replace(
    _OWL_NAMES, left_out=r"mit\..*|prompts_.*|vision_model\.encoder\.layers\.\d+\.message_.*"
)

CLIP_IMAGE: Table = (
    ("image_size", "image_size", 224),
    ("patch_size", "patch_size", 32),
    ("width", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("activation", "hidden_act", "quick_gelu"),
    ("layer_norm_eps", "layer_norm_eps", 1e-5),
)
_TEXT: Table = (
    ("context_length", "max_position_embeddings", 77),
    ("vocab_size", "vocab_size", 49_408),
    ("width", "hidden_size", 512),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 8),
    ("mlp_width", "intermediate_size", 2048),
    ("activation", "hidden_act", "quick_gelu"),
    ("layer_norm_eps", "layer_norm_eps", 1e-5),
)


def _read(data: Section) -> CLIPConfig:
    text = section(data, "text_config")
    image_sizes, text_sizes = read_tower(vision_section(data), CLIP_IMAGE), read_tower(text, _TEXT)
    sizes = {"embed_dim": data.get("projection_dim", 512), "image": image_sizes, "text": text_sizes}
    config = from_dict(CLIPConfig, sizes)
    silent = HIGHEST_ID if data["model_type"] == "xclip" else 49_407
    end_token_id = text.get("eos_token_id", silent)
    highest = (config.text.vocab_size - 1, *(() if data["model_type"] == "metaclip_2" else (HIGHEST_ID,)))
    if end_token_id in highest:  # the last of all is the highest, too
        return config
    return from_dict(CLIPConfig, sizes | {"text": {**text_sizes, "end_token_id": end_token_id}})


def _read_owl(data: Section) -> CLIPConfig:
    """Its texts are read at the highest id, whatever it says of the end token."""
    patch_size = 32 if data["model_type"] == "owlvit" else 16
    vision = {"image_size": 768, "patch_size": patch_size, **vision_section(data)}
    text = {"max_position_embeddings": 16, **section(data, "text_config")}
    sizes = {"image": read_tower(vision, CLIP_IMAGE), "text": read_tower(text, _TEXT)}
    return from_dict(CLIPConfig, {"embed_dim": data.get("projection_dim", 512), **sizes})


def _fits(config: CLIPConfig) -> bool:
    is_causal = isinstance(config.text, TextTowerConfig) and config.text.is_causal
    return is_clips_image(config) and is_causal and config.head == "softmax"


def is_clips_image(config: CLIPConfig) -> bool:
    """Whether the image tower is CLIP's vision transformer, as the library has it in several types."""
    image = config.image
    if not isinstance(image, ImageTowerConfig):
        return False
    options = (image.has_projection_bias, image.has_patch_bias, image.norms_twice)
    return (image.pool, image.has_ln_pre, image.stem) == ("class", True, "patch") and not any(options)


def _write(config: CLIPConfig, tokens: TokenIds) -> dict[str, Any]:
    assert isinstance(config.text, TextTowerConfig)  # it fits
    text: dict[str, Any] = {"bos_token_id": tokens.start, "eos_token_id": tokens.end}
    # What id 2 of a CLIP means is another rule; of MetaCLIP 2, the same model otherwise, it is the end token's.
    kind = "metaclip_2" if config.text.end_token_id == HIGHEST_ID else "clip"
    if config.text.end_token_id is None and tokens.end != tokens.vocab_size - 1:
        text["eos_token_id"] = HIGHEST_ID
    shared = {"projection_dim": config.embed_dim}
    return {
        "model_type": kind,
        "architectures": ["CLIPModel" if kind == "clip" else "MetaClip2Model"],
        **shared,
        "logit_scale_init_value": -math.log(INITIAL_TEMPERATURE),
        "text_config": {
            "model_type": f"{kind}_text_model",
            **write_tower(config.text, _TEXT),
            **shared,
            **text,
            "pad_token_id": tokens.end,
        },
        "vision_config": {"model_type": f"{kind}_vision_model", **write_tower(config.image, CLIP_IMAGE), **shared},
    }


CLIP_LAYOUT = ModelLayout(
    model_types=("clip", "metaclip_2"), read=_read, naming=lambda _: CLIP_NAMES, fits=_fits, write=_write
)
CLIPSEG = ModelLayout(
    model_types=("clipseg",),
    read=_read,
    naming=lambda _: CLIP_NAMES,
    image_size="config",  # it segments larger pictures than its CLIP was trained with
)
OWL_VIT = ModelLayout(
    model_types=("owlvit",), read=_read_owl, naming=lambda _: _OWL_NAMES, silent_recipe={"resize": "squash"}
)
OWL_V2 = ModelLayout(
    model_types=("owlv2",),
    read=_read_owl,
    naming=lambda _: _OWL_NAMES,
    silent_recipe={"resize": "squash"},
    reads_recipe=False,  # it pads with grey, which moves what it detects and says nothing to a CLIP
)
X_CLIP = ModelLayout(model_types=("xclip",), read=_read, naming=lambda _: _X_CLIP_NAMES)
