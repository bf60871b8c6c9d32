"""Plain vision transformers of timm, as MobileCLIP has them: CLIP's with a bias behind it, one behind convolutions."""

from typing import Any

from diptych.model.image_tower import ImageTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.open_clip_towers import side
from diptych.weights.timm_names import named
from diptych.weights.tower_layout import Section, TowerLayout, check_says

_BASE, _LARGE, _HUGE = (
    {"width": width, "layers": layers, "heads": heads, "mlp_width": 4 * width}
    for width, layers, heads in ((768, 12, 12), (1024, 24, 16), (1280, 32, 16))
)
_OPTIONS: dict[str, Any] = {"activation": "gelu", "layer_norm_eps": 1e-5, "has_projection_bias": True}
# Sizes by timm's name, which ends in pixels of one side.
SIZES: dict[str, dict[str, Any]] = {
    **{
        f"vit_{name}_patch{patch_size}_clip_{pixels}": {"patch_size": patch_size, **size, **_OPTIONS}
        for name, size, patch_size, many in (
            ("base", _BASE, 32, (224, 256, 384, 448)),
            ("base", _BASE, 16, (224, 384)),
            ("large", _LARGE, 14, (224, 336)),
            ("huge", _HUGE, 14, (224, 336, 378)),
        )
        for pixels in many
    },
    "vit_base_mci_224": {
        "patch_size": 16,
        **_BASE,
        **_OPTIONS,
        "layer_norm_eps": 1e-6,
        "has_ln_pre": False,
        "stem": "convolutions",
    },
}


def block_rows() -> tuple[TensorRow, ...]:
    """The blocks of timm's vision transformers."""
    return tuple(
        TensorRow(ours=f"image.blocks.{{}}.{ours}.{{}}", theirs=(f"visual.trunk.blocks.{{}}.{theirs}.{{}}",))
        for ours, theirs in (
            ("ln_attention", "norm1"),
            ("attention.in_projection", "attn.qkv"),
            ("attention.out_projection", "attn.proj"),
            ("ln_mlp", "norm2"),
            ("mlp.up", "mlp.fc1"),
            ("mlp.down", "mlp.fc2"),
        )
    )


_ROWS = (
    TensorRow(ours="image.class_embedding", theirs=("visual.trunk.cls_token",), boxed=2),
    TensorRow(ours="image.position_embedding", theirs=("visual.trunk.pos_embed",), boxed=1),
    TensorRow(ours="image.ln_pre.{}", theirs=("visual.trunk.norm_pre.{}",)),
    TensorRow(ours="image.ln_post.{}", theirs=("visual.trunk.norm.{}",)),
    TensorRow(ours="image.projection", theirs=("visual.trunk.head.weight",), transposed=True),
    TensorRow(ours="image.projection_bias", theirs=("visual.trunk.head.bias",)),
    *block_rows(),
)
_PATCH_ROWS = (*_ROWS, TensorRow(ours="image.patch_embedding.{}", theirs=("visual.trunk.patch_embed.proj.{}",)))
_STEM_ROWS = (
    *_ROWS,
    *(
        TensorRow(
            ours=f"image.patch_embedding.{ours}.{{}}", theirs=(f"visual.trunk.patch_embed.backbone.{theirs}.{{}}",)
        )
        for ours, theirs in ((0, "0.conv"), (1, "0.bn"), (3, "1.conv"), (4, "1.bn"), (6, "2.conv"))
    ),
)


def _read(vision: Section, model_cfg: Section) -> dict[str, Any]:  # noqa: ARG001  # it says nothing of towers of timm
    found = {"timm_pool": "avg", "timm_proj": "linear", **vision}
    check_says("vision_cfg", found, {"timm_pool": "token", "timm_proj": None}, {})
    return {"image_size": side(vision.get("image_size", 224)), **SIZES[vision["timm_model_name"]]}


def _write(config: ImageTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "timm_model_name": named(config, SIZES),
        "timm_model_pretrained": False,
        "timm_pool": "token",
        "timm_proj": None,
    }


TIMM_VIT = TowerLayout(
    kind="vit",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    has=lambda config: config.has_projection_bias,  # open_clip's own have none
    read=_read,
    write=_write,
    rows=lambda config: _STEM_ROWS if config.stem == "convolutions" else _PATCH_ROWS,
)
