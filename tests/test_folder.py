import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from diptych.data.images import Preprocess
from diptych.errors import WeightsError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import generator
from diptych.weights.adapters import HUGGING_FACE, OWN, config_to_hf
from diptych.weights.folder import (
    About,
    Block,
    Golden,
    count_parameters,
    digests,
    read_config,
    read_preprocess,
    read_weights,
    tensor_shapes,
    write_config,
)

ABOUT = About(source="here", data="drawn [1,  2] by hand", recipe="a = [\n1,\n2]\n")
GOLDEN = Golden(tokens=((1, 2),) * 3, image_features=((0.6, -0.8),), text_features=((1e-5, 1.0),) * 3)
CONFIG = preset("tiny-vit")


def edit_config(folder: Path, edit) -> None:
    data = json.loads((folder / "config.json").read_text())
    edit(data)
    (folder / "config.json").write_text(json.dumps(data))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A ViT's config and weights, under the names of transformers."""
    folder = tmp_path / "b"
    folder.mkdir()
    config = config_to_hf(CONFIG, start_token_id=510, end_token_id=511, vocab_size=512)
    weights = HUGGING_FACE.from_ours(CLIP(CONFIG, generator(0)).state_dict())
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    write_config(folder, config, Block(about=ABOUT, sha256=digests(folder, config), golden=GOLDEN))
    return folder


@pytest.fixture
def resnet_folder(tmp_path) -> Path:
    """A ResNet's, under our own names."""
    config = {"model_type": "diptych-clip", "model": dataclasses.asdict(preset("tiny-resnet"))}
    del config["model"]["text"]["end_token_id"]  # None, which plain data leaves out
    safetensors.torch.save_file(CLIP(preset("tiny-resnet"), generator(0)).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def load(folder: Path):
    return read_weights(folder, read_config(folder))


def edit_weights(folder: Path, edit) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    edit(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def test_config_and_block_come_back_as_they_were_written(folder):
    config = read_config(folder)
    assert (config.model, config.naming) == (CONFIG, HUGGING_FACE)
    assert config.block == Block(version=1, about=ABOUT, sha256=digests(folder), golden=GOLDEN)


def test_a_resnet_is_read_under_our_own_names(resnet_folder):
    config = read_config(resnet_folder)
    assert (config.model, config.naming, config.block) == (preset("tiny-resnet"), OWN, None)


def test_features_stand_on_one_line_and_prose_is_left_as_it_is(folder):
    text = (folder / "config.json").read_text()
    assert text.count("[0.6, -0.8]") == 1
    assert text.count("[1e-05, 1.0]") == 3
    assert json.loads(text)["diptych"]["about"] == dataclasses.asdict(ABOUT)


def test_parameters_are_counted_from_the_header_without_statistics(folder, resnet_folder):
    for path, name in ((folder, "tiny-vit"), (resnet_folder, "tiny-resnet")):
        counted = sum(parameter.numel() for parameter in CLIP(preset(name)).parameters())
        assert count_parameters(tensor_shapes(path)) == counted


def test_digests_see_each_file_but_neither_our_block_nor_how_config_json_is_laid_out(folder):
    before = digests(folder)
    edit_config(folder, lambda data: data.pop("diptych"))
    assert digests(folder) == before
    assert before["tokenizer.json"] == before["preprocessor_config.json"] == ""  # they are not there
    (folder / "tokenizer.json").touch()
    edit_config(folder, lambda data: data.update(projection_dim=31))
    after = digests(folder)
    assert [name for name in after if after[name] != before[name]] == ["tokenizer.json", "config.json"]


def test_a_folder_without_a_picture_recipe_says_so(folder):
    with pytest.raises(WeightsError, match=r"b must hold preprocessor_config\.json"):
        read_preprocess(folder)


def test_the_picture_recipe_is_read_from_the_older_place_or_the_newer(folder):
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": Preprocess(image_size=32).to_hf()}))
    assert read_preprocess(folder) == Preprocess(image_size=32)
    (folder / "preprocessor_config.json").write_text(json.dumps(Preprocess(image_size=48).to_hf()))
    assert read_preprocess(folder) == Preprocess(image_size=48)


def test_tensors_that_hold_no_weights_may_be_there_or_not(folder, resnet_folder):
    edit_weights(folder, lambda weights: weights.update({"text_model.embeddings.position_ids": torch.arange(16)[None]}))
    assert load(folder).keys() == CLIP(CONFIG).state_dict().keys()

    def drop_counters(weights):
        for name in [name for name in weights if name.endswith("num_batches_tracked")]:
            del weights[name]

    edit_weights(resnet_folder, drop_counters)
    weights = load(resnet_folder)
    assert weights.keys() == CLIP(preset("tiny-resnet")).state_dict().keys()
    assert weights["image.stem.1.num_batches_tracked"].tolist() == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"b must hold config\.json, and has none"),
        ("model.safetensors", r"b must hold model\.safetensors"),
    ],
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(model_type="siglip"), r"model_type must be clip or diptych-clip\. Got 'siglip'"),
        (lambda data: data["diptych"].update(version=2), r"has format 2; this diptych reads up to 1\. Update diptych"),
        (lambda data: data["diptych"].pop("golden"), r"diptych\.golden must be given"),
        (lambda data: data.update(diptych=[]), "diptych must be a table"),
        (lambda data: data["text_config"].update(num_hidden_layers=1), r"16 unexpected \(.*, \.\.\.\)"),
        (
            lambda data: data.update(projection_dim=31),
            r"2 of another shape \(visual_projection\.weight \[32, 32\] instead of \[31, 32\], text_pro",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_told_in_one_line(folder, edit, message):
    edit_config(folder, edit)
    with pytest.raises(WeightsError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_json_is_named(folder):
    (folder / "config.json").write_text("{'model_type': 'clip'}")
    with pytest.raises(WeightsError, match=r"config\.json must be JSON: .* Copy or download it again"):
        load(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"config\.json must hold a JSON object\. Got list"):
        load(folder)


def test_missing_and_unexpected_tensors_are_counted_and_named(folder):
    def edit(weights):
        del weights["text_projection.weight"], weights["logit_scale"]
        weights["head.weight"] = torch.zeros(3)

    edit_weights(folder, edit)
    message = (
        r"model\.safetensors does not fit config\.json: 2 missing \(logit_scale, text_projection\.weight\), "
        r"1 unexpected \(head\.weight\)\. Was it saved from another architecture\?"
    )
    with pytest.raises(WeightsError, match=message):
        load(folder)


@pytest.mark.parametrize("kept", [0, 7, 500, -1])
def test_truncated_weights_are_told_from_others(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read: .* Copy or download it again"):
        load(folder)


def test_weights_that_are_whole_numbers_are_refused(folder):
    edit_weights(folder, lambda weights: weights.update(logit_scale=torch.tensor(3)))
    with pytest.raises(WeightsError, match=r"logit_scale must be torch\.float32 or alike\. Got torch\.int64"):
        load(folder)
