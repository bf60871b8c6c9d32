"""ViTamin by timm's names: sizes as many as open_clip counts. test_zoo.py has the features."""

import pytest

from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.vitamin_tower import ViTaminTowerConfig
from diptych.weights.open_clip import config_from_open_clip, fits_open_clip
from diptych.weights.timm_vitamin import SIZES, VITAMIN

_TEXTS = {384: (6, 12), 512: (8, 12), 768: (12, 12), 1024: (16, 24), 1152: (16, 27)}  # heads and layers, by width


def section(name: str, image_size: int) -> dict[str, object]:
    return {"image_size": image_size, "timm_model_name": name, "timm_pool": "", "timm_proj": "linear"}


@pytest.mark.parametrize(
    ("timm_name", "image_size", "width", "parameters"),
    [
        ("vitamin_small_224", 224, 384, 62_469_185),
        ("vitamin_small_224", 224, 768, 145_822_913),
        ("vitamin_base_224", 224, 512, 150_953_345),
        ("vitamin_base_224", 224, 768, 211_372_161),
        ("vitamin_large_224", 224, 768, 456_968_353),
        ("vitamin_large_256", 256, 768, 457_029_793),
        ("vitamin_large_336", 336, 768, 457_219_233),
        ("vitamin_large_384", 384, 768, 457_357_473),
        ("vitamin_large2_224", 224, 1024, 687_612_833),
        ("vitamin_large2_256", 256, 1024, 687_674_273),
        ("vitamin_large2_336", 336, 1024, 687_863_713),
        ("vitamin_large2_384", 384, 1024, 688_001_953),
        ("vitamin_xlarge_256", 256, 1152, 924_776_257),
        ("vitamin_xlarge_336", 336, 1152, 924_776_257),
        ("vitamin_xlarge_384", 256, 1152, 924_776_257),  # as it is published
    ],
)
def test_a_published_model_has_as_many_parameters_as_in_open_clip(timm_name, image_size, width, parameters):
    heads, layers = _TEXTS[width]
    config = config_from_open_clip(
        {
            "embed_dim": width,
            "vision_cfg": {**section(timm_name, image_size), "timm_drop": 0.0, "timm_drop_path": 0.1},
            "text_cfg": {"width": width, "heads": heads, "layers": layers},
            "custom_text": True,
        }
    )
    assert sum(parameter.numel() for parameter in CLIP(config).parameters()) == parameters
    assert (config.image.image_size, config.image.layer_norm_eps) == (image_size, 1e-6)
    assert fits_open_clip(config)


@pytest.mark.parametrize("name", SIZES)
def test_a_name_comes_back_or_one_of_the_same_sizes(name: str):
    said = section(name, SIZES[name]["image_size"])
    assert VITAMIN.fits(said)
    config = ViTaminTowerConfig(**VITAMIN.read(said, {}))
    back = VITAMIN.write(config)
    assert back == {**said, "timm_model_name": name.replace("large2", "large")}  # the texts tell the two apart
    assert ViTaminTowerConfig(**VITAMIN.read(back, {})) == config


def test_learned_positions_hold_pictures_to_their_size_and_none_do_not():
    with pytest.raises(ConfigError, match=r"image_size must be 384, what vitamin_large_384 takes\. Got 256"):
        VITAMIN.read(section("vitamin_large_384", 256), {})
    config = ViTaminTowerConfig(**VITAMIN.read(section("vitamin_xlarge_384", 320), {}))
    assert config.image_size == 320
    assert ViTaminTowerConfig(**VITAMIN.read(VITAMIN.write(config), {})) == config


def test_the_classifier_of_timms_own_is_another_model():
    said = {**section("vitamin_small_224", 224), "timm_proj": None}
    with pytest.raises(ConfigError, match=r"timm_proj must be 'linear' for vitamin_small_224.*Got None"):
        VITAMIN.read(said, {})
