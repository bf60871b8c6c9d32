import dataclasses
import json
import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from bundles import ABOUT, TEXTS, make, new_tokenizer, some_pictures
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, WeightsError
from diptych.model.clip import CLIP
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.golden import GOLDEN_TOLERANCE


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return new_tokenizer()


@pytest.fixture(scope="module", params=["tiny-vit", "tiny-resnet"])
def bundle(request, tokenizer) -> Bundle:
    return make(request.param, tokenizer)


@pytest.fixture(scope="module")
def vit(tokenizer) -> Bundle:
    return make("tiny-vit", tokenizer)


@pytest.fixture(scope="module")
def resnet(tokenizer) -> Bundle:
    return make("tiny-resnet", tokenizer)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return some_pictures()


def edit_config(folder: Path, edit) -> None:
    data = json.loads((folder / "config.json").read_text())
    edit(data)
    (folder / "config.json").write_text(json.dumps(data))


def edit_weights(folder: Path, edit) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    edit(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def assert_same_features(first: Bundle, second: Bundle, pictures, *, atol: float) -> None:
    for features, others in (
        (first.encode_images(pictures), second.encode_images(pictures)),
        (first.encode_texts(TEXTS, truncate=True), second.encode_texts(TEXTS, truncate=True)),
    ):
        torch.testing.assert_close(features, others, rtol=0, atol=atol)


def test_a_bundle_comes_back_from_its_folder_bit_for_bit(bundle, pictures, tmp_path):
    bundle.save(tmp_path / "b")
    loaded = Bundle.load(tmp_path / "b")
    ours, theirs = bundle.model.state_dict(), loaded.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    assert (loaded.model.config, loaded.preprocess, loaded.about) == (bundle.model.config, bundle.preprocess, ABOUT)
    assert loaded.tokenizer.fingerprint() == bundle.tokenizer.fingerprint()
    assert loaded.fingerprint() == bundle.fingerprint()
    assert not loaded.model.training
    assert_same_features(loaded, bundle, pictures, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_load_as_float32_and_pass_their_check(bundle, dtype, pictures, tmp_path):
    bundle.save(tmp_path / "half", dtype=dtype)
    bundle.save(tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = Bundle.load(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.logit_scale == bundle.logit_scale
    assert_same_features(loaded, bundle, pictures, atol=0.02)


def test_a_bundle_of_another_type_than_we_store_is_refused(vit, tmp_path):
    with pytest.raises(ConfigError, match=r"Got torch\.float64"):
        vit.save(tmp_path / "b", dtype=torch.float64)


def test_a_bundle_replaces_the_one_before_and_leaves_nothing_beside_it(vit, tmp_path):
    vit.save(tmp_path / "b")
    (tmp_path / "b" / "note.txt").touch()
    vit.save(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "config.json", "merges.txt", "model.safetensors", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip


def test_a_disk_that_takes_no_more_leaves_the_bundle_before(vit, tmp_path):
    vit.save(tmp_path / "b")
    before = (tmp_path / "b" / "config.json").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match="could not be written: File too large"):
            vit.save(tmp_path / "b", dtype=torch.float16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b" / "config.json").read_bytes() == before


def test_a_model_that_gives_nan_is_not_saved(vit, tmp_path):
    model = CLIP(vit.model.config, generator(0))
    torch.nn.init.constant_(model.text.projection, torch.nan)
    with pytest.raises(WeightsError, match=r"not saved: has its training diverged\? image features must be finite"):
        dataclasses.replace(vit, model=model).save(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


# What a check on load finds


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
    monkeypatch.setattr("diptych.weights.saving.golden_picture", lambda: Image.new("RGB", (40, 40)))
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
