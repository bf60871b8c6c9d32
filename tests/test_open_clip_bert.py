import dataclasses

import pytest
import transformers

from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.weights.open_clip import config_from_open_clip
from diptych.weights.open_clip_bert import BERT, SIZES

VISION = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}


def config_of(name: str, **text):
    return config_from_open_clip({"embed_dim": 512, "vision_cfg": VISION, "text_cfg": {"hf_model_name": name, **text}})


@pytest.mark.parametrize("name", SIZES)
def test_a_name_tells_all_and_is_found_again(name):
    config = config_of(name, hf_proj_type="linear", context_length=64)
    written = BERT.write(config.text)
    assert SIZES[written["hf_model_name"]] == SIZES[name]  # some have two names
    assert config_of(**{"name": written.pop("hf_model_name"), **written}) == config


def test_published_sizes_are_the_defaults_of_transformers_and_what_the_hub_says_beside():
    text = config_of("roberta-base").text
    theirs = transformers.RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    assert isinstance(text, BertTowerConfig)
    assert (text.width, text.layers, text.heads, text.mlp_width) == (
        theirs.hidden_size,
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
        theirs.intermediate_size,
    )
    assert (text.pad_token_id, text.places, text.context_length, text.pool) == (1, "words", 77, "mean")
    assert (text.head, text.head_width) == ("mlp", 640)


def test_biomedclips_text_tower_is_bert_read_at_its_first_token():
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    text = config_of(name, hf_pooler_type="cls_last_hidden_state_pooler", hf_proj_type="mlp", context_length=256).text
    assert isinstance(text, BertTowerConfig)
    assert (text.pool, text.head, text.context_length, text.pad_token_id) == ("first", "mlp", 256, 0)


def test_a_name_that_is_not_known_and_sizes_that_have_none_are_refused():
    with pytest.raises(ConfigError, match=r"hf_model_name must be one .*xlm-roberta-base.* Got 'google/mt5-base'"):
        config_of("google/mt5-base")
    text = config_of("roberta-base").text
    assert isinstance(text, BertTowerConfig)
    with pytest.raises(ConfigError, match=r"by name, and none.* Got BERT, 3 layers of 768"):
        BERT.write(dataclasses.replace(text, layers=3))
