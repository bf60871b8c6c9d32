import dataclasses
import resource

import pytest
import torch
from PIL import Image

from bundles import ABOUT, TEXTS, make, new_tokenizer, some_pictures
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, WeightsError
from diptych.model.clip import CLIP
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle


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
