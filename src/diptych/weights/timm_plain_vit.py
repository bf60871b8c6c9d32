"""Vision transformers as timm has them for classes, which BiomedCLIP took one of: no layer norm before the blocks."""

from typing import Any

from diptych.model.image_tower import ImageTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.open_clip_towers import side
from diptych.weights.timm_vit import block_rows, name_of
from diptych.weights.tower_layout import Section, TowerLayout, check_says

_OPTIONS: dict[str, Any] = {
    "activation": "gelu",
    "layer_norm_eps": 1e-6,
    "pool": "class",
    "stem": "patch",
    "has_ln_pre": False,
    "has_patch_bias": True,
    "norms_twice": False,
}
# Sizes by timm's name, which ends in pixels of one side.
SIZES: dict[str, dict[str, Any]] = {
    f"vit_{name}_patch{patch_size}_{pixels}": {
        "patch_size": patch_size,
        "width": width,
        "layers": layers,
        "heads": heads,
        "mlp_width": 4 * width,
        **_OPTIONS,
    }
    for name, width, layers, heads in (("small", 384, 12, 6), ("base", 768, 12, 12), ("large", 1024, 24, 16))
    for patch_size in (16, 32)
    for pixels in (224, 384)
}


def _read(vision: Section, model_cfg: Section) -> dict[str, Any]:  # noqa: ARG001  # it says nothing of towers of timm
    found = {"timm_pool": "avg", **vision}
    pool = "" if found["timm_pool"] == "token" else found["timm_pool"]
    check_says("vision_cfg", {**found, "timm_pool": pool}, {"timm_pool": "", "timm_proj": "linear"}, {})
    return {
        "image_size": side(vision.get("image_size", 224)),
        **SIZES[vision["timm_model_name"]],
        "has_projection_bias": bool(vision.get("timm_proj_bias", False)),
    }


def _write(config: ImageTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "timm_model_name": name_of(config, SIZES),
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        **({"timm_proj_bias": True} if config.has_projection_bias else {}),
    }


_ROWS = (
    TensorRow(ours="image.class_embedding", theirs=("visual.trunk.cls_token",), boxed=2),
    TensorRow(ours="image.position_embedding", theirs=("visual.trunk.pos_embed",), boxed=1),
    TensorRow(ours="image.patch_embedding.{}", theirs=("visual.trunk.patch_embed.proj.{}",)),
    TensorRow(ours="image.ln_post.{}", theirs=("visual.trunk.norm.{}",)),
    TensorRow(ours="image.projection", theirs=("visual.head.proj.weight",), transposed=True),
    TensorRow(ours="image.projection_bias", theirs=("visual.head.proj.bias",)),
    *block_rows(),
)

PLAIN_VIT = TowerLayout(
    kind="vit",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    has=lambda config: config.has_patch_bias or config.norms_twice,
    read=_read,
    write=_write,
    rows=lambda _: _ROWS,
)
