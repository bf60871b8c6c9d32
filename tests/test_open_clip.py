import dataclasses
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import standins
from diptych.data.images import Preprocess
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import PRESETS, preset
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.open_clip import (
    cleaning_of,
    config_from_open_clip,
    config_to_open_clip,
    ends_with_padding,
    naming_of,
    own_padding,
    plain_names,
    preprocess_from_open_clip,
)

PUBLISHED = [name for name in PRESETS if not name.startswith("tiny")]
UNEVEN = dataclasses.replace(standins.UNEVEN, image=dataclasses.replace(standins.UNEVEN.image, activation="gelu_tanh"))
# Theirs, written out from the model classes of OpenAI's released code.
BLOCK = (
    "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias", "ln_1.weight",
    "ln_1.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias", "ln_2.weight", "ln_2.bias",
)  # fmt: skip
TEXT = {
    "positional_embedding", "text_projection", "logit_scale", "token_embedding.weight", "ln_final.weight",
    "ln_final.bias", *(f"transformer.resblocks.{i}.{name}" for i in (0, 1) for name in BLOCK),
}  # fmt: skip
TINY_VIT = {
    *TEXT, "visual.class_embedding", "visual.positional_embedding", "visual.proj", "visual.conv1.weight",
    "visual.ln_pre.weight", "visual.ln_pre.bias", "visual.ln_post.weight", "visual.ln_post.bias",
    *(f"visual.transformer.resblocks.{i}.{name}" for i in (0, 1) for name in BLOCK),
}  # fmt: skip
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
TINY_RESNET = {
    *TEXT,
    "visual.attnpool.positional_embedding",
    *(f"visual.attnpool.{name}_proj.{end}" for name in "qkvc" for end in ("weight", "bias")),
    *(f"visual.conv{i}.weight" for i in (1, 2, 3)),
    *(f"visual.bn{i}.{end}" for i in (1, 2, 3) for end in BATCH_NORM),
    *(f"visual.layer{stage}.0.conv{i}.weight" for stage in (1, 2, 3, 4) for i in (1, 2, 3)),
    *(f"visual.layer{stage}.0.bn{i}.{end}" for stage in (1, 2, 3, 4) for i in (1, 2, 3) for end in BATCH_NORM),
    *(f"visual.layer{stage}.0.downsample.0.weight" for stage in (1, 2, 3, 4)),
    *(f"visual.layer{stage}.0.downsample.1.{end}" for stage in (1, 2, 3, 4) for end in BATCH_NORM),
}


def shapes_of(config: CLIPConfig) -> dict[str, tuple[int, ...]]:
    theirs = naming_of(config).from_ours(CLIP(config).state_dict())  # on the meta device: no size costs anything
    return {name: tuple(tensor.shape) for name, tensor in theirs.items()}


# Names


@pytest.mark.parametrize(("name", "theirs"), [("tiny-vit", TINY_VIT), ("tiny-resnet", TINY_RESNET)])
def test_names_are_those_of_openai_and_go_both_ways_bit_for_bit(name, theirs):
    ours = CLIP(preset(name), generator(0)).state_dict()
    naming = naming_of(preset(name))
    named = naming.from_ours(ours)
    assert named.keys() == theirs
    back = naming.to_ours(named, ours)
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())
    assert all(back[name].data_ptr() == tensor.data_ptr() for name, tensor in ours.items()), "nothing is copied"


def test_a_tensor_of_a_resnet_is_where_their_code_computes_with_it():
    ours = [
        "image.stem.0.weight", "image.stem.4.running_var", "image.stem.7.bias", "image.stages.2.11.conv2.weight",
        "image.stages.0.0.shortcut.1.weight", "image.stages.3.0.shortcut.2.bias", "image.pool.query.bias",
        "image.projection.weight",
    ]  # fmt: skip
    theirs = [
        "visual.conv1.weight", "visual.bn2.running_var", "visual.bn3.bias", "visual.layer3.11.conv2.weight",
        "visual.layer1.0.downsample.0.weight", "visual.layer4.0.downsample.1.bias", "visual.attnpool.q_proj.bias",
        "visual.attnpool.c_proj.weight",
    ]  # fmt: skip
    tensors = {name: torch.tensor(float(i)) for i, name in enumerate(ours)}
    assert {name: tensor.item() for name, tensor in naming_of(preset("tiny-resnet")).from_ours(tensors).items()} == {
        name: i for i, name in enumerate(theirs)
    }


