import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import zoo
from diptych.errors import ConfigError
from diptych.model.coca import CoCaImageTowerConfig, CoCaTextTowerConfig
from diptych.weights.open_clip import config_from_open_clip
from diptych.weights.open_clip_coca import COCA_IMAGE, COCA_TEXT
from diptych.weights.registry import load_in_torch

# coca_ViT-B-32 of open_clip 3.3.0
B32 = {
    "embed_dim": 512,
    "vision_cfg": {
        "image_size": 224,
        "layers": 12,
        "width": 768,
        "patch_size": 32,
        "attentional_pool": True,
        "attn_pooler_heads": 8,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76,
        "vocab_size": 49408,
        "width": 512,
        "heads": 8,
        "layers": 12,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    "custom_text": True,
}


def test_a_published_coca_has_its_sizes():
    config = config_from_open_clip(B32)
    assert config.image == CoCaImageTowerConfig(patch_size=32, width=768, layers=12, heads=12)
    assert config.text == CoCaTextTowerConfig(width=512, layers=12, heads=8)
    assert COCA_IMAGE.fits(COCA_IMAGE.write(config.image))
    assert COCA_TEXT.fits(COCA_TEXT.write(config.text))
    assert COCA_TEXT.write(config.text)["hf_tokenizer_name"] == "", "its own alone pads with 0"


def test_what_its_tokenizer_cannot_pad_with_is_refused():
    text = config_from_open_clip(B32).text
    with pytest.raises(ConfigError, match=r"pads with token 0\. Got 3"):
        COCA_TEXT.write(dataclasses.replace(text, pad_token_id=3))
    with pytest.raises(ConfigError, match=r"tokenizer of 49,408 tokens alone\. Got a vocabulary of 600"):
        COCA_TEXT.write(dataclasses.replace(text, vocab_size=600))


@pytest.fixture
def whole(tmp_path) -> Path:
    """A folder of a CoCa with its decoder, and a tokenizer whose file pads with the end token."""
    stand_in = zoo.stand_ins()["coca"]
    config = {"model_cfg": stand_in.model_cfg | {"multimodal_cfg": {"width": 32}}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: zoo.weight(name, tuple(shape)) for name, shape in stand_in.tensors.items()}
    weights |= {
        "text_decoder.resblocks.0.ln_1.weight": torch.ones(32),
        "text_decoder.text_projection": torch.ones(2, 3),
    }
    safetensors.torch.save_file(weights, tmp_path / "open_clip_model.safetensors")
    tokenizer = zoo.tokenizer(stand_in.model_cfg)
    type(tokenizer)(tokenizer._backend, context_length=12, pad_token_id=tokenizer.end_token_id).save(tmp_path)
    return tmp_path


def test_a_decoder_is_left_out_and_named(whole, caplog):
    bundle = load_in_torch(whole)
    assert "holds 2 tensors (text_decoder." in caplog.text
    assert "38 numbers) that write captions" in caplog.text
    assert not [name for name in bundle.model.state_dict() if "decoder" in name]


def test_padding_is_what_open_clips_own_tokenizer_pads_with(whole):
    bundle = load_in_torch(whole)
    tokens = bundle.tokenizer.encode(["a red kite"])
    assert tokens[0, -1] == 0
    assert (tokens == bundle.tokenizer.end_token_id).sum() == 1
