"""FastViT as MobileCLIP and open_clip have it, which takes it from timm."""

import dataclasses
from collections.abc import Collection
from typing import Any

from diptych.errors import ConfigError
from diptych.model.fastvit_tower import FastViTTowerConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.timm_names import check_timm, named, sizes_of
from diptych.weights.tower_layout import Section, TowerLayout

_FIVE_STAGES = {
    "expansion": 4,
    "attention_stages": 2,
    "attention_norm": "layer",
    "squeezed_stages": 0,
    "stem_scales": False,
}
SIZES: dict[str, dict[str, Any]] = {
    "fastvit_mci0": {"widths": (64, 128, 256, 512), "layers": (2, 6, 10, 2)},
    "fastvit_mci1": {"widths": (64, 128, 256, 512), "layers": (4, 12, 20, 4)},
    "fastvit_mci2": {"widths": (80, 160, 320, 640), "layers": (4, 12, 24, 4)},
    "fastvit_mci3": {"widths": (96, 192, 384, 768, 1536), "layers": (2, 12, 24, 4, 2), **_FIVE_STAGES},
    "fastvit_mci4": {"widths": (128, 256, 512, 1024, 2048), "layers": (2, 12, 24, 4, 4), **_FIVE_STAGES},
}
_FUSED = ".reparam_conv"  # what timm calls the one convolution that branches were fused to
_TRUNK = "visual.trunk"
_BLOCK = "stages.{}.blocks.{}"
_HALVING = "stages.{}.downsample"


def _row(ours: str, theirs: str, *, trailing: int = 0) -> TensorRow:
    return TensorRow(ours=f"image.{ours}", theirs=(f"{_TRUNK}.{theirs}",), trailing=trailing)


# Of branches, ours and theirs: convolutions and their batch norms, and the batch norm alone.
_BRANCHES = tuple(
    (f"branches.{number}.{ours}.{{}}", f"{name}.{theirs}.{{}}")
    for number, name in ((0, "conv_kxk.0"), (1, "conv_scale"))
    for ours, theirs in (("conv", "conv"), ("norm", "bn"))
)
_HALVING_BRANCHES = tuple(
    (f"branches.{number}.{ours}.{{}}", f"{name}.{theirs}.{{}}")
    for number, name in ((0, "large_conv"), (1, "small_conv"))
    for ours, theirs in (("conv", "conv"), ("norm", "bn"))
)
_UNITS = (("stem.{}", "stem.{}"), (f"{_HALVING}.1", f"{_HALVING}.proj.1"), ("last", "final_conv"))
# Where parallel branches are, or one convolution: ours and theirs.
_APART = (
    *(
        _row(f"{ours}.conv.{part}", f"{theirs}.{their_part}")
        for ours, theirs in _UNITS
        for part, their_part in (*_BRANCHES, ("identity.{}", "identity.{}"))
    ),
    *(_row(f"{_HALVING}.0.conv.{part}", f"{_HALVING}.proj.0.{their_part}") for part, their_part in _HALVING_BRANCHES),
    *(
        _row(f"{_BLOCK}.mixer.look.{part}", f"{_BLOCK}.token_mixer.mixer.{their_part}")
        for part, their_part in (*_BRANCHES, ("identity.{}", "identity.{}"))
    ),
    _row(f"{_BLOCK}.mixer.norm.{{}}", f"{_BLOCK}.token_mixer.norm.identity.{{}}"),
    _row(f"{_BLOCK}.mixer.scale", f"{_BLOCK}.token_mixer.layer_scale.gamma", trailing=2),
    _row("stages.{}.places.{}", "stages.{}.pos_emb.pos_enc.{}"),
)
_IN_ONE = (
    *(_row(f"{ours}.conv.{{}}", f"{theirs}{_FUSED}.{{}}") for ours, theirs in _UNITS),
    _row(f"{_HALVING}.0.conv.{{}}", f"{_HALVING}.proj.0{_FUSED}.{{}}"),
    _row(f"{_BLOCK}.mixer.{{}}", f"{_BLOCK}.token_mixer{_FUSED}.{{}}"),
    _row("stages.{}.places.{}", f"stages.{{}}.pos_emb{_FUSED}.{{}}"),
)
_SQUEEZES = tuple(
    _row(f"{ours}.squeeze.{part}.{{}}", f"{theirs}.se.{their_part}.{{}}")
    for ours, theirs in ((f"{_HALVING}.0", f"{_HALVING}.proj.0"), ("last", "final_conv"))
    for part, their_part in (("down", "fc1"), ("up", "fc2"))
)
_ATTENTION = (
    _row(f"{_BLOCK}.attention.in_projection.{{}}", f"{_BLOCK}.token_mixer.qkv.{{}}"),
    _row(f"{_BLOCK}.attention.out_projection.{{}}", f"{_BLOCK}.token_mixer.proj.{{}}"),
    _row(f"{_BLOCK}.attention_scale", f"{_BLOCK}.layer_scale_1.gamma", trailing=2),
)
_MLP = (
    _row(f"{_BLOCK}.mlp.look.branches.0.conv.{{}}", f"{_BLOCK}.mlp.conv.conv.{{}}"),
    _row(f"{_BLOCK}.mlp.look.branches.0.norm.{{}}", f"{_BLOCK}.mlp.conv.bn.{{}}"),
    _row(f"{_BLOCK}.mlp.up.{{}}", f"{_BLOCK}.mlp.fc1.{{}}"),
    _row(f"{_BLOCK}.mlp.down.{{}}", f"{_BLOCK}.mlp.fc2.{{}}"),
)


def _rows(config: FastViTTowerConfig) -> tuple[TensorRow, ...]:
    scales = (  # of MLPs, which timm numbers where attention has one too
        _row(
            f"stages.{stage}.blocks.{{}}.mlp_scale",
            f"stages.{stage}.blocks.{{}}.layer_scale{'_2' if config.attends(stage) else ''}.gamma",
            trailing=2,
        )
        for stage in range(len(config.layers))
    )
    form = _IN_ONE if config.fused else _APART
    norm = _row(f"{_BLOCK}.norm.{{}}", f"{_BLOCK}.norm.{{}}")  # the last: names of others end alike
    return (*scales, *_ATTENTION, *_MLP, *_SQUEEZES, *form, _row("projection.{}", "head.fc.{}"), norm)


def _read(vision: Section, _: Section) -> dict[str, Any]:
    check_timm(vision, pool="avg", projection=None)
    return {"kind": "fastvit", **sizes_of(vision, SIZES, any_image_size=True)}


def _write(config: FastViTTowerConfig) -> dict[str, Any]:
    if config.fused:
        raise ConfigError(
            "open_clip builds a FastViT with its branches, and those of this one were fused to one convolution. "
            "Keep it as a bundle."
        )
    return {
        "image_size": config.image_size,
        "timm_model_name": named(config, SIZES, any_image_size=True),
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": None,
    }


def _by_names(config: FastViTTowerConfig, names: Collection[str]) -> FastViTTowerConfig:
    return dataclasses.replace(config, fused=any(f"{_FUSED}." in name for name in names))


FASTVIT = TowerLayout(
    kind="fastvit",
    fits=lambda vision: vision.get("timm_model_name") in SIZES,
    read=_read,
    write=_write,
    rows=_rows,
    has_text_module=True,
    by_names=_by_names,
)
