import pytest
import transformers

from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.weights.bundle import Bundle
from diptych.weights.hugging_face import config_from_hf
from hf_standins import SIZES, VISION, check_comes_back, check_same, drawn, published, text_ids


def test_an_altclip_folder_opens_and_goes_back(tmp_path):
    text = SIZES | text_ids("XLM-R") | {"vocab_size": 700, "max_position_embeddings": 26, "project_dim": 20}
    twin = drawn(
        transformers.AltCLIPModel(transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))
    )
    folder = published(tmp_path / "published", twin, tokenizer="XLM-R")
    bundle = Bundle.load(folder)
    assert (bundle.model.config.text.context_length, bundle.model.config.embed_dim) == (24, 16)
    check_same(bundle, twin, folder)
    check_comes_back(bundle, twin, folder, tmp_path)


def test_a_silent_config_file_is_xlm_r_large_as_in_transformers():
    config = config_from_hf({"model_type": "altclip"})
    defaults = transformers.AltCLIPConfig(text_config={}, vision_config={}).to_dict()
    assert config == config_from_hf(defaults)
    assert isinstance(config.text, BertTowerConfig)
    assert (config.text.width, config.text.layers, config.text.head_width, config.text.context_length) == (
        1024,
        24,
        768,
        512,
    )
    with pytest.raises(ConfigError, match=r"max_position_embeddings and pad_token_id must be whole.*Got 'x' and 1"):
        config_from_hf({"model_type": "altclip", "text_config": {"max_position_embeddings": "x"}})