@pytest.mark.parametrize("naming", [naming_of(preset("tiny-vit")), naming_of(preset("tiny-resnet"))])
@pytest.mark.parametrize(
    ("name", "has_meaning"),
    [
        ("input_resolution", False),
        ("context_length", False),
        ("vocab_size", False),
        ("attn_mask", False),
        ("transformer.resblocks.11.attn_mask", False),
        ("transformer.resblocks.11.ln_1.weight", True),
        ("visual.input_resolution", True),
        ("logit_bias", True),
    ],
)
def test_sizes_and_the_mask_may_lie_among_the_tensors(naming, name, has_meaning):
    assert (re.fullmatch(naming.without_meaning, name) is None) == has_meaning


def test_newer_text_towers_have_a_prefix_that_is_dropped():
    names = {"text.token_embedding.weight": 1, "text.text_projection": 2, "visual.proj": 3, "context.text.x": 4}
    assert plain_names(names) == {
        "token_embedding.weight": 1,
        "text_projection": 2,
        "visual.proj": 3,
        "context.text.x": 4,
    }


# open_clip_config.json


B32_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
THEIRS: dict[str, dict[str, Any]] = {  # the configuration files of these names in open_clip 3.3.0
    "ViT-B-32": {
        "embed_dim": 512,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": B32_TEXT,
    },
    "RN50": {
        "embed_dim": 1024,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": None},
        "text_cfg": B32_TEXT,
    },
    "ViT-g-14": {
        "embed_dim": 1024,
        "vision_cfg": {
            "image_size": 224,
            "layers": 40,
            "width": 1408,
            "head_width": 88,
            "mlp_ratio": 4.3637,
            "patch_size": 14,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
    },
    "ViT-bigG-14": {
        "embed_dim": 1280,
        "vision_cfg": {
            "image_size": 224,
            "layers": 48,
            "width": 1664,
            "head_width": 104,
            "mlp_ratio": 4.9231,
            "patch_size": 14,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1280, "heads": 20, "layers": 32},
    },
}


@pytest.mark.parametrize("name", THEIRS)
def test_their_config_files_give_the_published_sizes(name):
    assert config_from_open_clip(THEIRS[name]) == preset(name)


def with_part(name: str, part: str, **options: object) -> dict[str, Any]:
    return {**THEIRS[name], part: {**THEIRS[name][part], **options}}


def test_what_a_config_file_may_say_besides():
    config = preset("ViT-B-32")
    assert config_from_open_clip(with_part("ViT-B-32", "vision_cfg", image_size=[224, 224])) == config
    assert config_from_open_clip(with_part("ViT-B-32", "text_cfg", pool_type="argmax", proj_type="linear")) == config
    assert config_from_open_clip(with_part("ViT-B-32", "vision_cfg", global_average_pool=False)) == config, "of old"
    eos = config_from_open_clip(with_part("ViT-B-32", "text_cfg", pool_type="eos"))
    assert eos == dataclasses.replace(config, text=dataclasses.replace(config.text, end_token_id=2))  # their default
    tanh = config_from_open_clip(
        with_part("ViT-g-14", "vision_cfg", act_kwargs={"approximate": "tanh"}, norm_kwargs={"eps": 1e-6})
    )
    image = dataclasses.replace(preset("ViT-g-14").image, activation="gelu_tanh", layer_norm_eps=1e-6)
    assert tanh == dataclasses.replace(preset("ViT-g-14"), image=image)


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        (
            "vision_cfg",
            {"timm_model_name": "convnext_nano"},
            r"vision_cfg\.timm_model_name must be None or absent\. Got",
        ),
        (
            "vision_cfg",
            {"attentional_pool": "parallel"},
            r"vision_cfg\.attentional_pool must be True or absent\. Got 'pa",
        ),
        (
            "vision_cfg",
            {"attentional_pool": True, "width": 512},
            r"width must differ from embed_dim .* Got 512 for both",
        ),
        ("vision_cfg", {"pool_type": "avg"}, r"pool_type must be tok, or avg with final_ln_after_pool\. Got 'avg'"),
        ("vision_cfg", {"pos_embed_type": "none"}, r"pos_embed_type must be learnable or sin_cos_2d\. Got 'none'"),
        ("vision_cfg", {"image_size": [224, 336]}, r"image\.image_size must be a whole number"),
        (
            "vision_cfg",
            {"width": "wide"},
            r"vision_cfg and text_cfg must give sizes as numbers, and one is none \(unsupported",
        ),
        ("vision_cfg", {"reg_tokens": 4}, r"vision_cfg\.reg_tokens is not an option that open_clip has"),
        ("text_cfg", {"no_casual_mask": True}, r"Did you mean text_cfg\.no_causal_mask"),
        ("text_cfg", {"scale_fc": True}, r"text_cfg\.scale_fc must be False"),
        ("vision_cfg", {"head_width": 0}, r"vision_cfg and text_cfg must"),
        ("vision_cfg", {"mlp_ratio": None}, r"vision_cfg and text_cfg must"),
        ("vision_cfg", {"act_kwargs": 3}, r"vision_cfg and text_cfg must"),
        ("vision_cfg", {"layers": "12"}, r"image\.layers must be"),
        (
            "text_cfg",
            {"hf_model_name": "google/mt5-base"},
            r"text_cfg\.hf_model_name must be one that diptych knows the sizes of: .* Got 'google/mt5-base'",
        ),
        ("text_cfg", {"proj_bias": True}, r"text_cfg\.proj_bias must be False"),
        ("text_cfg", {"proj_type": "none"}, r"text_cfg\.proj_type must be 'linear'"),
        ("text_cfg", {"embed_cls": True, "no_causal_mask": True}, r"text_cfg\.no_causal_mask must be False"),
        (
            "text_cfg",
            {"pool_type": "last", "no_causal_mask": True, "ls_init_value": 0.1},
            r"ls_init_value must be None",
        ),
        ("text_cfg", {"qk_norm": True}, r"text_cfg\.qk_norm must be False"),
        (
            "text_cfg",
            {"pool_type": "last"},
            r"pool_type must be argmax or eos, or last with no_causal_mask\. Got 'last'",
        ),
        ("text_cfg", {"norm_kwargs": {"eps": "small"}}, r"vision_cfg and text_cfg must"),
    ],
)
def test_a_model_that_ours_cannot_be_is_refused_by_the_name_of_the_option(part, options, message):
    with pytest.raises(ConfigError, match=message):
        config_from_open_clip(with_part("ViT-B-32", part, **options))


