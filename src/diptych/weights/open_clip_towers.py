"""open_clip's own towers, which are those of OpenAI's code: vision transformer, ResNet and text transformer."""

import math
from collections.abc import Sequence
from typing import Any

from diptych.errors import ConfigError
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.tower_layout import HEAD, Section, TowerLayout, check_says

STAGES = 4  # of a ResNet
VOCABULARY = 49_408  # tokens of CLIP's


def _blocks(ours: str, theirs: str) -> tuple[TensorRow, ...]:
    return tuple(
        TensorRow(ours=f"{ours}.blocks.{{}}.{part}{end}", theirs=(f"{theirs}.resblocks.{{}}.{their_part}{their_end}",))
        for part, their_part, end, their_end in (
            ("ln_attention", "ln_1", ".{}", ".{}"),
            ("attention.in_projection", "attn.in_proj", ".{}", "_{}"),
            ("attention.out_projection", "attn.out_proj", ".{}", ".{}"),
            ("ln_mlp", "ln_2", ".{}", ".{}"),
            ("mlp.up", "mlp.c_fc", ".{}", ".{}"),
            ("mlp.down", "mlp.c_proj", ".{}", ".{}"),
        )
    )


VIT_ROWS = (
    TensorRow(ours="image.class_embedding", theirs=("visual.class_embedding",)),
    TensorRow(ours="image.position_embedding", theirs=("visual.positional_embedding",)),
    TensorRow(ours="image.patch_embedding.{}", theirs=("visual.conv1.{}",)),
    TensorRow(ours="image.ln_pre.{}", theirs=("visual.ln_pre.{}",)),
    TensorRow(ours="image.ln_post.{}", theirs=("visual.ln_post.{}",)),
    TensorRow(ours="image.projection", theirs=("visual.proj",)),
    *_blocks("image", "visual.transformer"),
)
# A ResNet's image projection is a layer with a bias; ours are `projection.weight` and `projection.bias` there.
_RESNET_ROWS = (
    *(
        TensorRow(ours=f"image.stem.{index}.{{}}", theirs=(f"visual.{name}.{{}}",))
        for index, name in ((0, "conv1"), (1, "bn1"), (3, "conv2"), (4, "bn2"), (6, "conv3"), (7, "bn3"))
    ),
    *(
        TensorRow(ours=f"image.stages.{stage}.{{}}.{part}", theirs=(f"visual.layer{stage + 1}.{{}}.{their_part}",))
        for stage in range(STAGES)
        for part, their_part in (
            ("shortcut.1.{}", "downsample.0.{}"),
            ("shortcut.2.{}", "downsample.1.{}"),
            ("{}", "{}"),
        )
    ),
    TensorRow(ours="image.pool.position_embedding", theirs=("visual.attnpool.positional_embedding",)),
    *(
        TensorRow(ours=f"image.pool.{name}.{{}}", theirs=(f"visual.attnpool.{name[0]}_proj.{{}}",))
        for name in ("query", "key", "value")
    ),
    TensorRow(ours="image.projection.{}", theirs=("visual.attnpool.c_proj.{}",)),
)
TEXT_ROWS = (  # of all text towers of theirs
    TensorRow(ours="text.token_embedding.{}", theirs=("token_embedding.{}",)),
    TensorRow(ours="text.position_embedding", theirs=("positional_embedding",)),
    TensorRow(ours="text.ln_final.{}", theirs=("ln_final.{}",)),
    *_blocks("text", "transformer"),
)
_TEXT_ROWS = (TensorRow(ours="text.projection", theirs=("text_projection",)), *TEXT_ROWS)

