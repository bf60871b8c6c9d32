"""EVA-CLIP by timm's names: sizes as many as open_clip counts, other heads refused. test_zoo.py has the features."""

import pytest

from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.eva_tower import EvaTowerConfig
from diptych.weights.open_clip import config_from_open_clip, fits_open_clip
from diptych.weights.timm_eva import EVA, SIZES

_TEXTS = {512: (8, 12), 768: (12, 12), 1024: (16, 24), 1280: (20, 32)}  # heads and layers, by width


@pytest.mark.parametrize(
    ("timm_name", "embed_dim", "text_width", "parameters"),
    [
        ("eva02_base_patch16_clip_224", 512, 512, 149_691_137),
        ("eva02_large_patch14_clip_224", 768, 768, 427_755_457),
        ("eva02_large_patch14_clip_336", 768, 768, 428_083_137),
        ("eva02_enormous_patch14_clip_224", 1024, 1024, 4_704_589_569),
        ("eva02_enormous_patch14_clip_224", 1024, 1280, 5_044_889_089),
        ("eva_giant_patch14_224", 1024, 768, 1_136_435_841),
        ("eva_giant_patch14_224", 1024, 1024, 1_366_621_569),
    ],
)
def test_a_published_model_has_as_many_parameters_as_in_open_clip(timm_name, embed_dim, text_width, parameters):
    heads, layers = _TEXTS[text_width]
    vision = {"timm_model_name": timm_name, "timm_model_pretrained": False, "timm_pool": "token", "timm_proj": None}
    config = config_from_open_clip(
        {
            "embed_dim": embed_dim,
            "vision_cfg": {"image_size": SIZES[timm_name]["image_size"], **vision},
            "text_cfg": {"width": text_width, "heads": heads, "layers": layers},
            "custom_text": True,
        }
    )
    assert sum(parameter.numel() for parameter in CLIP(config).parameters()) == parameters
    assert config.text.layer_norm_eps == 1e-5
    assert (config.image.layer_norm_eps, config.text.activation) == (1e-6, "gelu")
    assert fits_open_clip(config)


@pytest.mark.parametrize("name", SIZES)
def test_a_name_comes_back(name: str):
    pixels = SIZES[name]["image_size"]
    section = {"image_size": pixels, "timm_model_name": name, "timm_pool": "token", "timm_proj": None}
    assert EVA.fits(section)
    back = EVA.write(EvaTowerConfig(**EVA.read(section, {})))
    twin = {"eva_giant_patch14_clip_224": "eva_giant_patch14_224"}  # they differ in a default of timm's
    assert back == {**section, "timm_model_name": twin.get(name, name)}


def test_rotary_positions_of_larger_pictures_count_as_those_of_224_pixels():
    config = EvaTowerConfig(**SIZES["eva02_large_patch14_clip_336"])
    assert (config.rotary_grid, config.patches) == (16, 24**2)


def test_the_mean_of_patches_is_another_model():
    section = {"image_size": 224, "timm_model_name": "eva_giant_patch14_224"}
    with pytest.raises(ConfigError, match=r"timm_pool must be 'token' for eva_giant_patch14_224.*Got 'avg'"):
        EVA.read(section, {})
