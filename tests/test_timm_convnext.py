import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.convnext_tower import ConvNeXtTowerConfig
from diptych.weights.open_clip import config_from_open_clip, naming_of
from diptych.weights.timm_convnext import CONVNEXT, SIZES

TEXT = {"width": 32, "heads": 2, "layers": 1}


def section(name: str = "convnext_base", **options: object) -> dict[str, object]:
    return {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": 256, **options}


def read(**options: object) -> ConvNeXtTowerConfig:
    config = config_from_open_clip({"embed_dim": 24, "vision_cfg": section(**options), "text_cfg": TEXT}).image
    assert isinstance(config, ConvNeXtTowerConfig)
    return config


@pytest.mark.parametrize("name", SIZES)
def test_a_name_tells_the_sizes_and_the_sizes_the_name(name):
    for options in ({}, {"timm_proj": "mlp", "timm_proj_bias": True, "image_size": 320}):
        config = read(name=name, **options)
        assert (config.widths, config.layers) == (SIZES[name]["widths"], SIZES[name]["layers"])
        assert config.layer_norm_eps == (1e-5 if name == "convnext_xxlarge" else 1e-6)  # as timm has it
        written = CONVNEXT.write(config)
        assert written["timm_model_name"] == name
        assert read(**{**section(), **written, "name": name}) == config


def test_what_training_drops_changes_no_feature_and_may_stand_there():
    assert read(timm_drop=0.1, timm_drop_path=0.1, timm_model_pretrained=False) == read()
    assert read(timm_pool="avg") == read()


@pytest.mark.parametrize("projection", ["linear", "mlp"])
@pytest.mark.parametrize("bias", [False, True])
def test_every_tensor_has_a_name_of_its_own(projection, bias):
    model_cfg = {
        "embed_dim": 24,
        "vision_cfg": section(timm_proj=projection, timm_proj_bias=bias),
        "text_cfg": TEXT,
    }
    config = config_from_open_clip(model_cfg)
    names = CLIP(config).state_dict()
    theirs = naming_of(config).from_ours({name: torch.empty(1) for name in names})
    assert len(theirs) == len(names)
    head = {name.removeprefix("visual.head.") for name in theirs if name.startswith("visual.head.")}
    last = "proj" if projection == "linear" else "mlp.fc2"
    first = set() if projection == "linear" else {"mlp.fc1.weight", "mlp.fc1.bias"}
    assert head == {f"{last}.weight", *first, *({f"{last}.bias"} if bias else ())}
    assert "visual.trunk.stages.3.blocks.2.mlp.fc1.weight" in theirs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timm_pool": "rot_attn"}, r"timm_pool '' or 'avg' and timm_proj 'linear' or 'mlp'\. Got 'rot_attn'"),
        ({"timm_proj": None}, r"Got '' and None: open it with open_clip"),
        ({"width": 768}, r"vision_cfg\.width must be absent, as convnext_base tells its sizes itself\. Got 768"),
        ({"name": "convnext_nano"}, r"timm_model_name must be None or absent\. Got 'convnext_nano'"),
        ({"image_size": 16}, r"image\.image_size must be at least 32"),
    ],
)
def test_what_is_another_tower_is_refused_in_a_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        read(**options)


def test_sizes_that_timm_has_no_name_for_stay_a_bundle():
    with pytest.raises(ConfigError, match=r"none has the sizes of this one .*Keep it as a bundle"):
        CONVNEXT.write(ConvNeXtTowerConfig(widths=(8, 16), layers=(1, 1)))
