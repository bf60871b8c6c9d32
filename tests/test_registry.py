import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.classify import ZeroShotClassifier
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIP
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.presets import preset
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from diptych.weights import packaged, places
from diptych.weights.bundle import Bundle
from diptych.weights.convert import save_as
from diptych.weights.engines import load as load_any
from diptych.weights.folder import About
from diptych.weights.hub import HubRevision
from diptych.weights.packaged import DEFAULT_MODEL, DEFAULT_TOWERS
from diptych.weights.published import published_models
from diptych.weights.registry import ModelInfo, list_models, model_info, sizes_of
from diptych.weights.registry import load_in_torch as load


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


def small_openai() -> Bundle:
    """What fits into OpenAI's format: heads of 64 channels, QuickGELU."""
    bundle = make("tiny-vit", 3)
    config = bundle.model.config
    assert isinstance(config.image, ImageTowerConfig)
    image = dataclasses.replace(config.image, width=64, heads=1, layers=1, mlp_width=256)
    text = dataclasses.replace(config.text, width=64, heads=1, layers=1, mlp_width=256)
    model = CLIP(dataclasses.replace(config, image=image, text=text), generator(3)).eval()
    return dataclasses.replace(bundle, model=model)


@pytest.fixture
def models(tmp_path, monkeypatch) -> dict[str, Bundle]:
    """Two packaged models, in place of those that are really there."""
    folder = tmp_path / "models"
    monkeypatch.setattr(packaged, "_MODELS", folder)
    monkeypatch.setattr(packaged, "drawings", lambda: None)
    bundles = {DEFAULT_TOWERS: make("tiny-vit", 0), "a-resnet": make("tiny-resnet", 1)}
    for name, bundle in bundles.items():
        bundle.save(folder / name)
    return bundles


@pytest.fixture
def nothing_is_built(monkeypatch) -> None:
    def build(*_: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(CLIP, "__init__", build)


def parameters_of(bundle: Bundle) -> int:
    return sum(parameter.numel() for parameter in bundle.model.parameters())


def test_packaged_models_are_listed_with_their_facts(models, nothing_is_built):
    resnet, vit = list_models()
    folder = packaged._MODELS / DEFAULT_TOWERS
    assert vit == ModelInfo(
        name=DEFAULT_TOWERS,
        kind="diptych bundle",
        architecture="ViT/8, 2 layers of 32; text: 2 layers of 32, 515 x 16 tokens",
        parameters=parameters_of(models[DEFAULT_TOWERS]),
        embed_dim=32,
        image_size=32,
        types="float32",
        tensors=8 + 2 * 2 * 16 + 6,  # of the image tower, of its and the text tower's blocks, and the rest
        recipe="32 px (shorter side, then a crop in the middle), bicubic, "
        "mean 0.4815 0.4578 0.4082, std 0.2686 0.2613 0.2758",
        end_token="the highest id of a text",
        origins={"picture recipe": "file", "end token": "file", "activation": "file"},
        tokenizer=str(folder),
        source="",
        licence="CC0-1.0",
        data="kites",
        size=sum(file.stat().st_size for file in folder.iterdir()),
    )
    assert (resnet.name, resnet.parameters) == ("a-resnet", parameters_of(models["a-resnet"]))
    assert resnet.architecture.startswith("ResNet, 1-1-1-1 bottlenecks, stem of 4; text")


FACTS = {
    "architecture": "ViT/8, 1 layers of 64; text: 1 layers of 64, 515 x 16 tokens",
    "embed_dim": 32,
    "image_size": 32,
}


@pytest.mark.parametrize(
    ("format_", "name", "kind"),
    [
        ("huggingface", "x", "diptych bundle"),
        ("open_clip", "x", "open_clip folder"),
        ("openai", "x.pt", "OpenAI state dict"),
    ],
)
@pytest.mark.parametrize(("dtype", "types"), [(torch.float32, "float32"), (torch.float16, "float16")])
def test_a_model_in_another_format_tells_the_same_facts(tmp_path, monkeypatch, format_, name, kind, dtype, types):
    bundle = small_openai()
    save_as(bundle, tmp_path / name, format=format_, dtype=dtype)
    monkeypatch.setattr(Bundle, "load", None)
    info = model_info(tmp_path / name)
    assert {key: getattr(info, key) for key in FACTS} == FACTS
    assert (info.name, info.kind, info.types) == (name, kind, types)
    assert info.parameters == parameters_of(bundle)
    about = (info.licence, info.data, info.tokenizer)
    assert about == (("", "", "") if format_ == "openai" else ("CC0-1.0", "kites", str(tmp_path / name)))
    assert info.size == sum(file.stat().st_size for file in (tmp_path / name, *tmp_path.glob("x/*")) if file.is_file())


def test_what_is_left_out_of_a_bare_file_must_be_said(tmp_path, nothing_is_built):
    state = {"visual.conv1.weight": torch.zeros(64, 3, 8, 8), "text_projection": torch.zeros(64, 32)}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="does not tell its activation"):
        model_info(tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="the shapes of the state dict are no CLIP's"):
        model_info(tmp_path / "x.pt", activation="gelu")


