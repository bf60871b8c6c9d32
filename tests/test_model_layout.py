import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig
from diptych.model.presets import preset
from diptych.weights.adapters import OWN
from diptych.weights.model_layout import ModelLayout, check_says, read_activation, section, vision_section


def read(_: object) -> CLIPConfig:
    return preset("tiny-vit")


def test_a_layout_that_says_nothing_of_writing_fits_no_model():
    layout = ModelLayout(model_types=("x",), read=read, naming=lambda _: OWN)
    assert not layout.fits(preset("tiny-vit"))


def test_names_of_some_versions_become_those_of_the_table():
    layout = ModelLayout(
        model_types=("x",), read=read, naming=lambda _: OWN, spellings=((r"^a\.layer\.", "a.layers."),)
    )
    one, two = torch.zeros(1), torch.ones(1)
    assert layout.respelt({"a.layer.0": one, "b.a.layer.0": two}) == {"a.layers.0": one, "b.a.layer.0": two}


def test_an_older_section_counts_and_what_is_no_object_or_no_colour_is_refused():
    assert section({"text_config": {"a": 1}, "text_config_dict": {"b": 2}}, "text_config") == {"b": 2}
    assert section({"text_config": None}, "text_config") == {}
    with pytest.raises(ConfigError, match=r"text_config must be a JSON object\. Got 7"):
        section({"text_config": 7}, "text_config")
    with pytest.raises(ConfigError, match=r"num_channels must be 3\. Got 1"):
        vision_section({"vision_config": {"num_channels": 1}})


def test_what_a_section_says_otherwise_is_named():
    check_says("text_config", {"a": 1}, {"a": 1, "b": 2})
    with pytest.raises(ConfigError, match=r"text_config\.b must be 2 or absent\. Got 3"):
        check_says("text_config", {"b": 3}, {"a": 1, "b": 2})
    assert read_activation("gelu_pytorch_tanh") == "gelu_tanh"
    with pytest.raises(ConfigError, match="gelu_new is not a hidden_act"):
        read_activation("gelu_new")
