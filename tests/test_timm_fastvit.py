import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import zoo
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.convolutions import Branched
from diptych.model.fastvit_blocks import Mixer
from diptych.model.fastvit_tower import FastViTTowerConfig
from diptych.weights.open_clip import config_from_open_clip, fits_open_clip, naming_of
from diptych.weights.registry import load_in_torch
from diptych.weights.stored import open_stored_model
from diptych.weights.timm_fastvit import FASTVIT, SIZES

TEXT = {"width": 32, "heads": 2, "layers": 1, "context_length": 12, "vocab_size": 520}
SMALL = {"widths": (16, 32, 64), "layers": (1, 2, 1), "squeezed_stages": 1}


def model_cfg(name: str = "fastvit_mci0", **options: object) -> dict[str, object]:
    vision = {"timm_model_name": name, "timm_pool": "avg", "timm_proj": None, "image_size": 256, **options}
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}


def read(name: str = "fastvit_mci0", **options: object) -> FastViTTowerConfig:
    config = config_from_open_clip(model_cfg(name, **options)).image
    assert isinstance(config, FastViTTowerConfig)
    return config


@pytest.mark.parametrize("name", SIZES)
def test_a_name_tells_the_sizes_and_the_sizes_the_name(name):
    config = read(name, image_size=224)
    assert (config.widths, config.layers, config.image_size) == (SIZES[name]["widths"], SIZES[name]["layers"], 224)
    written = FASTVIT.write(config)
    assert written["timm_model_name"] == name
    assert read(name, **{key: value for key, value in written.items() if key != "timm_model_name"}) == config


@pytest.mark.parametrize("name", ["fastvit_mci2", "fastvit_mci3"])
def test_every_tensor_has_a_name_of_its_own(name):
    config = config_from_open_clip(model_cfg(name))
    for form in (config, dataclasses.replace(config, image=dataclasses.replace(read(name), fused=True))):
        names = CLIP(form).state_dict()
        theirs = naming_of(form).from_ours({name: torch.empty(1) for name in names})
        assert len(theirs) == len(names)
        assert any(".reparam_conv." in name for name in theirs) == form.image.fused  # pyright: ignore[reportAttributeAccessIssue]
        gammas = {name.rpartition("blocks.0.")[2] for name in theirs if name.endswith("gamma")}
        mixers = set() if form is not config else {"token_mixer.layer_scale.gamma"}
        assert gammas >= {"layer_scale.gamma", "layer_scale_1.gamma", "layer_scale_2.gamma", *mixers}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timm_pool": ""}, r"vision_cfg\.timm_pool must be 'avg' for fastvit_mci0, .* Got ''"),
        ({"timm_proj": "linear"}, r"vision_cfg\.timm_proj must be None for fastvit_mci0, .* Got 'linear'"),
        ({"name": "fastvit_t8"}, r"timm_model_name must be None or absent\. Got 'fastvit_t8'"),
    ],
)
def test_what_is_another_tower_is_refused_in_a_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        read(**options)


def in_one(model: CLIP) -> dict[str, Tensor]:
    """The weights of a model whose branches are fused, as timm's `reparameterize_model` does it."""
    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, Branched | Mixer) and not name.endswith("look"):
            state |= dict(zip((f"{name}.weight", f"{name}.bias"), module.fused(), strict=True))
        if name.endswith(".places"):
            state[f"{name}.weight"] = state[f"{name}.weight"].clone()
            state[f"{name}.weight"][:, 0, 3, 3] += 1
    return state


@torch.no_grad()
def test_weights_whose_branches_are_fused_open_too_and_are_told_by_their_names(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(SIZES, "fastvit_small", SMALL)
    told = model_cfg("fastvit_small", image_size=64)
    apart = CLIP(config_from_open_clip(told)).to_empty(device="cpu").eval()
    theirs = naming_of(apart.config).from_ours(apart.state_dict())
    theirs = {name: zoo.weight(name, tuple(tensor.shape)) for name, tensor in theirs.items()}
    apart.load_state_dict(naming_of(apart.config).to_ours(theirs, apart.state_dict()))
    fused = dataclasses.replace(apart.config, image=dataclasses.replace(apart.config.image, fused=True))
    state, names = in_one(apart), CLIP(fused).state_dict()
    weights = naming_of(fused).from_ours({name: state[name] for name in names})
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": told}), encoding="utf-8")
    safetensors.torch.save_file(weights, tmp_path / "open_clip_model.safetensors")
    zoo.tokenizer(told).save(tmp_path)
    bundle = load_in_torch(tmp_path)
    assert bundle.model.config == fused
    images = zoo.pixels(told)
    torch.testing.assert_close(bundle.model.encode_image(images), apart.encode_image(images), rtol=0, atol=1e-5)
    assert not fits_open_clip(fused)
    with pytest.raises(ConfigError, match=r"builds a FastViT with its branches, .* Keep it as a bundle"):
        FASTVIT.write(fused.image)
    bundle.save(tmp_path / "bundle")
    assert open_stored_model(tmp_path / "bundle").config == fused
    again = load_in_torch(tmp_path / "bundle")
    assert torch.equal(again.model.encode_image(images), bundle.model.encode_image(images))
