import json
from pathlib import Path

import pytest

from diptych.errors import ConfigError, WeightsError
from diptych.weights import listing
from diptych.weights.listing import choose_published, list_packaged, packaged_by
from diptych.weights.packaged import DEFAULT_MODEL, DEFAULT_TOWERS, packaged_models
from diptych.weights.published import published_models
from diptych.weights.registry import list_models


def test_what_is_told_of_packaged_models_without_torch_is_what_their_files_hold():
    for light, whole in zip(list_packaged(), list_models(), strict=True):
        for name, value in vars(light).items():
            assert value == getattr(whole, name), (light.name, name)


def test_a_damaged_header_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = packaged_models()[DEFAULT_TOWERS]
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 16)
    monkeypatch.setattr(listing, "packaged_models", lambda: {"one": tmp_path})
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        list_packaged()
    config = json.loads((tmp_path / "config.json").read_text())
    del config["diptych"]
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="must be a bundle that diptych wrote"):
        list_packaged()


def test_two_models_behind_one_name_are_listed_as_their_sum():
    by_name = {model.name: model for model in list_packaged()}
    whole, first, second = (by_name[name] for name in (DEFAULT_MODEL, "diptych-photo", "diptych-pictogram"))
    assert (whole.size, whole.parameters) == (first.size + second.size, first.parameters + second.parameters)
    assert whole.embed_dim == first.embed_dim + second.embed_dim + 1
    assert whole.licence == f"{first.licence} / {second.licence}"


def test_a_model_is_known_by_its_fingerprint():
    for name, folder in packaged_models().items():
        if (folder / "graphs.json").is_file():
            assert packaged_by(json.loads((folder / "graphs.json").read_text())["fingerprint"]) == name
    assert packaged_by("0" * 64) == ""


def test_filters_leave_the_order_and_each_other_alone():
    everything = published_models()
    assert choose_published() == everything
    some = choose_published(family="openclip", licence="mit", max_size=0.605)
    assert some == [
        model
        for model in everything
        if model.family == "OpenCLIP" and model.licence == "MIT" and model.size is not None and model.size <= 605e6
    ]
    assert some
    assert not [model for model in choose_published(max_size=1e9) if model.size is None]


def test_a_filter_that_nothing_can_pass_is_refused():
    with pytest.raises(ConfigError, match=r"EVA is not a family\. .*EVA-CLIP"):
        choose_published(family="EVA")
    with pytest.raises(ConfigError, match="GPL must be a part of a licence"):
        choose_published(licence="GPL")
