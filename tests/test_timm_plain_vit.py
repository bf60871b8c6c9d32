import dataclasses

import pytest

from diptych.data.images import Preprocess
from diptych.errors import ConfigError
from diptych.model.image_tower import ImageTowerConfig
from diptych.weights.open_clip import config_from_open_clip, config_to_open_clip, fits_open_clip
from diptych.weights.timm_plain_vit import PLAIN_VIT, SIZES

TEXT = {"context_length": 77, "vocab_size": 49_408, "width": 512, "heads": 8, "layers": 12}


def config_of(timm_model_name: str, **vision):
    vision = {"timm_model_name": timm_model_name, "timm_pool": "", "timm_proj": "linear", **vision}
    return config_from_open_clip({"embed_dim": 512, "vision_cfg": vision, "text_cfg": TEXT})


@pytest.mark.parametrize("name", SIZES)
def test_a_name_tells_all_and_is_found_again(name):
    config = config_of(name, image_size=int(name.rpartition("_")[2]))
    assert isinstance(config.image, ImageTowerConfig)
    written = PLAIN_VIT.write(config.image)
    assert written["timm_model_name"] == name
    assert config_of(**written) == config


def test_biomedclips_image_tower_goes_out_by_its_name_and_with_a_bias_where_it_has_one():
    config = config_of("vit_base_patch16_224", timm_proj_bias=True)
    assert config_to_open_clip(config, Preprocess(image_size=224))["model_cfg"]["vision_cfg"]["timm_proj_bias"]
    for options in ({"has_patch_bias": False}, {"norms_twice": True}):
        other = dataclasses.replace(config, image=dataclasses.replace(config.image, **options))
        assert not fits_open_clip(other)


def test_another_pool_and_projection_are_refused():
    with pytest.raises(ConfigError, match=r"timm_pool must be '' or absent\. Got 'avg'"):
        config_of("vit_base_patch16_224", timm_pool="avg")
    with pytest.raises(ConfigError, match=r"timm_proj must be 'linear' or absent\. Got 'mlp'"):
        config_of("vit_base_patch16_224", timm_proj="mlp")
