import dataclasses

import pytest

from diptych.config import from_dict
from diptych.errors import ConfigError
from diptych.model.presets import preset
from diptych.weights.open_clip_towers import RESNET, TEXT, VIT, side, written_options


def test_a_section_is_what_was_read_from_it():
    for layout, config in ((VIT, preset("ViT-B-32").image), (RESNET, preset("RN50").image)):
        section = layout.write(config)
        assert layout.fits(section)
        assert from_dict(type(config), layout.read(section, {"quick_gelu": True})) == config
    text = dataclasses.replace(preset("ViT-B-32").text, end_token_id=7, layer_norm_eps=1e-6, mlp_width=1000)
    assert from_dict(type(text), TEXT.read(TEXT.write(text), {"quick_gelu": True})) == text


def test_stages_make_a_resnet():
    assert RESNET.fits({"layers": [1, 2, 3, 4]})
    assert not RESNET.fits({"layers": 12})
    assert not RESNET.fits({})
    assert not RESNET.fits({"layers": "1234"})


def test_a_resnet_of_other_stages_is_none_of_theirs():
    image = dataclasses.replace(preset("RN50").image, layers=(1, 2, 3))
    with pytest.raises(ConfigError, match=r"has 4 stages\. Got 3: keep it as a bundle"):
        RESNET.write(image)


def test_two_equal_sides_are_one():
    assert side([224, 224]) == 224
    assert side([224, 336]) == [224, 336]
    assert side(224) == 224
    assert side("77") == "77"


def test_open_clips_own_towers_have_no_relu():
    with pytest.raises(ConfigError, match=r"have GELU or QuickGELU\. Got relu"):
        written_options(dataclasses.replace(preset("tiny-vit").text, activation="relu"))
