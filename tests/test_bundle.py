import copy
import dataclasses
import math
import types

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from bundles import TEXTS, make, new_tokenizer, some_pictures
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, ImageError, TextError, WeightsError
from diptych.model.clip import CLIP
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About
from diptych.weights.golden import golden_picture


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


def test_features_are_those_of_the_model_one_by_one(bundle, pictures):
    seen = [torch.from_numpy(bundle.preprocess(picture)[None]) for picture in pictures]
    read = [torch.from_numpy(bundle.tokenizer.encode([text], truncate=True)) for text in TEXTS]
    with torch.no_grad():
        images = torch.cat([bundle.model.encode_image(one) for one in seen]).numpy()
        texts = torch.cat([bundle.model.encode_text(one) for one in read]).numpy()
    torch.testing.assert_close(bundle.encode_images(pictures, batch_size=4), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(bundle.encode_texts(TEXTS, batch_size=2, truncate=True), texts, rtol=0, atol=1e-5)
    assert bundle.logit_scale == pytest.approx(1 / 0.07)


def test_no_pictures_and_no_texts_give_no_rows(vit):
    assert vit.encode_images([]).shape == vit.encode_texts([]).shape == (0, 32)


def test_features_may_be_trained_on(vit, pictures):
    weights = torch.zeros(32, 2, requires_grad=True)
    for features in (vit.encode_images(pictures), vit.encode_texts(TEXTS, truncate=True)):
        (torch.from_numpy(features) @ weights).sum().backward()  # a tensor of inference mode would refuse


def test_encoding_is_in_eval_mode_and_leaves_each_module_in_its_own(resnet, pictures):
    expected = resnet.encode_images(pictures)
    statistics = resnet.model.image.stem[1].running_mean.clone()
    resnet.model.train()
    resnet.model.text.eval()  # a frozen tower
    try:
        torch.testing.assert_close(resnet.encode_images(pictures), expected, rtol=0, atol=0)
        assert torch.equal(resnet.model.image.stem[1].running_mean, statistics)
        assert resnet.model.image.stem[1].training
        assert not resnet.model.text.blocks.training
    finally:
        resnet.model.eval()


def test_a_picture_or_text_that_cannot_be_encoded_is_named(vit, tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png must be a picture"):
        vit.encode_images([golden_picture(), tmp_path / "gone.png"])
    with pytest.raises(TextError, match="must fit 16 tokens"):
        vit.encode_texts(["word " * 30])
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1\. Got 0"):
        vit.encode_texts(TEXTS, batch_size=0)


def test_parts_of_different_models_do_not_make_a_bundle(vit, tokenizer):
    with pytest.raises(ConfigError, match=r"same image_size\. Got 64 and 32"):
        dataclasses.replace(vit, preprocess=Preprocess(image_size=64))
    larger = Tokenizer.train(TEXTS * 3, vocab_size=600, context_length=77)
    with pytest.raises(ConfigError, match="must take all tokens: it has context_length=16"):
        dataclasses.replace(vit, tokenizer=larger)
    config = dataclasses.replace(vit.model.config, text=dataclasses.replace(vit.model.config.text, end_token_id=7))
    with pytest.raises(ConfigError, match=rf"same end token\. Got 7 and {tokenizer.end_token_id}"):
        dataclasses.replace(vit, model=CLIP(config, generator(0)))


def test_the_fingerprint_changes_with_each_part(vit, tokenizer):
    scaled = CLIP(vit.model.config)
    scaled.load_state_dict({name: tensor.clone() for name, tensor in vit.model.state_dict().items()}, assign=True)
    torch.nn.init.constant_(scaled.logit_scale, 3)
    image = dataclasses.replace(vit.model.config.image, activation="gelu")
    otherwise = CLIP(dataclasses.replace(vit.model.config, image=image))
    otherwise.load_state_dict(vit.model.state_dict(), assign=True)
    other_tokenizer = Tokenizer.train(["a green kite"] * 3, vocab_size=tokenizer.vocab_size, context_length=16)
    bundles = [
        vit,
        dataclasses.replace(vit, model=scaled),
        dataclasses.replace(vit, model=otherwise),
        dataclasses.replace(vit, preprocess=Preprocess(image_size=32, resize="squash")),
        dataclasses.replace(vit, tokenizer=other_tokenizer),
    ]
    assert len({bundle.fingerprint() for bundle in bundles}) == 5
    assert dataclasses.replace(vit, about=About()).fingerprint() == vit.fingerprint()


IN_ATTENTION = "transformer.resblocks.0.attn.in_proj_weight"  # where a fused kernel gives finite numbers for NaN


@pytest.mark.parametrize("name", ["visual.proj", "text_projection", IN_ATTENTION, "logit_scale"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_at_the_first_features_by_their_name(vit, tmp_path, name, value):
    vit.save(tmp_path, layout="open_clip")
    path = tmp_path / "open_clip_model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights[name].view(-1)[0] = value
    safetensors.torch.save_file(weights, path)
    broken = Bundle.load(tmp_path, verify=False)
    for encode in (lambda: broken.encode_images([golden_picture()]), lambda: broken.encode_texts(["a cat"])):
        with pytest.raises(WeightsError, match=rf"must be finite numbers.*{name} of the weights holds NaN or infinite"):
            encode()


def test_weights_whose_sum_alone_overflows_are_taken(vit):
    model = CLIP(vit.model.config, generator(0)).eval()
    torch.nn.init.constant_(model.image.get_parameter("ln_pre.bias"), 3e38)
    assert dataclasses.replace(vit, model=model)._broken == []


def test_weights_that_change_after_the_first_features_are_looked_at_again(vit):
    model = CLIP(vit.model.config, generator(0)).eval()
    bundle = dataclasses.replace(vit, model=model)
    bundle.encode_texts(["a cat"])
    torch.nn.init.constant_(model.text.get_parameter("projection"), math.nan)
    with pytest.raises(WeightsError, match=r"1 of 1 are not\. text\.projection of the weights holds NaN"):
        bundle.encode_texts(["a cat"])


def test_a_model_in_other_numbers_encodes_near_what_it_did(vit, pictures):
    bundle = vit
    before = bundle.encode_images(pictures), bundle.encode_texts(TEXTS, truncate=True)
    for halve in (lambda one: one.to(dtype="bfloat16"), lambda one: one.model.half()):
        other = dataclasses.replace(bundle, model=copy.deepcopy(bundle.model))
        halve(other)
        after = other.encode_images(pictures), other.encode_texts(TEXTS, truncate=True)
        for old, new in zip(before, after, strict=True):
            assert new.dtype == np.float32
            assert 0 < np.linalg.norm(old - new, axis=1).max() < 0.05


def test_a_device_or_a_type_of_numbers_that_is_none_is_told(vit):
    with pytest.raises(ConfigError, match=r"device must be auto or one that torch has here \(cpu.*Got 'toaster'"):
        vit.to("toaster")
    with pytest.raises(ConfigError, match=r"dtype must be float32, bfloat16 or float16\. Got 'int4'"):
        vit.to(dtype="int4")
    assert vit.to("cpu") is vit


def test_a_type_of_numbers_that_was_asked_for_is_kept_for_libraries_too(vit, pictures, monkeypatch):
    monkeypatch.setattr("diptych.weights.bundle.fast_dtype", lambda _: torch.bfloat16)
    pixels = np.stack([vit.preprocess.pixels(picture) for picture in pictures])
    exact = vit.encode_pixels(pixels)
    assert np.abs(vit.encode_fast(pixels) - exact).max() > 1e-4
    np.testing.assert_allclose(vit.to(dtype="float32").encode_fast(pixels), exact, atol=1e-6)


def test_a_batch_that_memory_does_not_hold_is_halved_and_later_ones_begin_smaller(vit, pictures, monkeypatch, caplog):
    bundle = dataclasses.replace(vit)
    whole, encode, sizes = bundle.encode_images(pictures), bundle.model.encode_image, []

    def small(images):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images)

    monkeypatch.setattr(bundle.model, "encode_image", small)
    np.testing.assert_allclose(bundle.encode_images(pictures), whole, atol=1e-6)  # 6 of them
    assert sizes == [6, 3, 2, 2, 2]
    assert caplog.messages == [
        "the memory of cpu does not hold 6 at once: encoding 3 at a time.",
        "the memory of cpu does not hold 3 at once: encoding 2 at a time.",
    ]
    sizes.clear()
    caplog.clear()
    bundle.encode_images(pictures)
    assert sizes == [2, 2, 2]
    assert not caplog.messages


def test_memory_that_does_not_hold_one_is_no_reason_to_go_on(vit, monkeypatch):
    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    bundle = dataclasses.replace(vit)
    monkeypatch.setattr(bundle.model, "encode_text", full)
    with pytest.raises(torch.OutOfMemoryError):
        bundle.encode_texts(["a red kite", "a boat"])


def test_a_gpu_is_given_the_next_batch_before_the_last_is_waited_for(vit, pictures, monkeypatch):
    whole, encode, events = vit.encode_images(pictures), vit.model.encode_image, []
    monkeypatch.setattr(Bundle, "device", property(lambda _: types.SimpleNamespace(type="fake")))
    monkeypatch.setattr(vit.model, "encode_image", lambda images: events.append("begun") or encode(images))
    fetch = Bundle._fetched
    monkeypatch.setattr(Bundle, "_fetched", lambda *given: events.append("fetched") or fetch(*given))
    np.testing.assert_array_equal(vit.encode_images(pictures, batch_size=2), vit.encode_images(pictures, batch_size=2))
    assert events[:6] == ["begun", "begun", "fetched", "begun", "fetched", "fetched"]
    np.testing.assert_allclose(vit.encode_images(pictures, batch_size=2), whole, atol=1e-6)

    def small(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images)

    monkeypatch.setattr(vit.model, "encode_image", small)
    np.testing.assert_allclose(dataclasses.replace(vit).encode_images(pictures, batch_size=4), whole, atol=1e-6)
