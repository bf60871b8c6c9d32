import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from diptych.errors import ConfigError
from diptych.weights.bundle import Bundle
from diptych.weights.convert import save_as
from diptych.weights.hugging_face import config_from_hf
from foreign_tokenizers import TEXTS
from hf_standins import ALIKE, SIZES, VISION, check_comes_back, check_same, drawn, pictures, published, said, text_ids

TEXT = SIZES | text_ids("BERT") | {"vocab_size": 700, "max_position_embeddings": 24, "sep_token_id": 3}
RECIPE = {"image_processor_type": "BlipImageProcessor", "size": {"height": 32, "width": 32}}


def test_a_blip_model_opens_and_goes_back(tmp_path, caplog):
    config = transformers.BlipConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    twin = drawn(transformers.BlipModel(config))
    folder = published(tmp_path / "published", twin, tokenizer="BERT", recipe=RECIPE)
    bundle = Bundle.load(folder)
    assert any("crossattention" in line for line in said(caplog))
    check_same(bundle, twin, folder)
    crossing = tuple(name for name in twin.state_dict() if "crossattention" in name)
    check_comes_back(bundle, twin, folder, tmp_path, but=crossing)


@torch.no_grad()
def test_a_blip_for_retrieval_opens_and_compares_by_the_cosine(tmp_path, caplog):
    config = transformers.BlipConfig(text_config=TEXT, vision_config=VISION, image_text_hidden_size=16)
    twin = drawn(transformers.BlipForImageTextRetrieval(config))
    folder = published(tmp_path / "published", twin, tokenizer="BERT", recipe=RECIPE)
    bundle = Bundle.load(folder)
    assert any("itm_head" in line for line in said(caplog))
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=20, return_tensors="pt"
    )
    words = twin.text_encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state[:, 0]
    expected = F.normalize(twin.text_proj(words), dim=-1).numpy()
    found = bundle.encode_tokens(bundle.tokenizer.with_context_length(20).encode(TEXTS, truncate=True))
    np.testing.assert_allclose(found, expected, **ALIKE)
    pixels = torch.from_numpy(np.stack([bundle.preprocess(picture) for picture in pictures()]))
    cosines = twin(tokens["input_ids"], pixels, use_itm_head=False, attention_mask=tokens["attention_mask"])[0]
    images = bundle.encode_images(pictures())
    np.testing.assert_allclose(images @ found.T, cosines.numpy(), **ALIKE)
    np.testing.assert_allclose(bundle.logits_per_image(images, found), cosines.numpy(), **ALIKE)
    assert np.abs(images[0] - images[1]).max() > 1e-3
    bundle.save(tmp_path / "ours")
    assert np.array_equal(Bundle.load(tmp_path / "ours").encode_images(pictures()), images)
    with pytest.raises(ConfigError, match="transformers has no class"):  # its head for pairs would be of random numbers
        save_as(bundle, tmp_path / "back", format="huggingface")


def test_silent_config_files_are_as_in_transformers_and_what_writes_sentences_is_refused():
    defaults = transformers.BlipConfig(text_config={}, vision_config={}).to_dict()
    for architecture, embed_dim in (("BlipModel", 512), ("BlipForImageTextRetrieval", 256)):
        data = {"model_type": "blip", "architectures": [architecture]}
        assert config_from_hf(data) == config_from_hf({**defaults, **data})
        assert config_from_hf(data).embed_dim == embed_dim
    with pytest.raises(ConfigError, match=r"Got \['BlipForConditionalGeneration'\], which writes .*blip-itm-base"):
        config_from_hf({"model_type": "blip", "architectures": ["BlipForConditionalGeneration"]})
