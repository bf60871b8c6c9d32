import dataclasses
import re
import subprocess
import sys

import pytest
import torch

from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import PRESETS
from diptych.weights.hub import _parse
from diptych.weights.published import PublishedModel, published_models

MODELS = published_models()


def with_image_size(name: str, image_size: int) -> CLIPConfig:
    return dataclasses.replace(PRESETS[name], image=dataclasses.replace(PRESETS[name].image, image_size=image_size))


ARCHITECTURES = PRESETS | {
    f"{name}-{image_size}": with_image_size(name, image_size)
    for name, image_size in (("ViT-B-32", 256), ("ViT-H-14", 378))
}


def test_each_model_has_a_name_and_addresses_of_its_own():
    assert len(MODELS) >= 180
    addresses = [address for model in MODELS for address in (model.hub, *model.also)]
    assert len({model.name for model in MODELS}) == len(MODELS)
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_row_can_be_true(model: PublishedModel):
    assert model.name.split(".")[0] == model.architecture
    for address in (model.hub, *model.also):
        assert _parse(address, None) == (address.removeprefix("hf:"), "", "main")
    assert all((model.family, model.data, model.licence))
    if model.parameters is None:
        assert model.family == "transformers"
        assert model.size is None
        return
    assert model.size == 4 * model.parameters
    assert 5e7 < model.parameters < 6e9
    assert model.imagenet is None or (0.5 < model.imagenet < 90 and model.source), "per cent, with its source"
    if ending := re.search(r"-(224|240|256|320|336|378|384|448|512)$", model.architecture):
        assert model.image_size == int(ending[1]) or model.architecture == "ViTamin-XL-384"  # 256 in open_clip's config


def test_every_tag_of_open_clip_is_in_the_table():
    """By the address of its weights; skipped where open_clip is not installed."""
    pretrained = pytest.importorskip("open_clip.pretrained")
    known = {address for model in MODELS for address in (model.hub, *model.also)}
    places = {tag["hf_hub"].strip("/") for tags in pretrained._PRETRAINED.values() for tag in tags.values()}
    assert {f"hf:{'/'.join(place.split('/')[:2])}" for place in places} <= known


@pytest.mark.parametrize("name", sorted({model.architecture for model in MODELS} & ARCHITECTURES.keys()))
def test_counts_and_sizes_are_those_of_the_architecture(name: str):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in CLIP(ARCHITECTURES[name]).parameters())
    rows = [model for model in MODELS if model.architecture == name]
    assert {(row.parameters, row.image_size) for row in rows} == {(count, ARCHITECTURES[name].image.image_size)}


def test_some_figures_are_those_of_their_sources():
    figures = {model.name: model.imagenet for model in MODELS}
    some = {"RN50.openai": 59.82, "ViT-B-32.openai": 63.32, "ViT-H-14.laion2b": 77.96, "ViT-B-16-SigLIP2": 78.2}
    assert {name: figures[name] for name in some} == some


def test_the_licence_forbids_commerce_where_its_giver_does():
    meta = {model.licence for model in MODELS if re.match("hf:facebook/metaclip-[^2]", model.hub)}
    assert meta == {"CC-BY-NC-4.0"}


def test_rows_are_frozen_and_the_table_is_read_without_torch():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MODELS[0].licence = "MIT"  # pyright: ignore[reportAttributeAccessIssue]
    script = "import sys; from diptych.weights.published import *; published_models(); print('torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "False"
