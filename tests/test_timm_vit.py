import dataclasses
from typing import Any

import pytest

from diptych.config import from_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.open_clip import config_from_open_clip, fits_open_clip, naming_of
from diptych.weights.timm_vit import SIZES, TIMM_VIT

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
POOLED = {"timm_pool": "token", "timm_proj": None}


def vision(name: str, **options: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": int(name.rpartition("_")[2]), **POOLED, **options}


@pytest.mark.parametrize("name", SIZES)
def test_each_name_comes_back_from_its_sizes(name):
    config = from_dict(ImageTowerConfig, TIMM_VIT.read(vision(name), {}))
    section = TIMM_VIT.write(config)
    assert section == vision(name, timm_model_pretrained=False)
    assert TIMM_VIT.fits(section)
    assert TIMM_VIT.has(config)


def test_mobileclips_models_are_what_open_clip_calls_them():
    # timm 1.0.31: vit_base_mci_224 has the epsilon of timm's own norms, vit_large_patch14_clip_224 that of CLIP's.
    large = config_from_open_clip(
        {
            "embed_dim": 768,
            "vision_cfg": vision("vit_large_patch14_clip_224", timm_drop=0.0, timm_drop_path=0.1),
            "text_cfg": {**TEXT, "width": 768, "heads": 12, "no_causal_mask": True},
            "custom_text": True,
        }
    )
    assert large.image == ImageTowerConfig(
        patch_size=14, width=1024, layers=24, heads=16, activation="gelu", has_projection_bias=True
    )
    assert large.text == TextTowerConfig(width=768, layers=12, heads=12, activation="gelu", is_causal=False)
    base = config_from_open_clip({"embed_dim": 512, "vision_cfg": vision("vit_base_mci_224"), "text_cfg": TEXT})
    assert base.image == ImageTowerConfig(
        patch_size=16,
        width=768,
        layers=12,
        heads=12,
        activation="gelu",
        layer_norm_eps=1e-6,
        has_projection_bias=True,
        has_ln_pre=False,
        stem="convolutions",
    )
    named = naming_of(base).from_ours(CLIP(base).state_dict())
    assert named["visual.trunk.patch_embed.backbone.1.bn.running_var"].shape == (192,)
    assert named["visual.trunk.patch_embed.backbone.2.conv.bias"].shape == (768,)
    assert named["visual.trunk.cls_token"].shape == (1, 1, 768)
    assert named["visual.trunk.pos_embed"].shape == (1, 196, 768), "the class token has none"
    assert named["visual.trunk.head.weight"].shape == (512, 768)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timm_pool": "avg"}, r"vision_cfg\.timm_pool must be 'token' or absent\. Got 'avg'"),
        ({"timm_proj": "linear"}, r"vision_cfg\.timm_proj must be None"),
    ],
)
def test_another_head_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TIMM_VIT.read(vision("vit_base_mci_224", **options), {})


def test_silence_means_open_clips_defaults_which_are_other_heads():
    with pytest.raises(ConfigError, match=r"timm_pool must be 'token' or absent\. Got 'avg'"):
        TIMM_VIT.read({"timm_model_name": "vit_base_mci_224"}, {})


def test_sizes_that_timm_has_no_name_for_are_refused():
    config = from_dict(ImageTowerConfig, TIMM_VIT.read(vision("vit_base_mci_224"), {}))
    for changed in ({"image_size": 256}, {"layers": 11}, {"activation": "quick_gelu"}):
        with pytest.raises(ConfigError, match="none has the sizes of this one"):
            TIMM_VIT.write(dataclasses.replace(config, **changed))


def test_a_stem_of_convolutions_without_a_bias_behind_the_projection_is_no_tower_of_theirs():
    image = ImageTowerConfig(patch_size=16, width=64, layers=1, heads=1, stem="convolutions")
    text = TextTowerConfig(width=64, layers=1, heads=1)
    assert not fits_open_clip(CLIPConfig(embed_dim=8, image=image, text=text))
