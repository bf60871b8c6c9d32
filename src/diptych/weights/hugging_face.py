"""`transformers` folders: names of the tensors and sizes of CLIP, MetaCLIP 2, SigLIP and NaFlex models, both ways."""

import math
from collections.abc import Mapping
from typing import Any

from diptych.config import from_dict, unknown_name
from diptych.errors import ConfigError
from diptych.model.blocks import Activation
from diptych.model.clip import INITIAL_TEMPERATURE, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.naflex import NaFlexTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.unopened import what_it_is

_BLOCKS = tuple(
    TensorRow(
        ours=f"{ours}.blocks.{{}}.{part}.{{}}",
        theirs=tuple(f"{theirs}.encoder.layers.{{}}.{their_part}.{{}}" for their_part in their_parts),
    )
    for ours, theirs in (("image", "vision_model"), ("text", "text_model"))
    for part, their_parts in (
        ("ln_attention", ["layer_norm1"]),
        ("attention.in_projection", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        ("attention.out_projection", ["self_attn.out_proj"]),
        ("ln_mlp", ["layer_norm2"]),
        ("mlp.up", ["mlp.fc1"]),
        ("mlp.down", ["mlp.fc2"]),
    )
)
_BOTH = (
    TensorRow(ours="image.patch_embedding.{}", theirs=("vision_model.embeddings.patch_embedding.{}",)),
    TensorRow(ours="image.position_embedding", theirs=("vision_model.embeddings.position_embedding.weight",)),
    TensorRow(ours="image.ln_post.{}", theirs=("vision_model.post_layernorm.{}",)),
    TensorRow(ours="text.token_embedding.weight", theirs=("text_model.embeddings.token_embedding.weight",)),
    TensorRow(ours="text.position_embedding", theirs=("text_model.embeddings.position_embedding.weight",)),
    TensorRow(ours="text.ln_final.{}", theirs=("text_model.final_layer_norm.{}",)),
    *_BLOCKS,
)
_WITHOUT_MEANING = r".*\.position_ids"  # 0, 1, 2, ...: older versions of the library saved them

# transformers.CLIPModel and MetaClip2Model; "layrnorm" is their spelling.
HUGGING_FACE = Naming(
    rows=(
        *_BOTH,
        TensorRow(ours="logit_scale", theirs=("logit_scale",)),
        TensorRow(ours="logit_bias", theirs=("logit_bias",)),  # none of theirs, but of some trained from them
        TensorRow(ours="image.projection", theirs=("visual_projection.weight",), transposed=True),
        TensorRow(ours="image.class_embedding", theirs=("vision_model.embeddings.class_embedding",)),
        TensorRow(ours="image.ln_pre.{}", theirs=("vision_model.pre_layrnorm.{}",)),
        TensorRow(ours="text.projection", theirs=("text_projection.weight",), transposed=True),
    ),
    without_meaning=_WITHOUT_MEANING,
)
# transformers.SiglipModel, and Siglip2Model, whose patch embedding alone is of another shape
HUGGING_FACE_SIGLIP = Naming(
    rows=(
        *_BOTH,
        TensorRow(ours="logit_scale", theirs=("logit_scale",), boxed=True),
        TensorRow(ours="logit_bias", theirs=("logit_bias",), boxed=True),
        TensorRow(ours="image.pool.probe", theirs=("vision_model.head.probe",)),
        TensorRow(ours="image.pool.attention.in_projection.{}", theirs=("vision_model.head.attention.in_proj_{}",)),
        TensorRow(ours="image.pool.attention.out_projection.{}", theirs=("vision_model.head.attention.out_proj.{}",)),
        TensorRow(ours="image.pool.ln_mlp.{}", theirs=("vision_model.head.layernorm.{}",)),
        TensorRow(ours="image.pool.mlp.up.{}", theirs=("vision_model.head.mlp.fc1.{}",)),
        TensorRow(ours="image.pool.mlp.down.{}", theirs=("vision_model.head.mlp.fc2.{}",)),
        TensorRow(ours="text.projection.{}", theirs=("text_model.head.{}",)),
    ),
    without_meaning=_WITHOUT_MEANING,
)

_ACTIVATIONS: dict[Activation, str] = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_Table = tuple[tuple[str, str, Any], ...]
# Our option, theirs, and what theirs is when config.json is silent.
_CLIP_IMAGE: _Table = (
    ("image_size", "image_size", 224),
    ("patch_size", "patch_size", 32),
    ("width", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("activation", "hidden_act", "quick_gelu"),
    ("layer_norm_eps", "layer_norm_eps", 1e-5),
)
_CLIP_TEXT: _Table = (
    ("context_length", "max_position_embeddings", 77),
    ("vocab_size", "vocab_size", 49_408),
    ("width", "hidden_size", 512),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 8),
    ("mlp_width", "intermediate_size", 2048),
    ("activation", "hidden_act", "quick_gelu"),
    ("layer_norm_eps", "layer_norm_eps", 1e-5),
)
_SIGLIP_IMAGE: _Table = (
    ("image_size", "image_size", 224),
    ("patch_size", "patch_size", 16),
    ("width", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("activation", "hidden_act", "gelu_pytorch_tanh"),
    ("layer_norm_eps", "layer_norm_eps", 1e-6),
)
_NAFLEX_IMAGE: _Table = _SIGLIP_IMAGE[1:]
_SIGLIP_TEXT: _Table = (
    ("context_length", "max_position_embeddings", 64),
    ("vocab_size", "vocab_size", 32_000),
    *_SIGLIP_IMAGE[2:],  # from the width on, the two towers have the same defaults
)
_HIGHEST_ID = 2  # their way to say that the end token is the highest id of a text: a mistake of theirs, kept since


def hugging_face_naming(config: CLIPConfig) -> Naming | None:
    """The table for a model of these sizes; None when `transformers` has no class for it."""
    match config.image, config.text, config.head:
        case (
            ImageTowerConfig(pool="class", has_ln_pre=True, has_projection_bias=False, stem="patch"),
            TextTowerConfig(is_causal=True),
            "softmax",
        ):
            return HUGGING_FACE
        case (
            SigLIPImageTowerConfig() | NaFlexTowerConfig(),
            SigLIPTextTowerConfig(projection="biased"),
            "sigmoid",
        ):
            return HUGGING_FACE_SIGLIP
        case _:
            return None


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
    text: dict[str, Any] = {"bos_token_id": start_token_id, "eos_token_id": end_token_id}
    if isinstance(config.text, SigLIPTextTowerConfig):
        if isinstance(config.image, NaFlexTowerConfig):
            patches = {"num_patches": config.image.position_grid**2}
            kind, vision = "siglip2", _tower_to_hf(config.image, _NAFLEX_IMAGE) | patches
        else:
            kind, vision = "siglip", _tower_to_hf(config.image, _SIGLIP_IMAGE)
        return {
            "model_type": kind,
            "architectures": [f"{kind.capitalize()}Model"],
            "text_config": {
                "model_type": f"{kind}_text_model",
                **_tower_to_hf(config.text, _SIGLIP_TEXT),
                "projection_size": config.embed_dim,
                **text,
            },
            "vision_config": {"model_type": f"{kind}_vision_model", **vision},
        }
    assert isinstance(config.text, TextTowerConfig)  # or there would be no table
    # What id 2 of a CLIP means is another rule; of MetaCLIP 2, the same model otherwise, it is the end token's.
    kind = "metaclip_2" if config.text.end_token_id == _HIGHEST_ID else "clip"
    if config.text.end_token_id is None and end_token_id != vocab_size - 1:
        text["eos_token_id"] = _HIGHEST_ID
    shared = {"projection_dim": config.embed_dim}
    return {
        "model_type": kind,
        "architectures": ["CLIPModel" if kind == "clip" else "MetaClip2Model"],
        **shared,
        "logit_scale_init_value": -math.log(INITIAL_TEMPERATURE),
        "text_config": {
            "model_type": f"{kind}_text_model",
            **_tower_to_hf(config.text, _CLIP_TEXT),
            **shared,
            **text,
            "pad_token_id": end_token_id,
        },
        "vision_config": {"model_type": f"{kind}_vision_model", **_tower_to_hf(config.image, _CLIP_IMAGE), **shared},
    }


def config_from_hf(data: Mapping[str, Any]) -> CLIPConfig:
    """Sizes from the content of a `config.json` of CLIP or SigLIP; what it is silent about is as there.

    Raises:
        ConfigError: it describes a model that `CLIP` cannot be.
    """
    text, vision = _section(data, "text_config"), _section(data, "vision_config")
    if vision.get("num_channels", 3) != 3:
        raise ConfigError(f"vision_config.num_channels must be 3. Got {vision['num_channels']!r}.")
    match data.get("model_type"):
        case "clip" | "metaclip_2":
            return _clip_from_hf(data, text, vision)
        case "siglip":
            return _siglip_from_hf(text, {"kind": "siglip", **_tower_from_hf(vision, _SIGLIP_IMAGE)}, vision)
        case "siglip2":
            return _siglip_from_hf(text, _naflex_from_hf(vision), vision)
        case kind:
            raise ConfigError(
                "model_type must be clip, metaclip_2, siglip, siglip2 or diptych-clip. "
                f"Got {kind!r}: it is {what_it_is(kind)}."
            )


def _clip_from_hf(data: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]) -> CLIPConfig:
    image_sizes, text_sizes = _tower_from_hf(vision, _CLIP_IMAGE), _tower_from_hf(text, _CLIP_TEXT)
    sizes = {"embed_dim": data.get("projection_dim", 512), "image": image_sizes, "text": text_sizes}
    config = from_dict(CLIPConfig, sizes)
    end_token_id = text.get("eos_token_id", 49_407)
    highest = (config.text.vocab_size - 1, *((_HIGHEST_ID,) if data["model_type"] == "clip" else ()))
    if end_token_id in highest:  # the last of all is the highest, too
        return config
    return from_dict(CLIPConfig, sizes | {"text": {**text_sizes, "end_token_id": end_token_id}})


def _naflex_from_hf(vision: Mapping[str, Any]) -> dict[str, Any]:
    sizes, patches = _tower_from_hf(vision, _NAFLEX_IMAGE), vision.get("num_patches", 256)
    is_square = isinstance(patches, int) and patches > 0 and math.isqrt(patches) ** 2 == patches
    if not is_square or not isinstance(sizes["patch_size"], int):
        raise ConfigError(
            "vision_config must hold a square number as num_patches, and one patch_size. "
            f"Got {patches!r} and {sizes['patch_size']!r}."
        )
    side = math.isqrt(patches)
    return {"kind": "naflex", **sizes, "position_grid": side, "image_size": side * sizes["patch_size"]}


def _siglip_from_hf(text: Mapping[str, Any], image: Mapping[str, Any], vision: Mapping[str, Any]) -> CLIPConfig:
    if not vision.get("vision_use_head", True):
        raise ConfigError("vision_config.vision_use_head must be true: features are read off the attention pool.")
    text_sizes = _tower_from_hf(text, _SIGLIP_TEXT)
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


def _tower_to_hf(tower: Any, table: _Table) -> dict[str, Any]:
    sizes = {theirs: getattr(tower, ours) for ours, theirs, _ in table}
    return {**sizes, "hidden_act": _ACTIVATIONS[tower.activation]}


def _tower_from_hf(section: Mapping[str, Any], table: _Table) -> dict[str, Any]:
    sizes = {ours: section.get(theirs, default) for ours, theirs, default in table}
    activations = {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
    if not isinstance(sizes["activation"], str) or sizes["activation"] not in activations:
        raise ConfigError(unknown_name(str(sizes["activation"]), "", activations, "a hidden_act that diptych has"))
    return {**sizes, "activation": activations[sizes["activation"]]}


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    older = data.get(f"{name}_dict")  # in early files; where it is there, the library reads it alone
    section = (data.get(name) or {}) if older is None else older
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name} must be a JSON object. Got {section!r}.")
    return section
