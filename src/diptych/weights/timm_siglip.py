"""SigLIP's image towers as timm has them, and its text tower, also CLIPA's, as open_clip's own class gives it."""

from typing import Any

from diptych.errors import ConfigError
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.open_clip_towers import TEXT_MUST, TEXT_ROWS, block_options, side, written_options
from diptych.weights.timm_names import named
from diptych.weights.timm_vit import block_rows
from diptych.weights.tower_layout import Section, TowerLayout, check_says

_EPS = 1e-6  # of all layer norms in timm's


def _size(patch_size: int, width: int, layers: int, heads: int, mlp_width: int, activation: str) -> dict[str, Any]:
    return {
        "patch_size": patch_size,
        "width": width,
        "layers": layers,
        "heads": heads,
        "mlp_width": mlp_width,
        "activation": activation,
        "layer_norm_eps": _EPS,
    }


# Sizes by timm's name, which ends in pixels of one side. The first SigLIP was trained with the tanh approximation,
# too: it is timm that computes it without. The two differ by less than bfloat16 tells apart.
SIZES: dict[str, dict[str, Any]] = {
    "vit_base_patch32_siglip_256": _size(32, 768, 12, 12, 3072, "gelu_tanh"),
    **dict.fromkeys(
        (f"vit_base_patch16_siglip_{pixels}" for pixels in (224, 256, 384, 512)), _size(16, 768, 12, 12, 3072, "gelu")
    ),
    **dict.fromkeys(
        (f"vit_large_patch16_siglip_{pixels}" for pixels in (256, 384)), _size(16, 1024, 24, 16, 4096, "gelu")
    ),
    "vit_large_patch16_siglip_512": _size(16, 1024, 24, 16, 4096, "gelu_tanh"),
    **dict.fromkeys(
        (f"vit_so400m_patch14_siglip_{pixels}" for pixels in (224, 378, 384)), _size(14, 1152, 27, 16, 4304, "gelu")
    ),
    **dict.fromkeys(
        (f"vit_so400m_patch16_siglip_{pixels}" for pixels in (256, 384, 512)),
        _size(16, 1152, 27, 16, 4304, "gelu_tanh"),
    ),
    **dict.fromkeys(
        (f"vit_giantopt_patch16_siglip_{pixels}" for pixels in (256, 384)), _size(16, 1536, 40, 16, 6144, "gelu_tanh")
    ),
}
POOL_ROWS = (  # of all towers of timm that a learned probe pools
    TensorRow(ours="image.pool.probe", theirs=("visual.trunk.attn_pool.latent",)),
    TensorRow(
        ours="image.pool.attention.in_projection.{}",
        theirs=("visual.trunk.attn_pool.q.{}", "visual.trunk.attn_pool.kv.{}"),
        shares=(1, 2),
    ),
    TensorRow(ours="image.pool.attention.out_projection.{}", theirs=("visual.trunk.attn_pool.proj.{}",)),
    TensorRow(ours="image.pool.ln_mlp.{}", theirs=("visual.trunk.attn_pool.norm.{}",)),
    TensorRow(ours="image.pool.mlp.up.{}", theirs=("visual.trunk.attn_pool.mlp.fc1.{}",)),
    TensorRow(ours="image.pool.mlp.down.{}", theirs=("visual.trunk.attn_pool.mlp.fc2.{}",)),
)
_IMAGE_ROWS = (
    TensorRow(ours="image.patch_embedding.{}", theirs=("visual.trunk.patch_embed.proj.{}",)),
    TensorRow(ours="image.position_embedding", theirs=("visual.trunk.pos_embed",), boxed=1),
    TensorRow(ours="image.ln_post.{}", theirs=("visual.trunk.norm.{}",)),
    *POOL_ROWS,
    *block_rows(),
)
_PROJECTIONS: dict[str, dict[str, Any]] = {"biased": {"proj_bias": True}, "plain": {}, "none": {"proj_type": "none"}}
_TEXT_ROWS = (TensorRow(ours="text.projection.{}", theirs=("text_projection.{}",)), *TEXT_ROWS)
_TEXT_ROWS_WITHOUT_BIAS = (
    TensorRow(ours="text.projection.weight", theirs=("text_projection",), transposed=True),
    *TEXT_ROWS,
)


def _read_image(vision: Section, model_cfg: Section) -> dict[str, Any]:  # noqa: ARG001  # it says nothing of timm's
    found = {"timm_pool": "avg", "timm_proj": "linear", **vision}
    check_says("vision_cfg", found, {"timm_pool": "map", "timm_proj": "none"}, {})
    pixels = side(vision.get("image_size", 224))
    return {"kind": "siglip", "image_size": pixels, **SIZES[vision["timm_model_name"]]}


def _write_image(config: SigLIPImageTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "timm_model_name": named(config, SIZES),
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    }


def _reads_last(text: Section) -> bool:
    return bool(text.get("no_causal_mask")) and text.get("pool_type") == "last"


def _read_text(text: Section, model_cfg: Section) -> dict[str, Any]:
    kind, is_biased = text.get("proj_type", "linear"), bool(text.get("proj_bias", False))
    check_says(
        "text_cfg", text, TEXT_MUST | {"proj_bias": is_biased, "proj_type": "none" if kind == "none" else "linear"}, {}
    )
    width = text.get("width", 512)
    return {
        "kind": "siglip",
        "context_length": text.get("context_length", 77),
        "vocab_size": text.get("vocab_size", 49_408),
        "width": width,
        "layers": text.get("layers", 12),
        "heads": text.get("heads", 8),
        "projection": "none" if kind == "none" else "biased" if is_biased else "plain",
        **block_options(text, width, model_cfg),
    }


def _write_text(config: SigLIPTextTowerConfig) -> dict[str, Any]:
    if config.activation == "quick_gelu":
        raise ConfigError("open_clip's SigLIP and CLIPA have gelu or gelu_tanh. Got quick_gelu: keep it as a bundle.")
    return {
        "context_length": config.context_length,
        "vocab_size": config.vocab_size,
        "width": config.width,
        "heads": config.heads,
        "layers": config.layers,
        "no_causal_mask": True,
        "pool_type": "last",
        **_PROJECTIONS[config.projection],
        **written_options(config),
    }


SIGLIP_IMAGE = TowerLayout(
    kind="siglip",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    read=_read_image,
    write=_write_image,
    rows=lambda _: _IMAGE_ROWS,
)
SIGLIP_TEXT = TowerLayout(
    kind="siglip",
    fits=_reads_last,
    read=_read_text,
    write=_write_text,
    rows=lambda config: _TEXT_ROWS if config.projection == "biased" else _TEXT_ROWS_WITHOUT_BIAS,
)