@pytest.mark.parametrize(
    ("model_cfg", "message"),
    [
        ({}, r"model_cfg\.vision_cfg must be a JSON object\. Got None"),
        ({"vision_cfg": {}, "text_cfg": []}, r"model_cfg\.text_cfg must be a JSON object\. Got \[\]"),
        ({"vision_cfg": {}, "text_cfg": {}}, "embed_dim must be"),
    ],
)
def test_a_config_file_without_its_parts_is_refused(model_cfg, message):
    with pytest.raises(ConfigError, match=message):
        config_from_open_clip(model_cfg)


def there_and_back(config: CLIPConfig) -> CLIPConfig:
    preprocess = Preprocess(image_size=config.image.image_size)
    return config_from_open_clip(config_to_open_clip(config, preprocess)["model_cfg"])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back_from_its_config_file(name):
    assert there_and_back(preset(name)) == preset(name)


def test_uneven_sizes_come_back_from_a_config_file():
    assert there_and_back(UNEVEN) == UNEVEN
    gelu = dataclasses.replace(UNEVEN, image=dataclasses.replace(UNEVEN.image, activation="gelu"))
    assert there_and_back(gelu) == gelu, "tanh is an option of one tower, QuickGELU of both"
    resnet = ResNetTowerConfig(image_size=96, width=6, layers=(2, 1, 3, 1), heads=4)
    text = dataclasses.replace(UNEVEN.text, end_token_id=None, activation="gelu")
    config = CLIPConfig(embed_dim=24, image=resnet, text=text)
    assert there_and_back(config) == config


@settings(max_examples=200, deadline=None, database=None)
@given(heads=st.integers(1, 32), head_width=st.integers(1, 128), mlp_width=st.integers(1, 20_000))
def test_every_width_of_an_mlp_survives_being_written_as_a_ratio(heads, head_width, mlp_width):
    image = dataclasses.replace(UNEVEN.image, width=heads * head_width, heads=heads, mlp_width=mlp_width)
    config = dataclasses.replace(UNEVEN, image=image)
    assert there_and_back(config) == config