# What a tower of theirs must say for ours to be the same, and what a model is that says otherwise.
_BOTH_MUST = dict.fromkeys(
    ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), False
)
VISION_MUST: dict[str, Any] = {
    "ls_init_value": None,
    "attentional_pool": False,
    "block_type": None,
    "timm_model_name": None,
    **_BOTH_MUST,
}
TEXT_MUST: dict[str, Any] = {
    "hf_model_name": None,
    "ls_init_value": None,
    "embed_cls": False,
    "final_ln_after_pool": False,
    "proj_bias": False,
    "proj_type": "linear",
    "block_type": None,
    **_BOTH_MUST,
}
_WHAT_IT_IS = {
    "timm_model_name": "an image tower of timm that diptych does not have",
    "hf_model_name": "a text tower of transformers, of which diptych has none",
    "attentional_pool": "a tower with a pool that diptych does not have",
}
# How a tower is read, by pool_type and final_ln_after_pool. A norm of one position does not mind what is picked first.
_POOLS = {("tok", False): "class", ("tok", True): "class", ("avg", True): "mean"}


def _read_vit(vision: Section, model_cfg: Section) -> dict[str, Any]:
    check_says("vision_cfg", vision, VISION_MUST, _WHAT_IT_IS)
    pool = vision.get("pool_type", "tok"), bool(vision.get("final_ln_after_pool", False))
    if pool not in _POOLS:
        raise ConfigError(
            "vision_cfg.pool_type must be tok, or avg with final_ln_after_pool. "
            f"Got {pool[0]!r} with final_ln_after_pool={pool[1]}."
        )
    positions = vision.get("pos_embed_type", "learnable")
    if positions not in ("learnable", "sin_cos_2d"):  # the file holds both; here those that were fixed go on learning
        raise ConfigError(f"vision_cfg.pos_embed_type must be learnable or sin_cos_2d. Got {positions!r}.")
    return {
        **sizes_of_vit(vision, model_cfg),
        **({"pool": "mean"} if _POOLS[pool] == "mean" else {}),
        **({"has_ln_pre": False} if vision.get("no_ln_pre") else {}),
    }


def sizes_of_vit(vision: Section, model_cfg: Section) -> dict[str, Any]:
    """Sizes of one of open_clip's own vision transformers, whatever pools it."""
    width = vision.get("width", 768)
    return {
        "image_size": side(vision.get("image_size", 224)),
        "width": width,
        "layers": vision.get("layers", 12),
        "patch_size": vision.get("patch_size", 16),
        "heads": width // vision.get("head_width", HEAD),
        **block_options(vision, width, model_cfg),
    }


def _write_vit(config: ImageTowerConfig) -> dict[str, Any]:
    if config.stem != "patch":
        raise ConfigError("open_clip has a stem of convolutions with a bias behind the projection alone.")
    return {
        **written_vit(config),
        **({"pool_type": "avg", "final_ln_after_pool": True} if config.pool == "mean" else {}),
        **({} if config.has_ln_pre else {"no_ln_pre": True}),
    }


def written_vit(config: Any) -> dict[str, Any]:
    """What `sizes_of_vit` reads."""
    return {
        "image_size": config.image_size,
        "width": config.width,
        "layers": config.layers,
        "patch_size": config.patch_size,
        "head_width": config.width // config.heads,
        **written_options(config),
    }


def _read_resnet(vision: Section, _: Section) -> dict[str, Any]:
    check_says("vision_cfg", vision, VISION_MUST, _WHAT_IT_IS)
    width = vision.get("width", 768)
    return {
        "kind": "resnet",
        "image_size": side(vision.get("image_size", 224)),
        "width": width,
        "layers": vision["layers"],
        "heads": width * 32 // vision.get("head_width", HEAD),
    }


def _write_resnet(config: ResNetTowerConfig) -> dict[str, Any]:
    if len(config.layers) != STAGES:
        raise ConfigError(
            f"a ResNet of open_clip's has {STAGES} stages. Got {len(config.layers)}: keep it as a bundle."
        )
    return {
        "image_size": config.image_size,
        "width": config.width,
        "layers": list(config.layers),
        "head_width": config.final_width // config.heads,
    }


