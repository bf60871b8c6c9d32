"""Every family of open_clip's models gives here what open_clip gave; see zoo.py."""

import dataclasses
import importlib
import json
from pathlib import Path

import onnxruntime
import pytest
import safetensors.torch
import torch

import zoo
from diptych.export import onnx_graphs
from diptych.weights.bundle import Bundle
from diptych.weights.registry import load_in_torch
from diptych.weights.stored import open_stored_model

STAND_INS = zoo.stand_ins()


@pytest.fixture(params=STAND_INS)
def stand_in(request, monkeypatch) -> zoo.StandIn:
    found = STAND_INS[request.param]
    for module, sizes in found.sizes.items():
        for name, told in sizes.items():
            monkeypatch.setitem(importlib.import_module(module).SIZES, name, told)
    return found


@pytest.fixture
def folder(stand_in, tmp_path) -> Path:
    """As open_clip lays it out."""
    place = tmp_path / "theirs"
    place.mkdir()
    config = {"model_cfg": stand_in.model_cfg, "preprocess_cfg": {"interpolation": "bilinear", "std": [0.2, 0.3, 0.4]}}
    (place / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: zoo.weight(name, tuple(shape)) for name, shape in stand_in.tensors.items()}
    safetensors.torch.save_file(weights, place / "open_clip_model.safetensors")
    zoo.tokenizer(stand_in.model_cfg).save(place)
    return place


def features(bundle: Bundle, stand_in: zoo.StandIn) -> torch.Tensor:
    with torch.inference_mode():
        image = bundle.model.encode_image(zoo.pixels(stand_in.model_cfg))
        return torch.cat([image, bundle.model.encode_text(zoo.tokens(stand_in.model_cfg))])


def test_a_stand_in_gives_what_open_clip_gave(stand_in, folder):
    found = features(load_in_torch(folder), stand_in)
    theirs = torch.tensor([*stand_in.image_features, *stand_in.text_features])
    assert (found - theirs).abs().max() < zoo.TOLERANCE
    assert (found[0] - found[1]).abs().max() > 100 * zoo.TOLERANCE, "two pictures are two"
    assert (found[2] - found[3]).abs().max() > 100 * zoo.TOLERANCE, "two texts are two"


def test_a_stand_in_comes_back_bit_for_bit_from_a_bundle(stand_in, folder, tmp_path):
    bundle = load_in_torch(folder)
    bundle.save(tmp_path / "bundle")
    again = load_in_torch(tmp_path / "bundle")
    assert again.model.config == bundle.model.config
    assert again.preprocess == bundle.preprocess
    came, went = bundle.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(went[name], tensor) for name, tensor in came.items())
    # Not to the bit: where a mapped tensor begins in its file decides how a product is rounded.
    torch.testing.assert_close(features(again, stand_in), features(bundle, stand_in), rtol=0, atol=1e-6)


def test_a_stand_in_is_the_same_in_onnxruntime(stand_in, folder):
    bundle, cfg = load_in_torch(folder), stand_in.model_cfg
    model = bundle.model
    ports = dataclasses.replace(onnx_graphs.NATIVE, takes_bytes=False)
    for graph, batch, encode in (
        (onnx_graphs.image_graph(model, bundle.preprocess, ports), zoo.pixels(cfg), model.encode_image),
        (onnx_graphs.text_graph(model, ports), zoo.tokens(cfg), model.encode_text),
    ):
        session = onnxruntime.InferenceSession(onnx_graphs.to_bytes(graph))
        (found,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        with torch.inference_mode():
            assert (torch.from_numpy(found) - encode(batch)).abs().max() < zoo.TOLERANCE


def test_a_stand_in_goes_out_to_open_clip_as_it_came(stand_in, folder, tmp_path):
    bundle = load_in_torch(folder)
    bundle.save(tmp_path / "back", layout="open_clip")
    came = safetensors.torch.load_file(folder / "open_clip_model.safetensors")
    went = safetensors.torch.load_file(tmp_path / "back" / "open_clip_model.safetensors")
    assert went.keys() == came.keys()
    assert all(torch.equal(went[name], tensor) for name, tensor in came.items())
    assert open_stored_model(tmp_path / "back").config == bundle.model.config
