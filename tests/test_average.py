import dataclasses

import pytest
import torch

from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.model.resize import with_image_size
from diptych.torch_runtime import generator
from diptych.weights.average import interpolate
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About


@pytest.fixture(params=["tiny-vit", "tiny-resnet"])
def pair(request, tiny_recipe, tokenizer) -> tuple[Bundle, Bundle]:
    """Two models of the same sizes, and of other weights."""
    config = preset(request.param)
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=600))
    bundles = []
    for seed in (1, 2):
        model = CLIP(config, generator(seed))
        for name, buffer in model.named_buffers():
            buffer.fill_(seed if not name.endswith("num_batches_tracked") else 10 * seed)
        about = About(source=f"run {seed}", licence="MIT" if seed == 1 else "CC-BY-4.0", data="drawings")
        bundles.append(Bundle(model=model.eval(), preprocess=tiny_recipe.preprocess, tokenizer=tokenizer, about=about))
    return bundles[0], bundles[1]


def test_every_weight_lies_between_those_of_both(pair):
    a, b = (bundle.model.state_dict() for bundle in pair)
    mixed = interpolate(*pair, 0.25).model.state_dict()
    for name, value in mixed.items():
        if name.endswith("num_batches_tracked"):
            assert value.item() == 20
        else:
            torch.testing.assert_close(value, 0.75 * a[name] + 0.25 * b[name], msg=lambda m, n=name: f"{n}: {m}")


def test_the_ends_are_the_two_models_to_the_bit_and_share_no_memory(pair):
    for alpha, bundle in zip((0.0, 1.0), pair, strict=True):
        end = interpolate(*pair, alpha)
        weights = bundle.model.state_dict()
        for name, value in end.model.state_dict().items():
            assert torch.equal(value, weights[name]) or name.endswith("num_batches_tracked"), name
        with torch.no_grad():
            end.model.logit_scale.add_(1)
        assert end.logit_scale != bundle.logit_scale
    assert not end.model.training


def test_what_comes_out_says_where_it_is_from_and_can_be_saved(pair, tmp_path):
    mixed = interpolate(*pair, 0.25)
    assert mixed.about == About(source="0.75 x (run 1) + 0.25 x (run 2)", licence="MIT AND CC-BY-4.0", data="drawings")
    mixed.save(tmp_path / "mixed")
    assert Bundle.load(tmp_path / "mixed").fingerprint() == mixed.fingerprint()


def test_models_that_differ_are_refused_by_what_differs(pair, tiny_recipe):
    a, b = pair
    larger = dataclasses.replace(
        b, model=with_image_size(b.model, 64), preprocess=dataclasses.replace(b.preprocess, image_size=64)
    )
    with pytest.raises(ConfigError, match=r"they differ in model\.image\.image_size \(32 and 64\)\."):
        interpolate(a, larger, 0.5)
    squashed = dataclasses.replace(b, preprocess=dataclasses.replace(b.preprocess, resize="squash"))
    with pytest.raises(ConfigError, match=r"they differ in preprocess\.resize \(shortest and squash\)\."):
        interpolate(a, squashed, 0.5)
    other = Tokenizer.train(["another vocabulary"] * 3, vocab_size=590, context_length=16)
    with pytest.raises(ConfigError, match=r"they differ in the tokenizer\."):
        interpolate(a, dataclasses.replace(b, tokenizer=other), 0.5)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="alpha must lie between 0 and 1"):
            interpolate(a, b, alpha)
