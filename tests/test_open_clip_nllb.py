import dataclasses

import pytest

from diptych.errors import ConfigError
from diptych.model.nllb_tower import NLLBTowerConfig
from diptych.weights.open_clip import config_from_open_clip
from diptych.weights.open_clip_nllb import NLLB, SIZES

VISION = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}


def config_of(hf_model_name: str, **text):
    text = {"hf_model_name": hf_model_name, "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler", **text}
    return config_from_open_clip({"embed_dim": 512, "vision_cfg": VISION, "text_cfg": text})


@pytest.mark.parametrize("name", SIZES)
def test_a_name_tells_all_and_is_found_again(name):
    config = config_of(name)
    assert isinstance(config.text, NLLBTowerConfig)
    assert (config.text.pool, config.text.head, config.text.context_length) == ("first", "linear", 77)
    written = NLLB.write(config.text)
    assert SIZES[written["hf_model_name"]] == SIZES[name]
    assert config_of(**written) == config


def test_a_name_that_is_not_known_and_sizes_that_have_none_are_refused():
    with pytest.raises(ConfigError, match=r"must be one of facebook/nllb-200-distilled-600M, .* Got 'nllb-moe'"):
        config_of("nllb-moe")
    text = config_of("facebook/nllb-200-distilled-600M").text
    assert isinstance(text, NLLBTowerConfig)
    with pytest.raises(ConfigError, match=r"by name, .* Got NLLB, 3 layers of 1024"):
        NLLB.write(dataclasses.replace(text, layers=3))
