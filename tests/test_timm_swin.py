import pytest

from diptych.errors import ConfigError
from diptych.model.swin_tower import SwinTowerConfig
from diptych.weights.open_clip import config_from_open_clip
from diptych.weights.timm_swin import SWIN


def read(**options: object) -> SwinTowerConfig:
    vision = {"timm_model_name": "swin_base_patch4_window7_224", "timm_pool": "", "timm_proj": "linear", **options}
    text = {"width": 32, "heads": 2, "layers": 1}
    config = config_from_open_clip({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}).image
    assert isinstance(config, SwinTowerConfig)
    return config


def test_the_name_tells_the_sizes_and_the_sizes_the_name():
    assert read() == SwinTowerConfig()
    assert read(**SWIN.write(SwinTowerConfig())) == SwinTowerConfig()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timm_proj": "mlp"}, r"timm_proj must be 'linear' for swin_base_patch4_window7_224, .* Got 'mlp'"),
        ({"image_size": 448}, r"image_size must be 224, what swin_base_patch4_window7_224 takes\. Got 448"),
    ],
)
def test_what_is_another_tower_is_refused_in_a_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        read(**options)


def test_sizes_that_timm_has_no_name_for_stay_a_bundle():
    with pytest.raises(ConfigError, match="Keep it as a bundle"):
        SWIN.write(SwinTowerConfig(image_size=448))
