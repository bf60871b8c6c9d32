import dataclasses
import json

import pytest
import torch

from diptych.data.images import Preprocess
from diptych.errors import WeightsError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.weights.folder import (
    About,
    Golden,
    Seal,
    count_parameters,
    digests,
    read_json,
    read_preprocess,
    read_seal,
    write_config,
)
from diptych.weights.hf_clip import CLIP_NAMES

ABOUT = About(source="here", data="drawn [1,  2] by hand", recipe="a = [\n1,\n2]\n")
GOLDEN = Golden(tokens=((1, 2),) * 3, image_features=((0.6, -0.8),), text_features=((1e-5, 1.0),) * 3)
BLOCK = Seal(about=ABOUT, sha256={"tokenizer.json": "ab"}, golden=GOLDEN)
CONFIG = {"model_type": "clip", "projection_dim": 32}
NAMES = ("config.json", "open_clip_config.json", "model.safetensors", "tokenizer.json")


def test_config_and_seal_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "config.json"
    write_config(path, CONFIG, BLOCK)
    data = read_json(path)
    assert read_seal(path, data) == BLOCK
    assert {key: value for key, value in data.items() if key != "diptych"} == CONFIG
    assert read_seal(path, CONFIG) is None


def test_features_stand_on_one_line_and_prose_is_left_as_it_is(tmp_path):
    write_config(tmp_path / "config.json", CONFIG, BLOCK)
    text = (tmp_path / "config.json").read_text()
    assert text.count("[0.6, -0.8]") == 1
    assert text.count("[1e-05, 1.0]") == 3
    assert json.loads(text)["diptych"]["about"] == dataclasses.asdict(ABOUT)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda seal: seal.update(version=2), r"has format 2; this diptych reads up to 1\. Update diptych"),
        (lambda seal: seal.pop("golden"), r"config\.json: diptych\.golden must be given"),
        (lambda seal: seal.update(sha256=3), r"config\.json: diptych\.sha256 must be"),
    ],
)
def test_a_seal_that_is_damaged_or_newer_is_told_in_one_line(tmp_path, edit, message):
    path = tmp_path / "config.json"
    write_config(path, CONFIG, BLOCK)
    data = read_json(path)
    edit(data["diptych"])
    with pytest.raises(WeightsError, match=message) as caught:
        read_seal(path, data)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="diptych must be a table"):
        read_seal(path, {"diptych": []})


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet"])
def test_parameters_are_counted_without_statistics_under_anyones_names(name):
    model = CLIP(preset(name))
    tensors = dict(model.state_dict())
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters({part: tensor.shape for part, tensor in tensors.items()}) == counted
    if name == "tiny-vit":
        theirs = CLIP_NAMES.from_ours(tensors) | {"text_model.embeddings.position_ids": torch.arange(16)[None]}
        assert count_parameters({part: tensor.shape for part, tensor in theirs.items()}) == counted


def test_a_byte_of_a_table_of_4_bits_holds_two_parameters():
    shapes = {"a": (3, 32), "a:scale": (3, 2), "b": (3, 64), "b:scale": (3,), "c": (5,)}
    assert count_parameters(shapes) == 3 * 64 + 3 * 64 + 5


@pytest.mark.parametrize("config", ["config.json", "open_clip_config.json"])
def test_digests_see_each_file_but_neither_our_seal_nor_how_a_config_is_laid_out(tmp_path, config):
    write_config(tmp_path / config, CONFIG, BLOCK)
    before = digests(tmp_path, NAMES)
    (tmp_path / config).write_text(json.dumps(CONFIG))
    assert digests(tmp_path, NAMES) == before
    assert [name for name in NAMES if before[name]] == [config]  # the others are not there
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / config).write_text(json.dumps(CONFIG | {"projection_dim": 31}))
    after = digests(tmp_path, NAMES)
    assert [name for name in NAMES if after[name] != before[name]] == [config, "tokenizer.json"]
    assert after["tokenizer.json"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing


def test_a_folder_without_a_picture_recipe_has_none(tmp_path):
    assert read_preprocess(tmp_path) is None


def test_the_picture_recipe_is_read_from_the_older_place_or_the_newer(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": Preprocess(image_size=32).to_hf()}))
    assert read_preprocess(tmp_path) == Preprocess(image_size=32)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(Preprocess(image_size=48).to_hf()))
    assert read_preprocess(tmp_path) == Preprocess(image_size=48)


def test_a_config_that_is_missing_or_not_json_is_named(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(WeightsError, match=r"must hold config\.json, and has none"):
        read_json(path)
    for content in (b"{'model_type': 'clip'}", b"", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"config\.json must be JSON: .* Copy or download it again"):
            read_json(path)
    path.write_text("[]")
    with pytest.raises(WeightsError, match=r"config\.json must hold a JSON object\. Got list"):
        read_json(path)
