"""What a check on load finds: golden inputs whose features come out otherwise, and files that were changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from bundles import make, new_tokenizer
from diptych.data.tokenizer import Tokenizer
from diptych.errors import WeightsError
from diptych.weights.bundle import Bundle
from diptych.weights.golden import GOLDEN_TOLERANCE, golden_of, golden_picture


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return new_tokenizer()


@pytest.fixture(scope="module")
def vit(tokenizer) -> Bundle:
    return make("tiny-vit", tokenizer)


@pytest.fixture(scope="module")
def resnet(tokenizer) -> Bundle:
    return make("tiny-resnet", tokenizer)


def edit_config(folder: Path, edit) -> None:
    data = json.loads((folder / "config.json").read_text())
    edit(data)
    (folder / "config.json").write_text(json.dumps(data))


def edit_weights(folder: Path, edit) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    edit(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def test_the_golden_picture_is_the_same_everywhere():
    pixels = np.asarray(golden_picture())
    assert pixels.shape == (80, 120, 3)
    assert pixels[10, 100].tolist() == [200, 30, 255]  # red grows to the right, green downwards
    assert pixels[0, ::8, 2].tolist() == [0, 255] * 7 + [0]


def test_golden_features_are_those_of_the_model_without_padding_and_rounded(vit):
    golden = golden_of(vit)
    tokens = vit.tokenizer.encode(vit.golden_texts, truncate=True)
    assert len(golden.tokens) == len(vit.golden_texts)
    for row, whole in zip(golden.tokens, tokens.tolist(), strict=True):
        assert list(row) == whole[: whole.index(vit.tokenizer.end_token_id) + 1]
    assert np.shape(golden.image_features) == (1, 32)
    of_picture, of_texts = vit.encode_images([golden_picture()]), vit.encode_texts(vit.golden_texts, truncate=True)
    np.testing.assert_allclose(golden.image_features, of_picture, rtol=0, atol=5.1e-6)
    np.testing.assert_allclose(golden.text_features, of_texts, rtol=0, atol=5.1e-6)


@pytest.fixture
def folder(vit, tmp_path) -> Path:
    vit.save(tmp_path / "b")
    return tmp_path / "b"


def set_activation(data) -> None:
    data["vision_config"]["hidden_act"] = data["text_config"]["hidden_act"] = "gelu"


def swap_channels(data) -> None:
    data["image_mean"].reverse()
    data["image_std"].reverse()


def test_another_activation_in_config_json_is_found(folder):
    edit_config(folder, set_activation)
    message = r"image_features are [\d.]+ off, text_features are [\d.]+ off\. config\.json was changed since"
    with pytest.raises(WeightsError, match=message):
        Bundle.load(folder)
    Bundle.load(folder, verify=False)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_swapped_colour_channels_are_found(request, kind, tmp_path):
    request.getfixturevalue(kind).save(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    data = json.loads(path.read_text())
    swap_channels(data)
    path.write_text(json.dumps(data))
    with pytest.raises(
        WeightsError, match=r"and image_features are [\d.]+ off\. preprocessor_config\.json was changed"
    ):
        Bundle.load(tmp_path)


def test_a_file_written_otherwise_with_the_same_content_is_no_fault(folder):
    edit_config(folder, lambda data: data.update(transformers_version="5.0"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    Bundle.load(folder)


def test_changed_weights_are_found(folder):
    edit_weights(folder, lambda weights: weights["text_model.embeddings.token_embedding.weight"][100].zero_())
    with pytest.raises(WeightsError, match=r"model\.safetensors must be the file that was saved with the bundle"):
        Bundle.load(folder)
    Bundle.load(folder, verify=False)
    edit_config(folder, lambda data: data.pop("diptych"))
    Bundle.load(folder)


def test_a_changed_tokenizer_is_found(folder):
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    vocab = data["model"]["vocab"]
    vocab["q</w>"], vocab["z</w>"] = vocab["z</w>"], vocab["q</w>"]  # in none of the golden texts
    path.write_text(json.dumps(data))
    with pytest.raises(WeightsError, match=r"tokenizer\.json must be the file that was saved with the bundle"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json"])
def test_files_that_the_golden_inputs_do_not_reach_are_looked_at(folder, name):
    path = folder / name
    path.write_text(path.read_text().replace("1", "2").replace("r e", "r d"))
    with pytest.raises(WeightsError):
        Bundle.load(folder)
    if name != "preprocessor_config.json":
        path.unlink()  # it is for other libraries
        Bundle.load(folder)


def test_a_changed_seal_is_found_and_the_first_bundles_have_none_of_it(folder):
    edit_config(folder, lambda data: data["diptych"]["about"].update(licence="none"))
    with pytest.raises(WeightsError, match="must have the seal that it was saved with"):
        Bundle.load(folder)
    edit_config(folder, lambda data: data["diptych"].pop("own"))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    Bundle.load(folder)


def test_code_that_computes_otherwise_is_found(folder, monkeypatch):
    monkeypatch.setattr("diptych.weights.golden.golden_picture", lambda: Image.new("RGB", (40, 40)))
    with pytest.raises(WeightsError, match=r"image_features are .* off\. No file was changed since: another version"):
        Bundle.load(folder)


def test_golden_features_of_another_processor_pass_and_those_of_another_model_do_not(folder):
    def shift(by):
        def edit(data):
            data["diptych"]["golden"]["image_features"][0][0] += by
            data["diptych"].pop("own", None)  # as in the first bundles

        return edit

    edit_config(folder, shift(0.5 * GOLDEN_TOLERANCE))
    Bundle.load(folder)
    edit_config(folder, shift(GOLDEN_TOLERANCE))
    with pytest.raises(WeightsError, match=r"image_features are 0\.003 off"):
        Bundle.load(folder)


def test_a_missing_tokenizer_is_named(folder):
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    with pytest.raises(WeightsError, match=r"comes without a tokenizer"):
        Bundle.load(folder)


def test_a_config_of_another_end_token_than_the_tokenizer_has_is_refused(folder):
    edit_config(folder, lambda data: data["text_config"].update(eos_token_id=7))
    with pytest.raises(WeightsError, match=r"b: text tower and tokenizer must have the same end token\. Got 7"):
        Bundle.load(folder)


def test_golden_features_of_another_size_are_no_match(folder):
    edit_config(folder, lambda data: data["diptych"]["golden"].update(text_features=[[1.0]]))
    with pytest.raises(WeightsError, match="text_features are inf off"):
        Bundle.load(folder)
