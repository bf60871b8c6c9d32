import dataclasses
from typing import Any

import pytest
import torch

from diptych.config import from_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.hf_siglip import SIGLIP_NAMES
from diptych.weights.open_clip import config_from_open_clip, naming_of
from diptych.weights.timm_siglip import SIGLIP_IMAGE, SIGLIP_TEXT, SIZES

POOLED = {"timm_pool": "map", "timm_proj": "none"}
TEXT = {
    "context_length": 64,
    "vocab_size": 32000,
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-06},
}
TANH = {"act_kwargs": {"approximate": "tanh"}}
WIDE = {"width": 1152, "heads": 16, "layers": 27, "mlp_ratio": 3.7362}
# The configuration files of these names in open_clip 3.3.0: embed_dim, timm's name, and what is said of the texts.
THEIRS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "ViT-B-16-SigLIP": (768, "vit_base_patch16_siglip_224", {"width": 768, "heads": 12, "layers": 12}),
    "ViT-SO400M-14-SigLIP-384": (1152, "vit_so400m_patch14_siglip_384", WIDE),
    "ViT-SO400M-16-SigLIP2-512": (1152, "vit_so400m_patch16_siglip_512", {**WIDE, "vocab_size": 256000, **TANH}),
    "ViT-SO400M-16-SigLIP-i18n-256": (
        1152,
        "vit_so400m_patch16_siglip_256",
        {**WIDE, "vocab_size": 250000, "proj_bias": False, "proj_type": "none"},
    ),
    "ViT-gopt-16-SigLIP2-384": (1536, "vit_giantopt_patch16_siglip_384", {**WIDE, "vocab_size": 256000, **TANH}),
}


def vision(name: str, **options: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": int(name.rpartition("_")[2]), **POOLED, **options}


def config_of(name: str) -> CLIPConfig:
    embed_dim, image, text = THEIRS[name]
    text_cfg = {**TEXT, **text}
    model_cfg = {"embed_dim": embed_dim, "init_logit_bias": -10, "custom_text": True}
    return config_from_open_clip({**model_cfg, "vision_cfg": vision(image), "text_cfg": text_cfg})


@pytest.mark.parametrize("name", SIZES)
def test_each_name_comes_back_from_its_sizes(name):
    config = from_dict(SigLIPImageTowerConfig, SIGLIP_IMAGE.read(vision(name), {}))
    assert SIGLIP_IMAGE.write(config) == vision(name, timm_model_pretrained=False)
    assert f"patch{config.patch_size}_" in name


@pytest.mark.parametrize("name", THEIRS)
def test_a_published_model_has_its_sizes_and_the_head_of_a_siglip(name):
    config = config_of(name)
    embed_dim, _, text = THEIRS[name]
    assert (config.head, config.embed_dim, config.image.width) == ("sigmoid", embed_dim, embed_dim)
    assert isinstance(config.text, SigLIPTextTowerConfig)
    assert config.text.mlp_width == (4304 if "mlp_ratio" in text else 4 * text["width"])
    assert config.text.activation == ("gelu_tanh" if "act_kwargs" in text else "gelu")
    assert config.text.layer_norm_eps == config.image.layer_norm_eps == 1e-6
    assert from_dict(SigLIPTextTowerConfig, SIGLIP_TEXT.read(SIGLIP_TEXT.write(config.text), {})) == config.text


def test_the_same_weights_in_both_libraries_layouts_are_one_model():
    sizes: dict[str, Any] = {"width": 48, "layers": 2, "heads": 4}
    config = CLIPConfig(
        embed_dim=48,
        head="sigmoid",
        image=SigLIPImageTowerConfig(image_size=32, patch_size=8, **sizes),
        text=SigLIPTextTowerConfig(context_length=9, vocab_size=60, **sizes),
    )
    ours = CLIP(config, generator(0)).state_dict()
    timms, transformers_ = naming_of(config).from_ours(ours), SIGLIP_NAMES.from_ours(ours)
    assert timms["visual.trunk.attn_pool.kv.weight"].shape == (96, 48)
    assert torch.equal(
        timms["visual.trunk.attn_pool.kv.weight"], transformers_["vision_model.head.attention.in_proj_weight"][48:]
    )
    assert torch.equal(timms["visual.trunk.attn_pool.q.bias"], ours["image.pool.attention.in_projection.bias"][:48])
    for naming, theirs in ((naming_of(config), timms), (SIGLIP_NAMES, transformers_)):
        back = naming.to_ours(theirs, ours)
        assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())


def test_clipas_text_tower_is_siglips_without_a_bias():
    text = {"context_length": 32, "vocab_size": 32000, "width": 768, "heads": 12, "layers": 12, "pool_type": "last"}
    vision_cfg = {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14, "no_ln_pre": True}
    pool = {"pool_type": "avg", "final_ln_after_pool": True}
    model_cfg = {
        "embed_dim": 768,
        "vision_cfg": {**vision_cfg, **pool},
        "text_cfg": {**text, "no_causal_mask": True},
    }
    config = config_from_open_clip(model_cfg)  # ViT-L-14-CLIPA of open_clip 3.3.0
    assert config.text == SigLIPTextTowerConfig(
        context_length=32,
        vocab_size=32000,
        width=768,
        layers=12,
        heads=12,
        activation="gelu",
        layer_norm_eps=1e-5,
        projection="plain",
    )
    assert not SIGLIP_TEXT.fits(text), "causal: another tower"
    named = naming_of(config).from_ours(CLIP(config).state_dict())
    assert named["text_projection"].shape == (768, 768)
    assert not {name for name in named if "ln_pre" in name or name.startswith("text_projection.")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timm_pool": "avg"}, r"vision_cfg\.timm_pool must be 'map' or absent\. Got 'avg'"),
        ({"timm_proj": "linear"}, r"vision_cfg\.timm_proj must be 'none'"),
    ],
)
def test_another_head_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SIGLIP_IMAGE.read(vision("vit_base_patch16_siglip_224", **options), {})


def test_one_siglip_has_no_projection_behind_its_texts():
    config = config_of("ViT-SO400M-16-SigLIP-i18n-256")
    assert isinstance(config.text, SigLIPTextTowerConfig)
    assert config.text.projection == "none"
    assert not [name for name in naming_of(config).from_ours(CLIP(config).state_dict()) if "text_projection" in name]
    with pytest.raises(ConfigError, match=r"embed_dim must be text\.width .* Got 8 and 1152"):
        config.text.build(8)
    with pytest.raises(ConfigError, match=r"text\.projection: .*biased"):
        dataclasses.replace(config.text, projection="bias")
    with pytest.raises(ConfigError, match=r"proj_type must be 'linear' or absent\. Got 'mlp'"):
        SIGLIP_TEXT.read(TEXT | {"proj_type": "mlp"}, {})


def test_an_activation_that_timm_does_not_compute_at_these_sizes_is_refused():
    config = config_of("ViT-B-16-SigLIP").image
    assert config.activation == "gelu", "timm's own; transformers computes the approximation"
    with pytest.raises(ConfigError, match=r"none has the sizes of this one \(.*gelu_tanh"):
        SIGLIP_IMAGE.write(dataclasses.replace(config, activation="gelu_tanh"))
    with pytest.raises(ConfigError, match="Got quick_gelu"):
        SIGLIP_TEXT.write(dataclasses.replace(config_of("ViT-B-16-SigLIP").text, activation="quick_gelu"))
