import pytest

from diptych.errors import ConfigError
from diptych.weights.published import published_configs, published_models
from diptych.weights.verdict import check_config, refusals

MODELS = published_models()


def test_each_published_model_has_a_config_that_is_judged():
    assert published_configs().keys() == {model.hub for model in MODELS}
    why = refusals(MODELS)
    assert why.keys() <= published_configs().keys()
    assert all("\n" not in sentence and sentence.endswith(".") for sentence in why.values())


@pytest.mark.parametrize("family", ["OpenAI", "OpenCLIP", "MetaCLIP", "DFN", "SigLIP 2"])
def test_what_opened_before_the_others_opens(family: str):
    some = [model for model in MODELS if model.family == family]
    assert some
    assert refusals(some) == {}


def test_a_model_of_another_kind_is_named():
    (blip,) = (model for model in MODELS if model.hub == "hf:Salesforce/blip2-itm-vit-g")
    assert "'blip-2'" in refusals([blip])[blip.hub]


def test_configs_of_either_library_and_our_own_are_judged():
    check_config({"model_type": "diptych-clip"})
    check_config({"model_type": "clip"})
    check_config({"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}})
    with pytest.raises(ConfigError, match="hidden_act"):
        check_config({"model_type": "clip", "vision_config": {"hidden_act": "x"}})
    with pytest.raises(ConfigError, match=r"tokenizer_kwargs\.clean"):
        check_config({"embed_dim": 512, "vision_cfg": {}, "text_cfg": {"tokenizer_kwargs": {"clean": "no"}}})


def test_names_and_nulls_of_the_table_become_a_config():
    config = published_configs()["hf:timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k"]
    assert config["vision_cfg"] == {
        "timm_pool": "token",
        "timm_proj": None,
        "timm_model_name": "eva02_base_patch16_clip_224",
        "image_size": 224,
    }
    assert config["embed_dim"] == 512
