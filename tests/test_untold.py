"""What files leave out is told, known of a published file, or assumed aloud; never in silence."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from bundles import TEXTS, make, new_tokenizer
from diptych.data.images import Preprocess
from diptych.errors import WeightsError
from diptych.files import sha256
from diptych.model.clip import CLIP
from diptych.torch_runtime import generator
from diptych.weights import untold
from diptych.weights.bundle import Bundle
from diptych.weights.golden import golden_picture
from diptych.weights.open_clip import naming_of
from diptych.weights.published import PublishedFile, published_files
from diptych.weights.registry import load_in_torch, model_info
from diptych.weights.untold import left_out_sentence


@pytest.fixture(scope="module")
def vit() -> Bundle:
    """With heads of 64 channels, as a bare state dict has them."""
    bundle = make("tiny-vit", new_tokenizer())
    config = bundle.model.config
    image = dataclasses.replace(config.image, width=64, heads=1, mlp_width=256)  # pyright: ignore[reportCallIssue]
    text = dataclasses.replace(config.text, width=64, heads=1, mlp_width=256)  # pyright: ignore[reportCallIssue]
    model = CLIP(dataclasses.replace(config, image=image, text=text), generator(3)).eval()
    return dataclasses.replace(bundle, model=model)


@pytest.fixture
def bare(vit, tmp_path) -> Path:
    """A bare state dict with a tokenizer beside it."""
    vit.tokenizer.save(tmp_path)
    torch.save(naming_of(vit.model.config).from_ours(vit.model.state_dict()), tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_what_is_assumed_is_said_with_the_options_that_say_otherwise(bare, caplog):
    bundle = load_in_torch(bare, activation="quick_gelu")
    recipe, end = caplog.messages
    assert recipe.startswith(f"{bare} does not tell its picture recipe. Assumed: 32 px (shorter side, then a crop in")
    assert recipe.endswith("wants mean=, std=, resize= or interpolation=.")
    assert "does not tell its end token. Assumed: the highest id of a text" in end
    assert bundle.preprocess == Preprocess(image_size=32)
    info = model_info(bare, activation="quick_gelu")
    assert info.origins == {"picture recipe": "assumed", "end token": "assumed", "activation": "told"}


def test_what_is_told_is_taken_and_nothing_is_said(bare, vit, caplog):
    end = vit.tokenizer.end_token_id
    recipe = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 1.0), "resize": "squash", "interpolation": "bilinear"}
    bundle = load_in_torch(bare, activation="quick_gelu", end_token=end, **recipe)  # pyright: ignore[reportArgumentType]
    assert caplog.messages == []
    assert bundle.preprocess == Preprocess(image_size=32, **recipe)  # pyright: ignore[reportArgumentType]
    assert bundle.model.config.text.end_token_id == end  # pyright: ignore[reportAttributeAccessIssue]
    info = model_info(bare, activation="quick_gelu", end_token=end, mean=(0.5, 0.5, 0.5))
    assert info.origins == {"picture recipe": "told", "end token": "told", "activation": "told"}
    assert (info.end_token, "mean 0.5 0.5 0.5, std 0.2686" in info.recipe) == (f"token {end}", True)


def test_what_makes_no_recipe_or_end_token_is_refused(bare):
    for told in ({"std": (0.0, 1.0, 1.0)}, {"end_token": 10**9}, {"resize": "no"}):
        with pytest.raises(WeightsError, match=f"{next(iter(told))}"):
            load_in_torch(bare, activation="quick_gelu", **told)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("layout", ["bundle", "open_clip"])
def test_what_files_tell_themselves_is_not_told_again(vit, tmp_path, layout):
    vit.save(tmp_path, layout=layout)
    for name, value in (("mean", (0, 0, 0)), ("resize", "squash"), ("activation", "gelu"), ("end_token", 3)):
        with pytest.raises(WeightsError, match=f"tells its own {name}: leave that out"):
            Bundle.load(tmp_path, **{name: value})
    assert set(model_info(tmp_path).origins.values()) == {"file"}


def test_a_published_file_is_known_by_its_digest_whatever_it_is_called(bare, monkeypatch, caplog):
    file = PublishedFile(name="x", sha256=sha256(bare)[:8], activation="gelu")
    monkeypatch.setattr(untold, "published_files", lambda: (file,))
    info = model_info(bare.rename(bare.with_name("y.pth")))
    assert set(info.origins.values()) == {"known by SHA-256"}
    assert load_in_torch(bare.with_name("y.pth")).model.config.text.activation == "gelu"  # pyright: ignore
    assert caplog.messages == []


def test_the_table_of_published_files_tells_each_apart():
    files = published_files()
    assert len({file.sha256 for file in files}) == len(files) == 21
    assert all(len(file.sha256) in (8, 64) and int(file.sha256, 16) for file in files)


def test_openais_own_format_has_its_recipe(vit, tmp_path, caplog):
    theirs = naming_of(vit.model.config).from_ours(vit.model.state_dict()) | {"input_resolution": torch.tensor(32)}
    torch.save(theirs, tmp_path / "x.pt")
    vit.tokenizer.save(tmp_path)
    load_in_torch(tmp_path / "x.pt")
    assert caplog.messages == []
    assert set(model_info(tmp_path / "x.pt").origins.values()) == {"format"}


# Parts of a folder that are not there


def without_seal(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["diptych"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def theirs(vit, tmp_path) -> Path:
    """A folder of `transformers`."""
    vit.save(tmp_path / "theirs")
    without_seal(tmp_path / "theirs")
    return tmp_path / "theirs"


def assert_same(found: Bundle, vit: Bundle) -> None:
    assert np.array_equal(found.encode_texts(TEXTS, truncate=True), vit.encode_texts(TEXTS, truncate=True))
    assert np.array_equal(found.encode_images([golden_picture()]), vit.encode_images([golden_picture()]))


def test_a_checkpoint_of_a_trainer_without_a_picture_recipe_opens_aloud(theirs, vit, caplog):
    (theirs / "preprocessor_config.json").unlink()
    assert_same(load_in_torch(theirs), vit)
    assert "does not tell its picture recipe. Assumed: 32 px" in caplog.text
    caplog.clear()
    assert load_in_torch(theirs, resize="squash").preprocess.resize == "squash"
    assert caplog.messages == []


def test_a_bundle_of_ours_without_its_picture_recipe_is_refused(vit, tmp_path):
    vit.save(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"must hold preprocessor_config\.json, as it was saved with it"):
        load_in_torch(tmp_path)


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "model.non_ema.safetensors"])
def test_weights_of_another_variant_open_where_they_are_the_only_ones(theirs, vit, name):
    (theirs / "model.safetensors").rename(theirs / name)
    assert_same(load_in_torch(theirs), vit)
    (theirs / "model.bf16.safetensors").touch()
    with pytest.raises(WeightsError, match=r"holds model\.bf16\.safetensors, model\..*Leave one of them there"):
        load_in_torch(theirs)


def test_a_folder_of_sentence_transformers_opens(theirs, vit, tmp_path):
    theirs.rename(tmp_path / "0_CLIPModel")
    (tmp_path / "modules.json").write_text("[]")
    assert_same(load_in_torch(tmp_path), vit)


def test_a_single_file_of_transformers_opens_beside_its_config_and_asks_for_it_elsewhere(theirs, vit, tmp_path):
    assert_same(load_in_torch(theirs / "model.safetensors"), vit)
    (theirs / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"weights of transformers, .* Put its config\.json, .* give the folder"):
        load_in_torch(tmp_path / "model.safetensors")


# Towers of CLIP that were trained with the sigmoid loss


@pytest.fixture(scope="module")
def sigmoid(vit) -> Bundle:
    model = CLIP(dataclasses.replace(vit.model.config, head="sigmoid"), generator(7)).eval()
    return dataclasses.replace(vit, model=model)


@pytest.mark.parametrize("kind", ["bare", "open_clip", "open_clip without init_logit_bias", "transformers"])
def test_a_clip_trained_with_the_sigmoid_loss_opens_as_its_file_says(sigmoid, tmp_path, kind):
    weights: dict[str, Tensor] = naming_of(sigmoid.model.config).from_ours(sigmoid.model.state_dict())
    if kind == "bare":
        sigmoid.tokenizer.save(tmp_path)
        boxed = {name: tensor.reshape(1) if tensor.ndim == 0 else tensor for name, tensor in weights.items()}
        safetensors.torch.save_file(boxed, tmp_path / "x.safetensors")
        found = load_in_torch(tmp_path / "x.safetensors", activation="quick_gelu")
    elif kind == "transformers":
        softmax = dataclasses.replace(sigmoid.model.config, head="softmax")
        dataclasses.replace(sigmoid, model=CLIP(softmax, generator(7)).eval()).save(tmp_path)
        without_seal(tmp_path)
        file = tmp_path / "model.safetensors"
        weights = safetensors.torch.load_file(file) | {
            name: sigmoid.model.state_dict()[name].clone() for name in ("logit_scale", "logit_bias")
        }
        safetensors.torch.save_file(weights, file)
        found = load_in_torch(tmp_path)
    else:
        sigmoid.save(tmp_path, layout="open_clip")
        path = tmp_path / "open_clip_config.json"
        config = json.loads(path.read_text())
        assert config["model_cfg"]["init_logit_bias"] == -10
        if "without" in kind:
            del config["model_cfg"]["init_logit_bias"], config["diptych"]
            path.write_text(json.dumps(config))
        found = load_in_torch(tmp_path)
    assert found.model.config.head == "sigmoid"
    features = np.eye(2, 32, dtype=np.float32)
    logits = sigmoid.logits_per_image(features, features)
    assert np.array_equal(found.logits_per_image(features, features), logits)
    assert math.isclose(logits[0, 0].item(), 0, abs_tol=1e-5)
    assert_same(found, sigmoid)


def test_what_is_left_out_is_counted_and_its_parts_are_named():
    names = [f"decoder.layers.{n}.mlp.{kind}" for n in range(3) for kind in ("weight", "bias")]
    found = left_out_sentence([*names, "probe"], Path("x"))
    assert found == "x holds more than two towers. Left out: 7 tensors, of decoder.layers.*.mlp, probe."
    many = left_out_sentence([f"{letter}.weight" for letter in "abcde"], Path("x"))
    assert many.endswith("5 tensors, of a, b, c, d and others.")
