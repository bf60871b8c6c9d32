"""ConvNeXt as open_clip has it, which takes it from timm."""

import dataclasses
from typing import Any

from diptych.errors import ConfigError
from diptych.model.convnext_tower import ConvNeXtTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.timm_names import check_timm, named, sizes_of
from diptych.weights.tower_layout import Section, TowerLayout

SIZES: dict[str, dict[str, Any]] = {
    "convnext_tiny": {"widths": (96, 192, 384, 768), "layers": (3, 3, 9, 3)},
    "convnext_small": {"widths": (96, 192, 384, 768), "layers": (3, 3, 27, 3)},
    "convnext_base": {"widths": (128, 256, 512, 1024), "layers": (3, 3, 27, 3)},
    "convnext_large": {"widths": (192, 384, 768, 1536), "layers": (3, 3, 27, 3)},
    "convnext_xlarge": {"widths": (256, 512, 1024, 2048), "layers": (3, 3, 27, 3)},
    "convnext_xxlarge": {"widths": (384, 768, 1536, 3072), "layers": (3, 4, 30, 3), "layer_norm_eps": 1e-5},
}
_TRUNK, _HEAD = "visual.trunk", "visual.head"
_BLOCK = "stages.{}.blocks.{}"
_ROWS = (
    TensorRow(ours="image.stem.{}", theirs=(f"{_TRUNK}.stem.{{}}",)),
    TensorRow(ours="image.stages.{}.downsample.{}", theirs=(f"{_TRUNK}.stages.{{}}.downsample.{{}}",)),
    *(
        TensorRow(ours=f"image.{_BLOCK}.{ours}", theirs=(f"{_TRUNK}.{_BLOCK}.{theirs}",))
        for ours, theirs in (
            ("depthwise.{}", "conv_dw.{}"),
            ("norm.{}", "norm.{}"),
            ("up.{}", "mlp.fc1.{}"),
            ("down.{}", "mlp.fc2.{}"),
            ("scale", "gamma"),
        )
    ),
    TensorRow(ours="image.norm.{}", theirs=(f"{_TRUNK}.head.norm.{{}}",)),
    TensorRow(ours="image.projection.0.{}", theirs=(f"{_HEAD}.mlp.fc1.{{}}",)),
    TensorRow(ours="image.projection.2.{}", theirs=(f"{_HEAD}.mlp.fc2.{{}}",)),
    TensorRow(ours="image.projection.{}", theirs=(f"{_HEAD}.proj.{{}}",)),
)


def _read(vision: Section, _: Section) -> dict[str, Any]:
    pool, projection = vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear")
    bias = vision.get("timm_proj_bias", False)
    if pool not in ("", "avg") or projection not in ("linear", "mlp"):
        raise ConfigError(
            "vision_cfg of a ConvNeXt must have timm_pool '' or 'avg' and timm_proj 'linear' or 'mlp'. "
            f"Got {pool!r} and {projection!r}: open it with open_clip."
        )
    check_timm({**vision, "timm_proj_bias": False}, pool=pool, projection=projection)
    sizes = sizes_of(vision, SIZES, any_image_size=True)
    return {"kind": "convnext", **sizes, "projection": projection, "projection_bias": bool(bias)}


def _write(config: ConvNeXtTowerConfig) -> dict[str, Any]:
    trunk = dataclasses.replace(config, projection="linear", projection_bias=False)
    return {
        "image_size": config.image_size,
        "timm_model_name": named(trunk, SIZES, any_image_size=True),
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": config.projection,
        **({"timm_proj_bias": True} if config.projection_bias else {}),
    }


CONVNEXT = TowerLayout(
    kind="convnext",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    read=_read,
    write=_write,
    rows=lambda _: _ROWS,
)
