import pytest

from diptych.errors import ConfigError
from diptych.model.convnext_tower import ConvNeXtTowerConfig
from diptych.weights.timm_names import check_timm, named, sizes_of

SIZES = {
    "small_64": {"image_size": 64, "widths": (8, 16), "layers": (1, 1)},
    "large_64": {"image_size": 64, "widths": [8, 16], "layers": [1, 2]},  # as a JSON file has it
}


def test_a_section_may_say_what_published_models_say_and_what_changes_no_feature():
    vision = {"timm_model_name": "small_64", "timm_pool": "", "timm_drop_path": 0.1, "timm_model_pretrained": True}
    check_timm(vision, pool="", projection="linear")
    check_timm({**vision, "timm_proj": ""}, pool="", projection=None)
    for change, message in (
        ({"timm_pool": "avg"}, r"vision_cfg\.timm_pool must be '' for small_64, .* Got 'avg'"),
        ({"timm_proj": "mlp"}, r"vision_cfg\.timm_proj must be 'linear' for small_64, .* Got 'mlp'"),
        ({"timm_proj_bias": True}, r"vision_cfg\.timm_proj_bias must be False for small_64, .* Got True"),
        ({"layers": 3}, r"vision_cfg\.layers must be absent, as small_64 tells its sizes itself\. Got 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_timm({**vision, **change}, pool="", projection="linear")


def test_a_name_tells_the_sizes_and_the_picture_size_unless_any_is_as_good():
    assert sizes_of({"timm_model_name": "small_64", "image_size": [64, 64]}, SIZES) == SIZES["small_64"]
    vision = {"timm_model_name": "small_64", "image_size": 96}
    assert sizes_of(vision, SIZES, any_image_size=True) == {**SIZES["small_64"], "image_size": 96}
    with pytest.raises(ConfigError, match=r"vision_cfg\.image_size must be 64, what small_64 takes\. Got 96"):
        sizes_of(vision, SIZES)


def test_sizes_have_the_name_that_tells_them_or_none():
    config = ConvNeXtTowerConfig(image_size=64, widths=(8, 16), layers=(1, 2))
    assert named(config, SIZES) == "large_64"
    other = ConvNeXtTowerConfig(image_size=96, widths=(8, 16), layers=(1, 1))
    assert named(other, SIZES, any_image_size=True) == "small_64"
    with pytest.raises(ConfigError, match=r"none has the sizes of this one .*96 px\)\. Keep it as a bundle"):
        named(other, SIZES)
