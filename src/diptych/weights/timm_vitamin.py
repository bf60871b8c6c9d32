"""ViTamin's image towers as open_clip has them, which takes them from timm."""

from typing import Any

from diptych.model.vitamin_tower import ViTaminTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.timm_names import check_timm, named, sizes_of
from diptych.weights.tower_layout import Section, TowerLayout

_LARGE = {"stem_width": 160, "width": 1024, "layers": 31, "heads": 16}
_XLARGE = {"stem_width": 192, "width": 1152, "layers": 32, "heads": 16, "has_positions": False}

SIZES: dict[str, dict[str, Any]] = {
    "vitamin_small_224": {"image_size": 224, "stem_width": 64, "width": 384, "layers": 14, "heads": 6},
    "vitamin_base_224": {"image_size": 224, "stem_width": 128, "width": 768, "layers": 14, "heads": 12},
    **{
        f"vitamin_{name}_{size}": {"image_size": size, **_LARGE}
        for name in ("large", "large2")
        for size in (224, 256, 336, 384)
    },
    **{f"vitamin_xlarge_{size}": {"image_size": size, **_XLARGE} for size in (256, 336, 384)},
}

_TRUNK = "visual.trunk"
_STEM = f"{_TRUNK}.patch_embed.backbone"
_ROWS = (
    TensorRow(ours="image.position_embedding", theirs=(f"{_TRUNK}.pos_embed",), boxed=1),
    TensorRow(ours="image.ln_post.{}", theirs=(f"{_TRUNK}.fc_norm.{{}}",)),
    TensorRow(ours="image.projection.{}", theirs=("visual.head.proj.{}",)),
    *(
        TensorRow(ours=f"image.stem.{ours}.{{}}", theirs=(f"{_STEM}.{theirs}.{{}}",))
        for ours, theirs in (
            ("first", "stem.conv1"),
            ("norm", "stem.norm1"),
            ("second", "stem.conv2"),
            ("last_norm", "pool.norm"),
            ("last", "pool.proj"),
        )
    ),
    *(
        TensorRow(ours=f"image.stem.stages.{{}}.{{}}.{ours}.{{}}", theirs=(f"{_STEM}.stages.{{}}.{{}}.{theirs}.{{}}",))
        for ours, theirs in (
            ("norm", "pre_norm"),
            ("widen", "conv1_1x1"),
            ("depthwise", "conv2_kxk"),
            ("narrow", "conv3_1x1"),
            ("shortcut", "shortcut.expand"),
        )
    ),
    *(
        TensorRow(ours=f"image.blocks.{{}}.{ours}.{{}}", theirs=(f"{_TRUNK}.blocks.{{}}.{theirs}.{{}}",))
        for ours, theirs in (
            ("ln_attention", "norm1"),
            ("attention.in_projection", "attn.qkv"),
            ("attention.out_projection", "attn.proj"),
            ("ln_mlp", "norm2"),
            ("mlp.0", "mlp.norm"),
            ("mlp.1.gate", "mlp.w0"),
            ("mlp.1.up", "mlp.w1"),
            ("mlp.1.down", "mlp.w2"),
        )
    ),
)


def _read(vision: Section, _: Section) -> dict[str, Any]:
    check_timm(vision, pool="", projection="linear")
    # The published config of xlarge_384 has pictures of 256: without positions open_clip goes by what it says.
    has_positions = SIZES[vision["timm_model_name"]].get("has_positions", True)
    return {"kind": "vitamin", **sizes_of(vision, SIZES, any_image_size=not has_positions)}


def _write(config: ViTaminTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "timm_model_name": named(config, SIZES, any_image_size=not config.has_positions),
        "timm_pool": "",
        "timm_proj": "linear",
    }


VITAMIN = TowerLayout(
    kind="vitamin",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    read=_read,
    write=_write,
    rows=lambda _: _ROWS,
    has_text_module=True,
)
