import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import generator
from diptych.weights import registry
from diptych.weights.bundle import About, Bundle
from diptych.weights.registry import DEFAULT_MODEL, ModelInfo, list_models, load


def make(name: str, seed: int) -> Bundle:
    tokenizer = Tokenizer.train(["a red kite"] * 3, vocab_size=515, context_length=16)
    config = preset(name)
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=515))
    about = About(licence="CC0-1.0", data="kites")
    return Bundle(
        model=CLIP(config, generator(seed)).eval(),
        preprocess=Preprocess(image_size=32),
        tokenizer=tokenizer,
        about=about,
    )


@pytest.fixture
def models(tmp_path, monkeypatch) -> dict[str, Bundle]:
    """Two packaged models, in place of those that are really there."""
    folder = tmp_path / "models"
    monkeypatch.setattr(registry, "_MODELS", folder)
    bundles = {DEFAULT_MODEL: make("tiny-vit", 0), "a-resnet": make("tiny-resnet", 1)}
    for name, bundle in bundles.items():
        bundle.save(folder / name)
    return bundles


def test_packaged_models_are_listed_with_their_facts(models, monkeypatch):
    monkeypatch.setattr(Bundle, "load", None)  # no model is built for a list
    resnet, vit = list_models()
    counts = {name: sum(p.numel() for p in bundle.model.parameters()) for name, bundle in models.items()}
    assert vit == ModelInfo(
        name=DEFAULT_MODEL,
        architecture="ViT/8, 2 layers of 32; text: 2 layers of 32, 515 x 16 tokens",
        parameters=counts[DEFAULT_MODEL],
        embed_dim=32,
        image_size=32,
        licence="CC0-1.0",
        data="kites",
        size=sum(file.stat().st_size for file in (registry._MODELS / DEFAULT_MODEL).iterdir()),
    )
    assert (resnet.name, resnet.parameters) == ("a-resnet", counts["a-resnet"])
    assert resnet.architecture.startswith("ResNet, 1-1-1-1 bottlenecks, stem of 4; text")


def test_a_model_is_loaded_by_its_name_and_the_default_without_one(models):
    assert load().fingerprint() == load(DEFAULT_MODEL).fingerprint() == models[DEFAULT_MODEL].fingerprint()
    assert load("a-resnet").fingerprint() == models["a-resnet"].fingerprint()


def test_a_folder_will_do_as_text_or_path(models, tmp_path):
    mine = make("tiny-vit", 2)
    mine.save(tmp_path / "mine")
    assert load(str(tmp_path / "mine")).fingerprint() == load(tmp_path / "mine").fingerprint() == mine.fingerprint()


def test_a_name_goes_before_a_folder_of_the_same_name(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = make("tiny-vit", 2)
    mine.save(tmp_path / "a-resnet")
    assert load("a-resnet").fingerprint() == models["a-resnet"].fingerprint()
    assert load("./a-resnet").fingerprint() == load(Path("a-resnet")).fingerprint() == mine.fingerprint()


def test_the_default_is_never_a_folder_that_happens_to_stand_there(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_MODELS", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    make("tiny-vit", 2).save(tmp_path / DEFAULT_MODEL)
    with pytest.raises(ConfigError, match=f"{DEFAULT_MODEL} is not a model"):
        load()


def test_an_unknown_name_is_answered_with_the_nearest_and_that_a_folder_will_do(models):
    with pytest.raises(ConfigError, match=rf"Did you mean {DEFAULT_MODEL}\? Options: a-resnet, .* the folder of a"):
        load("diptych-pictogram-smal")
    with pytest.raises(ConfigError, match="runs/b is not a model"):
        load("runs/b")


def test_a_folder_that_is_no_bundle_says_so(models, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty must hold config\.json"):
        load(tmp_path / "empty")


def test_every_model_in_the_package_loads_and_tells_its_licence():
    for info in list_models():
        bundle = load(info.name)
        assert sum(parameter.numel() for parameter in bundle.model.parameters()) == info.parameters
        assert info.licence
        assert torch.isfinite(bundle.encode_texts(["a cat"])).all()


def test_another_image_size_reaches_the_tower_and_the_preprocess(models):
    larger = load("a-resnet", image_size=64)
    assert larger.model.config.image.image_size == larger.preprocess.image_size == 64
    assert larger.encode_images([Image.new("RGB", (90, 70), "red")]).shape == (1, 32)
    with pytest.raises(ConfigError, match="image_size"):
        load("a-resnet", image_size=50)
