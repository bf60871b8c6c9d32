"""Foreign names for our tensors and sizes: one table a library, read both ways."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diptych.config import from_dict, unknown_name
from diptych.errors import ConfigError
from diptych.model.blocks import Activation
from diptych.model.clip import INITIAL_TEMPERATURE, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of our tensors, and what it is in a foreign state dict; each `{}` stands for the same text on both sides."""

    ours: str
    theirs: tuple[str, ...]  # several: ours is all of them, stacked along dimension 0
    transposed: bool = False


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a library names and lays out the tensors of a CLIP model."""

    rows: tuple[Row, ...]
    without_meaning: str = "(?!)"  # a pattern for names that hold no weights and may be there or not

    def from_ours(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of ours in their names; values are not copied where the layout is the same."""
        theirs: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            row, names = self._look_up(name)
            laid_out = tensor.T if row.transposed else tensor
            parts = laid_out.chunk(len(names)) if len(names) > 1 else [laid_out]
            theirs |= {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
        return theirs

    def to_ours(self, weights: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
        """Those tensors of ours that `names` lists, from a state dict of theirs that holds all of them.

        Values are not copied where the layout is the same.
        """
        ours: dict[str, Tensor] = {}
        for name in names:
            row, their_names = self._look_up(name)
            parts = [weights[their_name] for their_name in their_names]
            tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
            ours[name] = (tensor.T if row.transposed else tensor).contiguous()
        return ours

    def _look_up(self, name: str) -> tuple[Row, list[str]]:
        for row in self.rows:
            pattern = re.escape(row.ours).replace(r"\{\}", "(.+)")
            if match := re.fullmatch(pattern, name):
                return row, [theirs.format(*match.groups()) for theirs in row.theirs]
        raise AssertionError(f"{name} is in no row of the table")


OWN = Naming(rows=(Row(ours="{}", theirs=("{}",)),))

# transformers.CLIPModel; "layrnorm" is their spelling.
HUGGING_FACE = Naming(
    rows=(
        Row(ours="logit_scale", theirs=("logit_scale",)),
        Row(ours="image.projection", theirs=("visual_projection.weight",), transposed=True),
        Row(ours="image.class_embedding", theirs=("vision_model.embeddings.class_embedding",)),
        Row(ours="image.patch_embedding.weight", theirs=("vision_model.embeddings.patch_embedding.weight",)),
        Row(ours="image.position_embedding", theirs=("vision_model.embeddings.position_embedding.weight",)),
        Row(ours="image.ln_pre.{}", theirs=("vision_model.pre_layrnorm.{}",)),
        Row(ours="image.ln_post.{}", theirs=("vision_model.post_layernorm.{}",)),
        Row(ours="text.projection", theirs=("text_projection.weight",), transposed=True),
        Row(ours="text.token_embedding.weight", theirs=("text_model.embeddings.token_embedding.weight",)),
        Row(ours="text.position_embedding", theirs=("text_model.embeddings.position_embedding.weight",)),
        Row(ours="text.ln_final.{}", theirs=("text_model.final_layer_norm.{}",)),
        *(
            Row(
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
        ),
    ),
    without_meaning=r".*\.position_ids",  # 0, 1, 2, ...: older versions of the library saved them
)

_HF_ACTIVATIONS: dict[Activation, str] = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
# Our option, theirs, and what theirs is when config.json is silent.
_HF_IMAGE: tuple[tuple[str, str, Any], ...] = (
    ("image_size", "image_size", 224),
    ("patch_size", "patch_size", 32),
    ("width", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("layer_norm_eps", "layer_norm_eps", 1e-5),
)
_HF_TEXT: tuple[tuple[str, str, Any], ...] = (
    ("context_length", "max_position_embeddings", 77),
    ("vocab_size", "vocab_size", 49_408),
    ("width", "hidden_size", 512),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 8),
    ("mlp_width", "intermediate_size", 2048),
    ("layer_norm_eps", "layer_norm_eps", 1e-5),
)
_HF_HIGHEST_ID = 2  # their way to say that the end token is the highest id of a text: a mistake of theirs, kept since


def config_to_hf(config: CLIPConfig, *, start_token_id: int, end_token_id: int, vocab_size: int) -> dict[str, Any]:
    """The content of a `config.json` with which `transformers.CLIPModel` gives the same features.

    Args:
        config: a model whose image tower is a ViT.
        start_token_id: of the tokenizer.
        end_token_id: of the tokenizer.
        vocab_size: of the tokenizer; the model's may be larger.

    Raises:
        ConfigError: the end token has id 2, which `transformers` takes for another rule.
    """
    assert isinstance(config.image, ImageTowerConfig)
    if config.text.end_token_id == _HF_HIGHEST_ID:
        raise ConfigError("text.end_token_id must not be 2: transformers takes it to mean the highest id of a text.")
    is_highest = end_token_id == vocab_size - 1
    text = {
        "bos_token_id": start_token_id,
        "eos_token_id": end_token_id if is_highest or config.text.end_token_id is not None else _HF_HIGHEST_ID,
        "pad_token_id": end_token_id,
    }
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": -math.log(INITIAL_TEMPERATURE),
        "text_config": {"model_type": "clip_text_model", **_tower_to_hf(config, config.text, _HF_TEXT), **text},
        "vision_config": {"model_type": "clip_vision_model", **_tower_to_hf(config, config.image, _HF_IMAGE)},
    }


def config_from_hf(data: Mapping[str, Any]) -> CLIPConfig:
    """Sizes from the content of a `config.json` with `model_type: clip`; what it is silent about is as there.

    Raises:
        ConfigError: it describes a model that `CLIP` cannot be.
    """
    text, vision = _section(data, "text_config"), _section(data, "vision_config")
    if vision.get("num_channels", 3) != 3:
        raise ConfigError(f"vision_config.num_channels must be 3. Got {vision['num_channels']!r}.")
    image_sizes, text_sizes = _tower_from_hf(vision, _HF_IMAGE), _tower_from_hf(text, _HF_TEXT)
    sizes = {"embed_dim": data.get("projection_dim", 512), "image": image_sizes, "text": text_sizes}
    config = from_dict(CLIPConfig, sizes)
    end_token_id = text.get("eos_token_id", 49_407)
    if end_token_id in (_HF_HIGHEST_ID, config.text.vocab_size - 1):  # the last of all is the highest, too
        return config
    return from_dict(CLIPConfig, sizes | {"text": {**text_sizes, "end_token_id": end_token_id}})


def _tower_to_hf(config: CLIPConfig, tower: Any, table: tuple[tuple[str, str, Any], ...]) -> dict[str, Any]:
    sizes = {theirs: getattr(tower, ours) for ours, theirs, _ in table}
    return {**sizes, "hidden_act": _HF_ACTIVATIONS[tower.activation], "projection_dim": config.embed_dim}


def _tower_from_hf(section: Mapping[str, Any], table: tuple[tuple[str, str, Any], ...]) -> dict[str, Any]:
    sizes = {ours: section.get(theirs, default) for ours, theirs, default in table}
    activations = {theirs: ours for ours, theirs in _HF_ACTIVATIONS.items()}
    hidden_act = section.get("hidden_act", "quick_gelu")
    if hidden_act not in activations:
        raise ConfigError(unknown_name(str(hidden_act), "", activations, "a hidden_act that diptych has"))
    return {**sizes, "activation": activations[hidden_act]}


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    older = data.get(f"{name}_dict")  # in early files; where it is there, the library reads it alone
    section = (data.get(name) or {}) if older is None else older
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name} must be a JSON object. Got {section!r}.")
    return section
