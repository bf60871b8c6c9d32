import dataclasses

import pytest
import torch
import transformers

from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.presets import preset
from diptych.model.text_tower import TextTowerConfig
from diptych.runtime import generator
from diptych.weights.adapters import HUGGING_FACE, OWN, config_from_hf, config_to_hf

UNEVEN = CLIPConfig(  # no two sizes are the same
    embed_dim=20,
    image=ImageTowerConfig(
        image_size=24, patch_size=8, width=48, layers=3, heads=4, mlp_width=112, activation="gelu", layer_norm_eps=1e-6
    ),
    text=TextTowerConfig(
        context_length=9,
        vocab_size=600,
        width=36,
        layers=2,
        heads=3,
        mlp_width=80,
        activation="gelu_tanh",
        layer_norm_eps=1e-4,
        end_token_id=400,
    ),
)
IDS = {"start_token_id": 399, "end_token_id": 400, "vocab_size": 401}


def test_tensors_go_to_transformers_and_back_bit_for_bit():
    ours = CLIP(UNEVEN, generator(0)).state_dict()
    theirs = HUGGING_FACE.from_ours(ours)
    back = HUGGING_FACE.to_ours(theirs, ours)
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())
    assert all(tensor.is_contiguous() for tensor in (*theirs.values(), *back.values()))


def test_names_and_shapes_are_those_of_transformers():
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**config_to_hf(UNEVEN, **IDS))).state_dict()
    written = HUGGING_FACE.from_ours(CLIP(UNEVEN).state_dict())
    assert {name: tensor.shape for name, tensor in written.items()} == {
        name: tensor.shape for name, tensor in theirs.items() if not name.endswith("position_ids")
    }


def test_queries_keys_and_values_are_the_thirds_of_ours_in_this_order():
    ours = {"text.blocks.11.attention.in_projection.bias": torch.arange(6.0)}
    prefix = "text_model.encoder.layers.11.self_attn."
    theirs = {name: tensor.tolist() for name, tensor in HUGGING_FACE.from_ours(ours).items()}
    assert theirs == {
        f"{prefix}q_proj.bias": [0, 1],
        f"{prefix}k_proj.bias": [2, 3],
        f"{prefix}v_proj.bias": [4, 5],
    }


def test_our_own_names_stay_as_they_are():
    ours = CLIP(preset("tiny-resnet"), generator(0)).state_dict()
    assert OWN.from_ours(ours).keys() == OWN.to_ours(ours, ours).keys() == ours.keys()


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-336"])
def test_a_preset_comes_back_from_a_config_file(name):
    ids = {"start_token_id": 49_406, "end_token_id": 49_407, "vocab_size": 49_408}
    assert config_from_hf(config_to_hf(preset(name), **ids)) == preset(name)


def test_uneven_sizes_come_back_from_a_config_file():
    assert config_from_hf(config_to_hf(UNEVEN, **IDS)) == UNEVEN


def test_a_silent_config_file_is_vit_b_32_as_in_transformers():
    assert config_from_hf({"model_type": "clip"}) == preset("ViT-B-32")
    defaults = transformers.CLIPConfig().to_dict()
    assert config_from_hf(defaults) == preset("ViT-B-32")


def test_the_older_section_is_read_alone_as_in_transformers():
    data = {"text_config": {"hidden_size": 64, "num_hidden_layers": 3}, "text_config_dict": {"hidden_size": 768}}
    theirs = transformers.CLIPConfig(**data).text_config
    ours = config_from_hf(data).text
    assert (ours.width, ours.layers) == (theirs.hidden_size, theirs.num_hidden_layers) == (768, 12)


@pytest.mark.parametrize(
    ("model_end", "tokenizer_vocab_size", "eos_token_id"),
    [
        (None, 401, 400),  # the tokenizer's highest id: both rules say the same
        (None, 450, 2),  # tokens were added after the end token: only their "highest id" rule says what ours does
        (400, 450, 400),
    ],
)
def test_transformers_finds_the_end_token_by_the_rule_of_the_model(model_end, tokenizer_vocab_size, eos_token_id):
    config = dataclasses.replace(UNEVEN, text=dataclasses.replace(UNEVEN.text, end_token_id=model_end))
    data = config_to_hf(config, start_token_id=399, end_token_id=400, vocab_size=tokenizer_vocab_size)
    assert data["text_config"]["eos_token_id"] == eos_token_id


@pytest.mark.parametrize(("eos_token_id", "end_token_id"), [(2, None), (49_407, None), (49_405, 49_405)])
def test_id_2_and_the_last_id_mean_the_highest_of_a_text(eos_token_id, end_token_id):
    assert config_from_hf({"text_config": {"eos_token_id": eos_token_id}}).text.end_token_id == end_token_id


def test_an_end_token_that_transformers_would_take_for_a_rule_is_refused():
    config = dataclasses.replace(UNEVEN, text=dataclasses.replace(UNEVEN.text, end_token_id=2))
    with pytest.raises(ConfigError, match="must not be 2"):
        config_to_hf(config, **IDS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"vision_config": {"num_channels": 4}}, r"num_channels must be 3\. Got 4"),
        ({"vision_config": {"hidden_act": "relu"}}, "relu is not a hidden_act that diptych has"),
        ({"vision_config": {"image_size": [224, 336]}}, r"image\.image_size must be a whole number"),
        ({"text_config": {"hidden_size": 100}}, r"text\.heads must divide text\.width"),
        ({"text_config": {"eos_token_id": [1, 5]}}, r"text\.end_token_id must be a whole number"),
        ({"text_config": 7}, "text_config must be a JSON object"),
    ],
)
def test_a_config_file_of_what_we_have_not_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        config_from_hf(data)
