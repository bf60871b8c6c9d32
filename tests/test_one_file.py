"""Graphs beside the weights of a bundle: in each layout and type that a bundle can have."""

import dataclasses
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from bundles import TEXTS, make, new_tokenizer, some_pictures
from diptych.data.images import Preprocess
from diptych.errors import WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.fastvit_tower import FastViTTowerConfig
from diptych.model.sentence_tower import SentenceTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.graphs import read_graphs
from diptych.weights.onnx_towers import OnnxTowers
from diptych.weights.timm_fastvit import SIZES
from tower_kinds import IMAGE_KINDS, image_of

onnx = pytest.importorskip("onnx", reason="pip install 'diptych[export]'")
pytest.importorskip("onnxscript", reason="pip install 'diptych[export]'")
pytest.importorskip("onnxruntime")

from diptych.export import one_file  # noqa: E402
from diptych.export.one_file import read_places, write_graphs  # noqa: E402


def wide(tokenizer):
    """Towers whose rows are long enough for 8 bits, with a table of words that lie in the file as such."""
    image = image_of(IMAGE_KINDS[0])
    image = dataclasses.replace(image, width=96, mlp_width=96)
    text = SentenceTowerConfig(
        context_length=16, vocab_size=tokenizer.vocab_size, width=96, layers=1, heads=2, head_width=80, anchors=5,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = CLIP(CLIPConfig(embed_dim=24, head="sigmoid", image=image, text=text), generator(0)).eval()
    return Bundle(model=model, preprocess=Preprocess(image_size=32), tokenizer=tokenizer)


def check(folder):
    """The graphs give what torch gives, and store no weight."""
    bundle, towers = Bundle.load(folder), OnnxTowers(folder)
    pixels = np.stack([bundle.preprocess.pixels(picture) for picture in some_pictures()])
    tokens = torch.as_tensor(bundle.tokenizer.encode(TEXTS, truncate=True))
    with torch.no_grad():
        of_texts = bundle.model.encode_text(tokens)
    np.testing.assert_allclose(towers.encode_pixels(pixels), np.asarray(bundle.encode_pixels(pixels)), atol=1e-5)
    np.testing.assert_allclose(towers.encode_tokens(tokens.numpy()), of_texts.numpy(), atol=1e-5)
    return bundle, towers


@pytest.mark.parametrize(
    ("name", "dtype", "table_bits"),
    [
        ("tiny-vit", torch.float32, 8),
        ("tiny-vit", torch.bfloat16, 8),
        ("tiny-resnet", torch.float16, 8),
        ("wide", torch.int8, 8),
        ("wide", torch.int8, 4),
    ],
)
def test_graphs_point_into_the_weights_of_a_bundle(tmp_path, name, dtype, table_bits):
    tokenizer = new_tokenizer()
    bundle = wide(tokenizer) if name == "wide" else make(name, tokenizer)
    bundle.save(tmp_path / "bundle", dtype=dtype, table_bits=table_bits)
    before = (tmp_path / "bundle" / "model.safetensors").read_bytes()
    write_graphs(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "model.safetensors").read_bytes() == before
    bundle, towers = check(tmp_path / "bundle")
    facts = towers.graphs
    assert facts.fingerprint == bundle.fingerprint()
    assert (facts.embed_dim, facts.logit_scale) == (bundle.model.config.embed_dim, bundle.logit_scale)
    assert facts.head == bundle.model.config.head
    assert facts.logit_bias == (None if name != "wide" else bundle.model.logit_bias.item())
    assert facts.dtype == str(dtype).removeprefix("torch.")
    stored = 0
    for part in ("image.onnx", "text.onnx"):
        graph = onnx.load(tmp_path / "bundle" / part, load_external_data=False).graph
        stored += sum(len(one.raw_data) for one in graph.initializer)
        assert any(one.external_data for one in graph.initializer)
        assert not any(node.name or node.doc_string or node.metadata_props for node in graph.node)
    assert stored < 4000  # shapes, and what pictures are normalised with


def test_factors_of_rows_that_a_product_runs_over_are_put_to_the_other_side(tmp_path):
    """OpenVINO 2026.4 takes them as factors of columns; see test_onnx_towers.py."""
    bundle = make("tiny-vit", new_tokenizer())
    image = dataclasses.replace(bundle.model.config.image, width=96, heads=2)
    model = CLIP(dataclasses.replace(bundle.model.config, embed_dim=96, image=image), generator(0)).eval()
    dataclasses.replace(bundle, model=model).save(tmp_path, dtype=torch.int8)
    write_graphs(tmp_path)
    check(tmp_path)
    graph = onnx.load(tmp_path / "image.onnx", load_external_data=False).graph
    floats = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    constants = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    products = [node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in floats]
    assert [floats[name].input[0] for name in products] == ["image.projection"]
    assert floats[products[0]].input[1] in constants


def test_graphs_read_scales_that_another_library_keeps_as_pictures(tmp_path, monkeypatch):
    sizes = {"widths": (8, 16, 32), "layers": (1, 1, 1), "squeezed_stages": 1}
    monkeypatch.setitem(SIZES, "fastvit_small", sizes)
    tokenizer = new_tokenizer()
    config = dataclasses.replace(
        make("tiny-vit", tokenizer).model.config, image=FastViTTowerConfig(image_size=32, **sizes)
    )
    bundle = Bundle(model=CLIP(config, generator(0)).eval(), preprocess=Preprocess(image_size=32), tokenizer=tokenizer)
    bundle.save(tmp_path)
    (shape,) = {
        place.shape for name, place in read_places(tmp_path / "model.safetensors").items() if "scale_1.g" in name
    }
    assert shape == (32, 1, 1)
    write_graphs(tmp_path)
    check(tmp_path)


def test_graphs_go_with_any_weights_of_their_layout(tmp_path):
    """Nothing that depends on a weight is in a graph: new weights under it give the new model's features."""
    tokenizer = new_tokenizer()
    folder, other = tmp_path / "bundle", tmp_path / "other"
    bundle = wide(tokenizer)
    bundle.save(folder, dtype=torch.int8)
    write_graphs(folder)
    bundle.model.reset_parameters(generator(9))
    bundle.save(other, dtype=torch.int8)
    for name in ("image.onnx", "text.onnx"):
        shutil.copy(folder / name, other)
    facts, weights = read_graphs(folder / "graphs.json"), other / "model.safetensors"
    fitting = dataclasses.replace(facts.weights, sha256=one_file.sha256(weights))
    one_file.write_json(other / "graphs.json", one_file.to_dict(dataclasses.replace(facts, weights=fitting)))
    check(other)


def test_graphs_that_are_wrong_are_not_left_behind(tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    make("tiny-vit", new_tokenizer()).save(folder)
    real = one_file.read_places

    def confused(path):
        places = real(path)
        names = [name for name, place in places.items() if place.shape == (32, 32)]
        return places | dict(zip(names, reversed([places[name] for name in names]), strict=True))

    monkeypatch.setattr(one_file, "read_places", confused)
    with pytest.raises(WeightsError, match=r"the graph of the (image|text) tower must give torch's features, and is"):
        write_graphs(folder)
    assert not (folder / "graphs.json").exists()


def test_places_are_those_of_safetensors(tmp_path):
    tensors = {"a": torch.arange(6).reshape(2, 3), "b": torch.randn(5).half()}
    safetensors.torch.save_file(tensors, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    for name, place in read_places(tmp_path / "x").items():
        assert data[place.offset : place.offset + place.length] == tensors[name].numpy().tobytes()
        assert place.shape == tensors[name].shape
    (tmp_path / "x").write_bytes(data[:20])
    with pytest.raises(WeightsError, match="must be a file of safetensors"):
        read_places(tmp_path / "x")
