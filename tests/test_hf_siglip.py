import pytest
import torch
import transformers

from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.hf_siglip import SIGLIP_NAMES
from diptych.weights.hugging_face import config_from_hf, config_to_hf

SIGLIP = CLIPConfig(  # no two sizes are the same where they need not be
    embed_dim=48,
    head="sigmoid",
    image=SigLIPImageTowerConfig(
        image_size=29, patch_size=8, width=48, layers=3, heads=4, mlp_width=70, layer_norm_eps=1e-4
    ),
    text=SigLIPTextTowerConfig(
        context_length=20, vocab_size=430, width=36, layers=2, heads=3, mlp_width=80, activation="gelu"
    ),
)
SIGLIP_IDS = {"start_token_id": None, "end_token_id": 1, "vocab_size": 420}


def test_siglip_tensors_go_to_transformers_and_back_bit_for_bit():
    ours = CLIP(SIGLIP, generator(0)).state_dict()
    theirs = SIGLIP_NAMES.from_ours(ours)
    expected = transformers.SiglipModel(transformers.SiglipConfig(**config_to_hf(SIGLIP, **SIGLIP_IDS))).state_dict()
    assert {name: tensor.shape for name, tensor in theirs.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    back = SIGLIP_NAMES.to_ours(theirs, ours)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())


def test_siglip_sizes_come_back_from_a_config_file():
    assert config_from_hf(config_to_hf(SIGLIP, **SIGLIP_IDS)) == SIGLIP


def test_a_silent_siglip_config_file_is_base_at_224_as_in_transformers():
    config = config_from_hf({"model_type": "siglip"})
    assert config == config_from_hf(transformers.SiglipConfig().to_dict())
    image, text = config.image, config.text
    assert isinstance(image, SigLIPImageTowerConfig)
    assert (image.patches, image.layers, text.context_length, text.vocab_size) == (196, 12, 64, 32_000)
    assert (config.embed_dim, image.layer_norm_eps, text.activation) == (768, 1e-6, "gelu_tanh")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model_type": "siglip2", "vision_config": {"num_patches": 200}}, r"square number as num_patches.*Got 200"),
        ({"model_type": "siglip2", "vision_config": {"patch_size": [16, 16]}}, r"one patch_size.*\[16, 16\]"),
        ({"model_type": "siglip", "vision_config": {"vision_use_head": False}}, r"vision_use_head must be true"),
        (
            {"model_type": "siglip", "text_config": {"projection_size": 512}},
            r"embed_dim must be 768.*Got 512",
        ),
    ],
)
def test_what_is_no_siglip_of_ours_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        config_from_hf(data)
