"""What a description says beside timm's name: heads and sizes that are other ones are refused by name."""

from typing import Any

import pytest

from diptych.errors import ConfigError
from diptych.model.convnext_tower import ConvNeXtTowerConfig
from diptych.model.eva_tower import EvaTowerConfig
from diptych.weights.timm_names import check_timm, named, sizes_of

SMALL = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "heads": 2, "mlp_width": 40}
SIZES = {"small_32": SMALL, "small_64": {**SMALL, "image_size": 64}, "wide_32": {**SMALL, "width": 48}}
VISION = {"image_size": 32, "timm_model_name": "small_32", "timm_pool": "token", "timm_proj": None}


@pytest.mark.parametrize(
    "more", [{}, {"timm_proj": ""}, {"timm_drop_path": 0.1, "timm_drop": 0.0, "timm_model_pretrained": False}]
)
def test_what_changes_no_feature_may_be_said(more: dict[str, Any]):
    check_timm({**VISION, **more}, pool="token", projection=None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"timm_pool": "avg"}, r"vision_cfg\.timm_pool must be 'token' for small_32.*Got 'avg'"),
        ({"timm_proj": "linear"}, r"vision_cfg\.timm_proj must be None for small_32.*Got 'linear'"),
        ({"timm_proj_bias": True}, r"vision_cfg\.timm_proj_bias must be False.*Got True"),
        ({"width": 24}, r"vision_cfg\.width must be absent, as small_32 tells its sizes itself\. Got 24"),
    ],
)
def test_another_head_or_size_is_refused(more: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        check_timm({**VISION, **more}, pool="token", projection=None)


def test_silence_is_open_clips_default():
    with pytest.raises(ConfigError, match=r"timm_pool must be 'token'.*Got 'avg'"):
        check_timm({"timm_model_name": "small_32"}, pool="token", projection=None)
    check_timm({"timm_model_name": "small_32"}, pool="avg", projection="linear")


def test_the_size_of_pictures_is_that_of_the_name_where_positions_are_learned():
    assert sizes_of({**VISION, "image_size": [32, 32]}, SIZES)["image_size"] == 32
    with pytest.raises(ConfigError, match=r"vision_cfg\.image_size must be 32, what small_32 takes\. Got 64"):
        sizes_of({**VISION, "image_size": 64}, SIZES)
    with pytest.raises(ConfigError, match="Got 224"):
        sizes_of({"timm_model_name": "small_32"}, SIZES)
    assert sizes_of({**VISION, "image_size": 64}, SIZES, any_image_size=True) == SIZES["small_64"]


def test_a_tower_is_named_by_its_sizes_and_that_of_its_pictures_comes_first():
    for name, sizes in SIZES.items():
        assert named(EvaTowerConfig(**sizes), SIZES) == name
    other = EvaTowerConfig(**{**SMALL, "image_size": 96, "rotary_grid": 4})
    with pytest.raises(ConfigError, match=r"none has the sizes of this one \(EVA ViT/8, 2 layers of 24, gelu, 96 px\)"):
        named(other, SIZES)
    assert named(other, SIZES, any_image_size=True) == "small_32"


def test_a_name_without_a_number_is_of_a_tower_that_takes_any_size():
    sizes = {"tiny": {"widths": [8, 16], "layers": [1, 2]}}  # as a JSON file has it
    config = ConvNeXtTowerConfig(image_size=96, widths=(8, 16), layers=(1, 2))
    assert named(config, sizes, any_image_size=True) == "tiny"
    assert sizes_of({"timm_model_name": "tiny", "image_size": 96}, sizes, any_image_size=True)["image_size"] == 96