def test_a_model_is_loaded_by_its_name_and_the_default_without_one(models):
    assert load().fingerprint() == load(DEFAULT_TOWERS).fingerprint() == models[DEFAULT_TOWERS].fingerprint()
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
    monkeypatch.setattr(packaged, "_MODELS", tmp_path / "none")
    monkeypatch.setattr(packaged, "drawings", lambda: None)
    monkeypatch.chdir(tmp_path)
    make("tiny-vit", 2).save(tmp_path / DEFAULT_TOWERS)
    with pytest.raises(ConfigError, match=f"{DEFAULT_TOWERS} is not a model"):
        load()


def test_an_unknown_name_is_answered_with_the_nearest_and_that_a_folder_will_do(models):
    with pytest.raises(
        ConfigError, match=rf"Did you mean {DEFAULT_TOWERS}\? Options: a-resnet, .* the folder or file of one"
    ):
        load("diptych-pictogram-smal")
    with pytest.raises(ConfigError, match="runs/b is not a model"):
        load("runs/b")


def test_a_folder_that_is_no_bundle_says_so(models, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty must hold config\.json or open_clip_config\.json"):
        load(tmp_path / "empty")


def test_every_model_in_the_package_loads_and_tells_its_licence():
    for info in list_models():
        if info.name == DEFAULT_MODEL:  # two of the others
            assert load_any(info.name).embed_dim == info.embed_dim
            continue
        bundle = load(info.name)
        assert sum(parameter.numel() for parameter in bundle.model.parameters()) == info.parameters
        assert info.licence
        assert np.isfinite(bundle.encode_texts(["a cat"])).all()


def test_another_image_size_reaches_the_tower_and_the_preprocess(models):
    larger = load("a-resnet", image_size=64)
    assert larger.model.config.image.image_size == larger.preprocess.image_size == 64
    assert larger.encode_images([Image.new("RGB", (90, 70), "red")]).shape == (1, 32)
    with pytest.raises(ConfigError, match="image_size"):
        load("a-resnet", image_size=50)


# Files and hubs


def test_a_file_takes_what_it_does_not_tell_from_the_call(tmp_path):
    bundle = small_openai()
    save_as(bundle, tmp_path / "folder", format="open_clip")
    path = (tmp_path / "folder" / "open_clip_model.safetensors").rename(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="does not tell its activation"):
        load(path)
    with pytest.raises(WeightsError, match=r"x\.safetensors comes without a tokenizer"):
        load(path, activation="quick_gelu")
    loaded = load(path, activation="quick_gelu", tokenizer=str(tmp_path / "folder"))
    assert loaded.fingerprint() == bundle.fingerprint()
    assert load(path, activation="gelu", heads=2, tokenizer=tmp_path / "folder").model.config.image == (
        dataclasses.replace(bundle.model.config.image, activation="gelu", heads=2)
    )
    assert load(path, activation="gelu", tokenizer=tmp_path / "folder", image_size=64).preprocess.image_size == 64


@pytest.fixture
def hub(tmp_path, monkeypatch) -> dict[str, str | None]:
    """A hub whose every repository is one and the same model; the last call is kept."""
    asked: dict[str, str | None] = {}
    make("tiny-vit", 4).save(tmp_path / "snapshot")

    def fetch(name: str, *, revision: str | None = None) -> HubRevision:
        asked.update(name=name, revision=revision)
        digests = {"model.safetensors": "12ab", "config.json": "34cd"}
        return HubRevision(
            name=name.split("@")[0],
            revision="f" * 40,
            folder=tmp_path / "snapshot",
            weights="model.safetensors",
            sha256=digests,
        )

    monkeypatch.setattr(places, "fetch", fetch)
    return asked


def test_a_published_model_comes_with_its_licence_data_commit_and_digest(hub):
    known = published_models()[0]
    bundle = load(known.hub, revision="main")
    assert hub == {"name": known.hub, "revision": "main"}
    assert bundle.about == About(
        source=f"{known.hub}@{'f' * 40}", licence=known.licence, data=known.data, sha256="12ab"
    )
    assert bundle.model.config.embed_dim == 32
    info = model_info(known.hub)
    assert hub == {"name": known.hub, "revision": None}
    assert (info.name, info.licence, info.data) == (known.hub, known.licence, known.data)
    assert info.source == f"{known.hub}@{'f' * 40}"


def test_of_another_model_on_the_hub_the_commit_and_digest_are_known(hub):
    about = load("hf:someone/something@v1", image_size=64).about
    assert hub == {"name": "hf:someone/something@v1", "revision": None}
    assert about == About(source=f"hf:someone/something@{'f' * 40}", sha256="12ab")


def test_of_several_files_of_weights_in_a_cache_the_one_that_was_fetched_is_read(hub, tmp_path):
    torch.save({}, tmp_path / "snapshot" / "pytorch_model.bin")
    (tmp_path / "snapshot" / "open_clip_config.json").write_text("{}")
    assert load("hf:someone/something").fingerprint() == make("tiny-vit", 4).fingerprint()


def test_a_revision_of_a_path_or_a_packaged_model_is_refused(models, tmp_path):
    for name in (tmp_path, "a-resnet", None):
        with pytest.raises(ConfigError, match="a revision is of a hub name, hf:org/name"):
            load(name, revision="main")


needs_default = pytest.mark.skipif(
    all(model.name != DEFAULT_TOWERS for model in list_models()), reason=f"{DEFAULT_TOWERS} is not in the package"
)


@needs_default
def test_the_model_that_ships_is_small_open_and_knows_which_words_are_near():
    info = next(model for model in list_models() if model.name == DEFAULT_TOWERS)
    assert info.size <= 40e6
    assert info.licence == "Apache-2.0"
    assert "No captioned pictures" in info.data
    words = ["a puppy", "a dog", "a truck", "a lorry"]
    cosines = (features := load().encode_texts(words)) @ features.T
    assert cosines[0, 1] > cosines[0, 2] + 0.3
    assert cosines[2, 3] > cosines[3, 1] + 0.3


@needs_default
def test_the_model_for_pictograms_reads_many_languages_and_tells_a_script_that_is_none_of_them():
    clip = load("diptych-pictogram")
    cats = ["cat", "Katze", "gato", "кошка", "猫", "ネコ", "قطة", "बिल्ली", "a photo of a cat."]
    umbrellas = ["umbrella", "Regenschirm", "paraguas", "зонт", "伞", "傘", "شمسية", "छाता", "a photo of an umbrella."]
    cosines = (features := clip.encode_texts([*cats, *umbrellas])) @ features.T
    assert cosines[: len(cats), : len(cats)].min() > cosines[: len(cats), len(cats) :].max() + 0.1
    assert clip.unread([*cats, *umbrellas]) == []
    (unread,) = clip.unread(["ᚲᚨᛏᛏᚨ"])
    assert unread.is_whole


@needs_default
@pytest.mark.parametrize("name", ["diptych-pictogram", "diptych-pictogram-small"])
def test_a_model_for_pictograms_is_there_by_name_and_names_drawings_of_a_style_it_has_not_seen(name: str):
    assert next(model for model in list_models() if model.name == name).size <= 15e6
    labels = ["red apple", "sailboat", "flag: france", "umbrella"]
    drawings = read_labelled(data_path(HELD_OUT))
    images = [drawings.image_bytes(drawings.classnames.index(label)) for label in labels]
    assert ZeroShotClassifier(load(name), labels)(images).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_two_models_behind_one_name_are_told_as_their_sum_and_refused_where_one_is_wanted():
    whole, first, second = map(model_info, (DEFAULT_MODEL, "diptych-photo", "diptych-pictogram"))
    assert whole.parameters == first.parameters + second.parameters
    assert whole.architecture == f"diptych-photo: {first.architecture} / diptych-pictogram: {second.architecture}"
    for ask in (load, sizes_of):
        with pytest.raises(ConfigError, match=r"diptych is two models behind one name, .* Name diptych-photo"):
            ask(DEFAULT_MODEL)
