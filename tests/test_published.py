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
SIGLIP = r"ViT-(B|L|SO400M|gopt)-(14|16|32)-SigLIP2?(-(256|384|512))?"


def test_each_model_has_a_name_and_an_address_of_its_own():
    assert len(MODELS) >= 50
    assert len({model.name for model in MODELS}) == len({model.hub for model in MODELS}) == len(MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_row_can_be_true(model: PublishedModel):
    assert model.name.split(".")[0] == model.architecture
    assert model.architecture in ARCHITECTURES or re.fullmatch(SIGLIP, model.architecture)
    assert _parse(model.hub, None) == (model.hub.removeprefix("hf:"), "", "main")
    assert model.size == 4 * model.parameters
    assert 1e8 < model.parameters < 3e9
    assert 55 < model.imagenet < 90, "per cent, not a fraction"
    assert all((model.data, model.licence, model.source))
    if ending := re.search(r"-(\d{3})$", model.architecture):
        assert model.image_size == int(ending[1])


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
    meta = {model.licence for model in MODELS if model.hub.startswith("hf:facebook/metaclip-")}
    assert meta == {"CC-BY-NC-4.0"}


def test_rows_are_frozen_and_the_table_is_read_without_torch():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MODELS[0].licence = "MIT"  # pyright: ignore[reportAttributeAccessIssue]
    script = "import sys; from diptych.weights.published import *; published_models(); print('torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "False"
