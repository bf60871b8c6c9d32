"""PE-Core by timm's names: sizes as many as open_clip counts. test_zoo.py has the features."""

import pytest

from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.perception_tower import PerceptionTowerConfig
from diptych.weights.open_clip import config_from_open_clip, fits_open_clip
from diptych.weights.timm_perception import PERCEPTION, SIZES


@pytest.mark.parametrize(
    ("timm_name", "embed_dim", "context_length", "heads", "layers", "parameters"),
    [
        ("vit_pe_core_tiny_patch16_384", 512, 32, 8, 12, 69_546_113),
        ("vit_pe_core_small_patch16_384", 512, 32, 8, 12, 87_188_225),
        ("vit_pe_core_base_patch16_224", 1024, 32, 16, 24, 447_660_545),
        ("vit_pe_core_large_patch14_336", 1024, 32, 16, 24, 671_138_817),
        ("vit_pe_core_gigantic_patch14_448", 1280, 72, 20, 24, 2_419_267_841),
    ],
)
def test_a_published_model_has_as_many_parameters_as_in_open_clip(
    timm_name, embed_dim, context_length, heads, layers, parameters
):
    vision = {"timm_model_name": timm_name, "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": None}
    config = config_from_open_clip(
        {
            "embed_dim": embed_dim,
            "vision_cfg": {"image_size": SIZES[timm_name]["image_size"], **vision},
            "text_cfg": {"context_length": context_length, "width": embed_dim, "heads": heads, "layers": layers},
            "custom_text": True,
        }
    )
    assert sum(parameter.numel() for parameter in CLIP(config).parameters()) == parameters
    assert (config.image.layer_norm_eps, config.text.layer_norm_eps) == (1e-5, 1e-5)
    assert fits_open_clip(config)


@pytest.mark.parametrize("name", SIZES)
def test_a_name_comes_back(name: str):
    section = {"image_size": SIZES[name]["image_size"], "timm_model_name": name, "timm_pool": "map", "timm_proj": None}
    assert PERCEPTION.fits(section)
    assert PERCEPTION.write(PerceptionTowerConfig(**PERCEPTION.read(section, {}))) == section


def test_another_pool_is_another_model():
    section = {"image_size": 224, "timm_model_name": "vit_pe_core_base_patch16_224", "timm_pool": "avg"}
    with pytest.raises(ConfigError, match=r"timm_pool must be 'map' for vit_pe_core_base_patch16_224.*Got 'avg'"):
        PERCEPTION.read(section, {})
