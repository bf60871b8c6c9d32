"""PE-Core's image towers as open_clip has them, which takes them from timm."""

from typing import Any

from diptych.model.perception_tower import PerceptionTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.timm_names import check_timm, named, sizes_of
from diptych.weights.timm_siglip import POOL_ROWS
from diptych.weights.timm_vit import block_rows
from diptych.weights.tower_layout import Section, TowerLayout

SIZES: dict[str, dict[str, Any]] = {
    "vit_pe_core_tiny_patch16_384": {"image_size": 384, "patch_size": 16, "width": 192, "layers": 12, "heads": 3},
    "vit_pe_core_small_patch16_384": {"image_size": 384, "patch_size": 16, "width": 384, "layers": 12, "heads": 6},
    "vit_pe_core_base_patch16_224": {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "heads": 12},
    "vit_pe_core_large_patch14_336": {"image_size": 336, "patch_size": 14, "width": 1024, "layers": 24, "heads": 16},
    "vit_pe_core_gigantic_patch14_448": {
        **{"image_size": 448, "patch_size": 14, "width": 1536, "layers": 50, "heads": 16, "mlp_width": 8960},
        "class_token": False,
    },
}

_TRUNK = "visual.trunk"
_ROWS = (
    TensorRow(ours="image.class_embedding", theirs=(f"{_TRUNK}.cls_token",), boxed=2),
    TensorRow(ours="image.position_embedding", theirs=(f"{_TRUNK}.pos_embed",), boxed=1),
    *(
        TensorRow(ours=f"image.{ours}.{{}}", theirs=(f"{_TRUNK}.{theirs}.{{}}",))
        for ours, theirs in (
            ("patch_embedding", "patch_embed.proj"),
            ("ln_pre", "norm_pre"),
            ("ln_post", "norm"),
            ("projection", "head"),
        )
    ),
    *POOL_ROWS,
    *block_rows(),
)


def _read(vision: Section, _: Section) -> dict[str, Any]:
    check_timm(vision, pool="map", projection=None)
    return {"kind": "perception", **sizes_of(vision, SIZES)}


def _write(config: PerceptionTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "timm_model_name": named(config, SIZES),
        "timm_pool": "map",
        "timm_proj": None,
    }


PERCEPTION = TowerLayout(
    kind="perception",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    read=_read,
    write=_write,
    rows=lambda _: _ROWS,
    has_text_module=True,
)