def _read_text(text: Section, model_cfg: Section) -> dict[str, Any]:
    check_says("text_cfg", text, TEXT_MUST, _WHAT_IT_IS)
    pool, width = text.get("pool_type", "argmax"), text.get("width", 512)
    if pool not in ("argmax", "eos"):
        raise ConfigError(
            f"text_cfg.pool_type must be argmax or eos, or last with no_causal_mask. Got {pool!r}: a tower that "
            "diptych does not have."
        )
    return {
        "context_length": text.get("context_length", 77),
        "vocab_size": text.get("vocab_size", 49_408),
        "width": width,
        "layers": text.get("layers", 12),
        "heads": text.get("heads", 8),
        **block_options(text, width, model_cfg),
        **({"end_token_id": text.get("eos_id", 2)} if pool == "eos" else {}),
        **({"is_causal": False} if text.get("no_causal_mask") else {}),
    }


def _write_text(config: TextTowerConfig) -> dict[str, Any]:
    return {
        "context_length": config.context_length,
        "vocab_size": config.vocab_size,
        "width": config.width,
        "heads": config.heads,
        "layers": config.layers,
        **written_options(config),
        **({} if config.end_token_id is None else {"pool_type": "eos", "eos_id": config.end_token_id}),
        **({} if config.is_causal else {"no_causal_mask": True, **own_tokenizer(config.vocab_size)}),
    }


def own_tokenizer(vocab_size: int) -> dict[str, Any]:
    """What a section says for open_clip to take its own tokenizer: of those it has, it alone pads with token 0.

    Raises:
        ConfigError: it has another vocabulary.
    """
    if vocab_size != VOCABULARY:
        raise ConfigError(
            f"open_clip reads padding of token 0 from its own tokenizer of {VOCABULARY:,} tokens alone. Got a "
            f"vocabulary of {vocab_size:,}: keep it as a bundle."
        )
    return {"hf_tokenizer_name": ""}


def block_options(section: Section, width: int, model_cfg: Section) -> dict[str, Any]:
    """Options of our blocks, from a section for a tower of open_clip's own.

    Args:
        section: for the tower.
        width: of the tower.
        model_cfg: whole; it tells the activation.
    """
    act, norm = section.get("act_kwargs") or {}, section.get("norm_kwargs") or {}
    tanh = act.get("approximate") == "tanh"
    return {
        "mlp_width": int(width * section.get("mlp_ratio", 4.0)),
        "activation": "quick_gelu" if model_cfg.get("quick_gelu") else "gelu_tanh" if tanh else "gelu",
        "layer_norm_eps": float(norm.get("eps", 1e-5)),
    }


def written_options(tower: Any) -> dict[str, Any]:
    """What `block_options` reads, of a tower of blocks; what open_clip takes for its default is left out.

    Raises:
        ConfigError: open_clip's own towers have no such activation.
    """
    if tower.activation == "relu":
        raise ConfigError("open_clip's own towers have GELU or QuickGELU. Got relu: keep this model as a bundle.")
    ratio = tower.mlp_width / tower.width
    if int(tower.width * ratio) != tower.mlp_width:
        ratio = math.nextafter(ratio, math.inf)  # they cut the product to a whole number
    assert int(tower.width * ratio) == tower.mlp_width
    return {
        **({} if ratio == 4 else {"mlp_ratio": ratio}),
        **({"act_kwargs": {"approximate": "tanh"}} if tower.activation == "gelu_tanh" else {}),
        **({} if tower.layer_norm_eps == 1e-5 else {"norm_kwargs": {"eps": tower.layer_norm_eps}}),
    }


def side(size: Any) -> Any:
    """Pixels of one side, where two equal ones may be given."""
    return size[0] if isinstance(size, Sequence) and not isinstance(size, str) and len(set(size)) == 1 else size


def _has_stages(vision: Section) -> bool:
    layers = vision.get("layers")
    return isinstance(layers, Sequence) and not isinstance(layers, str)


VIT = TowerLayout(
    kind="vit",
    fits=lambda vision: not _has_stages(vision),
    read=_read_vit,
    write=_write_vit,
    rows=lambda _: VIT_ROWS,
)
RESNET = TowerLayout(
    kind="resnet", fits=_has_stages, read=_read_resnet, write=_write_resnet, rows=lambda _: _RESNET_ROWS
)
TEXT = TowerLayout(kind="clip", fits=lambda _: True, read=_read_text, write=_write_text, rows=lambda _: _TEXT_ROWS)
