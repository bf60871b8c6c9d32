"""EVA-CLIP's image towers as open_clip has them, which takes them from timm."""

from typing import Any

from diptych.model.eva_tower import EvaTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.timm_names import check_timm, named, sizes_of
from diptych.weights.tower_layout import Section, TowerLayout

_EVA = {"patch_size": 14, "width": 1408, "layers": 40, "heads": 16, "mlp_width": 6144, "block": "plain"}
_LARGE = {"patch_size": 14, "width": 1024, "layers": 24, "heads": 16, "mlp_width": 2730, "rotary_grid": 16}
_ENORMOUS = {"patch_size": 14, "width": 1792, "layers": 64, "heads": 16, "mlp_width": 15360, "block": "post_norm"}

SIZES: dict[str, dict[str, Any]] = {
    "eva_giant_patch14_224": {"image_size": 224, **_EVA},
    "eva_giant_patch14_clip_224": {"image_size": 224, **_EVA},
    "eva_giant_patch14_336": {"image_size": 336, **_EVA},
    "eva02_base_patch16_clip_224": {
        **{"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "heads": 12, "mlp_width": 2048},
        "rotary_grid": 16,  # that of patches of 14 pixels
    },
    "eva02_large_patch14_clip_224": {"image_size": 224, **_LARGE},
    "eva02_large_patch14_clip_336": {"image_size": 336, **_LARGE},
    "eva02_enormous_patch14_clip_224": {"image_size": 224, **_ENORMOUS},
}

_TRUNK = "visual.trunk"
_ROWS = (
    TensorRow(ours="image.class_embedding", theirs=(f"{_TRUNK}.cls_token",), boxed=2),
    TensorRow(ours="image.position_embedding", theirs=(f"{_TRUNK}.pos_embed",), boxed=1),
    *(
        TensorRow(ours=f"image.{ours}.{{}}", theirs=(f"{_TRUNK}.{theirs}.{{}}",))
        for ours, theirs in (("patch_embedding", "patch_embed.proj"), ("ln_post", "norm"), ("projection", "head"))
    ),
    *(
        TensorRow(ours=f"image.blocks.{{}}.{ours}.{{}}", theirs=(f"{_TRUNK}.blocks.{{}}.{theirs}.{{}}",))
        for ours, theirs in (
            ("ln_attention", "norm1"),
            ("attention.ln_inside", "attn.norm"),
            ("attention.out_projection", "attn.proj"),
            ("ln_mlp", "norm2"),
            ("mlp.gate", "mlp.fc1_g"),
            ("mlp.ln_inside", "mlp.norm"),
            ("mlp.down", "mlp.fc2"),
        )
    ),
)


def _rows(config: EvaTowerConfig) -> tuple[TensorRow, ...]:
    theirs = (
        {
            "in_projection.weight": ("q_proj.weight", "k_proj.weight", "v_proj.weight"),
            "query_bias": ("q_proj.bias",),
            "value_bias": ("v_proj.bias",),
        }
        if config.block == "trv"
        else {"in_projection.weight": ("qkv.weight",), "query_bias": ("q_bias",), "value_bias": ("v_bias",)}
    )
    up = "fc1_x" if config.block == "trv" else "fc1"
    return (
        *_ROWS,
        *(
            TensorRow(
                ours=f"image.blocks.{{}}.attention.{part}",
                theirs=tuple(f"{_TRUNK}.blocks.{{}}.attn.{name}" for name in names),
            )
            for part, names in theirs.items()
        ),
        TensorRow(ours="image.blocks.{}.mlp.up.{}", theirs=(f"{_TRUNK}.blocks.{{}}.mlp.{up}.{{}}",)),
    )


def _read(vision: Section, _: Section) -> dict[str, Any]:
    check_timm(vision, pool="token", projection=None)
    return {"kind": "eva", **sizes_of(vision, SIZES)}


def _write(config: EvaTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "timm_model_name": named(config, SIZES),
        "timm_pool": "token",
        "timm_proj": None,
    }


EVA = TowerLayout(
    kind="eva",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    read=_read,
    write=_write,
    rows=_rows,
    has_text_module=True,
)
