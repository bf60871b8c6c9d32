"""SigLIP and SigLIP 2 of `transformers`, both ways."""

import math
from typing import Any

from diptych.config import from_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig
from diptych.model.naflex import NaFlexTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.hf_clip import TEXT_ROWS, block_rows
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

# transformers.SiglipModel, and Siglip2Model, whose patch embedding alone is of another shape
SIGLIP_NAMES = Naming(
    rows=(
        TensorRow(ours="logit_scale", theirs=("logit_scale",), boxed=1),
        TensorRow(ours="logit_bias", theirs=("logit_bias",), boxed=1),
        TensorRow(ours="image.patch_embedding.{}", theirs=("vision_model.embeddings.patch_embedding.{}",)),
        TensorRow(ours="image.position_embedding", theirs=("vision_model.embeddings.position_embedding.weight",)),
        TensorRow(ours="image.ln_post.{}", theirs=("vision_model.post_layernorm.{}",)),
        TensorRow(ours="image.pool.probe", theirs=("vision_model.head.probe",)),
        TensorRow(ours="image.pool.attention.in_projection.{}", theirs=("vision_model.head.attention.in_proj_{}",)),
        TensorRow(ours="image.pool.attention.out_projection.{}", theirs=("vision_model.head.attention.out_proj.{}",)),
        TensorRow(ours="image.pool.ln_mlp.{}", theirs=("vision_model.head.layernorm.{}",)),
        TensorRow(ours="image.pool.mlp.up.{}", theirs=("vision_model.head.mlp.fc1.{}",)),
        TensorRow(ours="image.pool.mlp.down.{}", theirs=("vision_model.head.mlp.fc2.{}",)),
        *block_rows("image", "vision_model"),
        TensorRow(ours="text.projection.{}", theirs=("text_model.head.{}",)),
        *TEXT_ROWS,
    ),
    without_meaning=WITHOUT_MEANING,
)

_IMAGE: Table = (
    ("image_size", "image_size", 224),
    ("patch_size", "patch_size", 16),
    ("width", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("activation", "hidden_act", "gelu_pytorch_tanh"),
    ("layer_norm_eps", "layer_norm_eps", 1e-6),
)
_NAFLEX_IMAGE: Table = _IMAGE[1:]
_TEXT: Table = (
    ("context_length", "max_position_embeddings", 64),
    ("vocab_size", "vocab_size", 32_000),
    *_IMAGE[2:],  # from the width on, the two towers have the same defaults
)
_RECIPE = {"resize": "squash", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def _read(data: Section) -> CLIPConfig:
    vision = vision_section(data)
    return _with_text(data, {"kind": "siglip", **read_tower(vision, _IMAGE)}, vision)


def _read_naflex(data: Section) -> CLIPConfig:
    vision = vision_section(data)
    sizes, patches = read_tower(vision, _NAFLEX_IMAGE), vision.get("num_patches", 256)
    is_square = isinstance(patches, int) and patches > 0 and math.isqrt(patches) ** 2 == patches
    if not is_square or not isinstance(sizes["patch_size"], int):
        raise ConfigError(
            "vision_config must hold a square number as num_patches, and one patch_size. "
            f"Got {patches!r} and {sizes['patch_size']!r}."
        )
    side = math.isqrt(patches)
    image = {"kind": "naflex", **sizes, "position_grid": side, "image_size": side * sizes["patch_size"]}
    return _with_text(data, image, vision)


def _with_text(data: Section, image: Section, vision: Section) -> CLIPConfig:
    if not vision.get("vision_use_head", True):
        raise ConfigError("vision_config.vision_use_head must be true: features are read off the attention pool.")
    text = section(data, "text_config")
    text_sizes = read_tower(text, _TEXT)
    embed_dim = text.get("projection_size")
    return from_dict(
        CLIPConfig,
        {
            "embed_dim": text_sizes["width"] if embed_dim is None else embed_dim,
            "head": "sigmoid",
            "image": image,
            "text": {"kind": "siglip", **text_sizes},
        },
    )


def _fits_text(config: CLIPConfig) -> bool:
    has_bias = isinstance(config.text, SigLIPTextTowerConfig) and config.text.projection == "biased"
    return has_bias and config.head == "sigmoid"


def _write(config: CLIPConfig, tokens: TokenIds) -> dict[str, Any]:
    return _written("siglip", config, tokens, write_tower(config.image, _IMAGE))


def _write_naflex(config: CLIPConfig, tokens: TokenIds) -> dict[str, Any]:
    assert isinstance(config.image, NaFlexTowerConfig)  # it fits
    patches = {"num_patches": config.image.position_grid**2}
    return _written("siglip2", config, tokens, write_tower(config.image, _NAFLEX_IMAGE) | patches)


def _written(kind: str, config: CLIPConfig, tokens: TokenIds, vision: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": kind,
        "architectures": [f"{kind.capitalize()}Model"],
        "text_config": {
            "model_type": f"{kind}_text_model",
            **write_tower(config.text, _TEXT),
            "projection_size": config.embed_dim,
            "bos_token_id": tokens.start,
            "eos_token_id": tokens.end,
        },
        "vision_config": {"model_type": f"{kind}_vision_model", **vision},
    }


SIGLIP = ModelLayout(
    model_types=("siglip",),
    read=_read,
    naming=lambda _: SIGLIP_NAMES,
    fits=lambda config: isinstance(config.image, SigLIPImageTowerConfig) and _fits_text(config),
    write=_write,
    silent_recipe=_RECIPE,
    cleaning="siglip",
)
SIGLIP2 = ModelLayout(
    model_types=("siglip2",),
    read=_read_naflex,
    naming=lambda _: SIGLIP_NAMES,
    fits=lambda config: isinstance(config.image, NaFlexTowerConfig) and _fits_text(config),
    write=_write_naflex,
    silent_recipe=_RECIPE,
    image_size="recipe",  # how many patches is a fact of the pictures, and not of the weights
    cleaning="siglip",
)
