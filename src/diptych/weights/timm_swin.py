"""The Swin transformer of open_clip's configs, which it takes from timm."""

from typing import Any

from diptych.model.swin_tower import SwinTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.timm_names import check_timm, named, sizes_of
from diptych.weights.tower_layout import Section, TowerLayout

SIZES: dict[str, dict[str, Any]] = {
    "swin_base_patch4_window7_224": {
        "image_size": 224, "width": 128, "layers": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 7,
    },
}  # fmt: skip
_TRUNK = "visual.trunk"
_ROWS = (
    TensorRow(ours="image.patch_embedding.{}", theirs=(f"{_TRUNK}.patch_embed.proj.{{}}",)),
    TensorRow(ours="image.ln_pre.{}", theirs=(f"{_TRUNK}.patch_embed.norm.{{}}",)),
    TensorRow(ours="image.stages.{}.downsample.{}", theirs=(f"{_TRUNK}.layers.{{}}.downsample.{{}}",)),
    *(
        TensorRow(ours=f"image.stages.{{}}.blocks.{{}}.{ours}", theirs=(f"{_TRUNK}.layers.{{}}.blocks.{{}}.{theirs}",))
        for ours, theirs in (
            ("ln_attention.{}", "norm1.{}"),
            ("attention.position_table", "attn.relative_position_bias_table"),
            ("attention.in_projection.{}", "attn.qkv.{}"),
            ("attention.out_projection.{}", "attn.proj.{}"),
            ("ln_mlp.{}", "norm2.{}"),
            ("mlp.up.{}", "mlp.fc1.{}"),
            ("mlp.down.{}", "mlp.fc2.{}"),
        )
    ),
    TensorRow(ours="image.ln_post.{}", theirs=(f"{_TRUNK}.norm.{{}}",)),
    TensorRow(ours="image.projection.{}", theirs=("visual.head.proj.{}",)),
)


def _read(vision: Section, _: Section) -> dict[str, Any]:
    check_timm(vision, pool="", projection="linear")
    return {"kind": "swin", **sizes_of(vision, SIZES)}


def _write(config: SwinTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "timm_model_name": named(config, SIZES),
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    }


SWIN = TowerLayout(
    kind="swin",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    read=_read,
    write=_write,
    rows=lambda _: _ROWS,
)