def test_what_open_clip_would_take_for_its_default_is_left_out():
    model_cfg = config_to_open_clip(preset("ViT-H-14"), Preprocess(image_size=224))["model_cfg"]
    assert model_cfg.keys() == {"embed_dim", "vision_cfg", "text_cfg"}
    assert model_cfg["vision_cfg"] == {
        "image_size": 224,
        "layers": 32,
        "width": 1280,
        "head_width": 80,
        "patch_size": 14,
    }


def test_what_open_clip_does_not_have_is_refused():
    image = dataclasses.replace(UNEVEN.image, activation="quick_gelu")
    with pytest.raises(ConfigError, match=r"one activation for both towers\. Save this model as huggingface"):
        config_to_open_clip(dataclasses.replace(UNEVEN, image=image), Preprocess(image_size=24))
    image = SigLIPImageTowerConfig(image_size=224, patch_size=16, width=24, layers=1, heads=2)
    with pytest.raises(ConfigError, match="save a SigLIP model as huggingface"):
        config_to_open_clip(dataclasses.replace(UNEVEN, embed_dim=24, image=image), Preprocess(image_size=224))


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(image_size=24),
        Preprocess(image_size=24, resize="squash", interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)),
    ],
)
def test_a_picture_recipe_comes_back_from_a_config_file(preprocess):
    assert preprocess_from_open_clip(config_to_open_clip(UNEVEN, preprocess)["preprocess_cfg"], 24) == preprocess


def test_a_silent_picture_recipe_is_clips_and_another_one_is_refused():
    assert preprocess_from_open_clip({}, 224) == Preprocess(image_size=224)
    assert preprocess_from_open_clip({"mean": None, "mode": "RGB", "fill_color": 0}, 224) == Preprocess(image_size=224)
    with pytest.raises(ConfigError, match="resize must be"):
        preprocess_from_open_clip({"resize_mode": "longest"}, 224)
    with pytest.raises(ConfigError, match="mean and std must be three numbers"):
        preprocess_from_open_clip({"mean": [0.5, 0.5]}, 224)


@pytest.mark.parametrize(
    ("text_cfg", "cleaning"),
    [
        ({}, "file"),  # CLIP's own, whose rules are in its merges
        ({"hf_tokenizer_name": "facebook/xlm-v-base"}, "whitespace"),
        ({"hf_tokenizer_name": "google/mt5-base", "tokenizer_kwargs": {"clean": "canonicalize"}}, "canonicalize"),
        ({"hf_tokenizer_name": "x", "tokenizer_kwargs": {"strip_sep_token": False}}, "whitespace"),
        ({"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": True}}, "whitespace"),
    ],
)
def test_what_open_clip_does_to_a_text_before_the_tokenizer_is_told_by_its_config(text_cfg, cleaning):
    assert cleaning_of({"text_cfg": text_cfg}) == cleaning


@pytest.mark.parametrize(
    ("text_cfg", "message"),
    [
        ({"tokenizer_kwargs": 3}, "tokenizer_kwargs must be a JSON object. Got 3"),
        ({"tokenizer_kwargs": {"clean": "canonicalize"}}, "clean must be lower. Got 'canonicalize'"),
        (
            {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "x"}},
            "whitespace or lower or canonicalize. Got 'x'",
        ),
        ({"tokenizer_kwargs": {"strip_sep_token": True}}, "strip_sep_token must be absent"),
        ({"hf_tokenizer_name": "x", "tokenizer_kwargs": {"language": "de"}}, "language must be absent. Got 'de'"),
        ({"hf_tokenizer_name": "x", "tokenizer_mode": "clips"}, "tokenizer_mode must be absent. Got 'clips'"),
    ],
)
def test_what_open_clip_does_to_tokens_and_we_do_not_is_refused(text_cfg, message):
    with pytest.raises(ConfigError, match=message):
        cleaning_of({"text_cfg": text_cfg})


def test_where_a_text_ends_and_with_what_it_is_padded_is_told_by_the_config():
    named = {"text_cfg": {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"strip_sep_token": True}}}
    assert (ends_with_padding(named), own_padding(named)) == (True, None)
    assert (ends_with_padding({"text_cfg": {}}), own_padding({"text_cfg": {}})) == (False, 0)
