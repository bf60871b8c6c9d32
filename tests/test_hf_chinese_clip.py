import pytest
import transformers

from diptych.errors import ConfigError
from diptych.weights.bundle import Bundle
from diptych.weights.hugging_face import config_from_hf
from hf_standins import SIZES, VISION, check_comes_back, check_same, drawn, published, text_ids


def test_a_chinese_clip_folder_opens_and_goes_back(tmp_path):
    text = SIZES | text_ids("BERT") | {"vocab_size": 700, "max_position_embeddings": 24}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    twin = drawn(transformers.ChineseCLIPModel(config))
    square = {"height": 32, "width": 32}
    recipe = {"image_processor_type": "ChineseCLIPImageProcessor", "do_center_crop": False, "size": square}
    folder = published(tmp_path / "published", twin, tokenizer="BERT", recipe=recipe)
    bundle = Bundle.load(folder)
    assert (bundle.preprocess.resize, bundle.preprocess.image_size) == ("squash", 32)
    check_same(bundle, twin, folder)
    check_comes_back(bundle, twin, folder, tmp_path)


def test_a_silent_config_file_is_bert_base_as_in_transformers():
    defaults = transformers.ChineseCLIPConfig(text_config={}, vision_config={}).to_dict()
    config = config_from_hf({"model_type": "chinese_clip"})
    assert config == config_from_hf(defaults)
    assert (config.embed_dim, config.text.context_length) == (512, 512)
    relative = {"position_embedding_type": "relative_key"}
    with pytest.raises(
        ConfigError, match=r"text_config.position_embedding_type must be 'absolute'.*Got 'relative_key'"
    ):
        config_from_hf({"model_type": "chinese_clip", "text_config": relative})
