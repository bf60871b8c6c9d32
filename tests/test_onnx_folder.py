"""Folders of other exporters. Our format `transformers.js` has their layout; the graph of both towers is torch's."""

import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diptych
from bundles import TEXTS, make, new_tokenizer, some_pictures
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, MissingExtraError, ShapeError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.disk_layouts import SIGLIPS_RECIPE
from diptych.weights.onnx_folder import OnnxFolder, graphs_in
from siglip_standins import write_siglip2_tokenizer

pytest.importorskip("onnxscript", reason="pip install 'diptych[export]'")

from diptych.export.model_folder import export_model


@pytest.fixture(scope="module")
def clip() -> Bundle:
    return make("tiny-vit", new_tokenizer())


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_siglip2_tokenizer(folder)
    tokenizer = Tokenizer.load(folder)
    image = SigLIPImageTowerConfig(image_size=32, patch_size=8, width=24, layers=2, heads=2)
    text = SigLIPTextTowerConfig(
        context_length=tokenizer.context_length, vocab_size=tokenizer.vocab_size, width=24, layers=2, heads=2
    )
    model = CLIP(CLIPConfig(embed_dim=24, head="sigmoid", image=image, text=text), generator(0)).eval()
    return Bundle(model=model, preprocess=SIGLIPS_RECIPE(image_size=32), tokenizer=tokenizer)


_MADE: dict[tuple[int, str], Path] = {}


class Both(nn.Module):
    """Both towers in one graph, as optimum has them."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        images, texts = self.model.encode_image(pixel_values), self.model.encode_text(input_ids)
        logits = self.model.logits_per_image(images, texts) + 0 * attention_mask.sum()
        return logits, logits.T, texts, images


def exported(bundle: Bundle, folder: Path, *, dtype="float32") -> Path:
    """Files of transformers and a graph of each tower, without weights; each is made once."""
    if (id(bundle), dtype) not in _MADE:
        made = Path(tempfile.mkdtemp(dir=folder.parent.parent))
        export_model(bundle, made / "out", format="transformers.js", dtype=dtype)
        _MADE[id(bundle), dtype] = made / "out"
    shutil.copytree(_MADE[id(bundle), dtype], folder)
    (folder / "model.safetensors").unlink()
    return folder


def with_both(bundle: Bundle, folder: Path) -> Path:
    """The graph of both towers instead."""
    exported(bundle, folder)
    tokens = torch.from_numpy(bundle.tokenizer.encode(TEXTS, truncate=True))
    side = bundle.preprocess.image_size
    names = ["input_ids", "pixel_values", "attention_mask"]
    axes = {"input_ids": {0: "texts"}, "attention_mask": {0: "texts"}, "pixel_values": {0: "images"}}
    shutil.rmtree(folder / "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter of torch says that there is a newer one
        torch.onnx.export(
            Both(bundle.model), (tokens, torch.rand(2, 3, side, side), torch.ones_like(tokens)),
            folder / "model.onnx", input_names=names, dynamic_axes=axes, dynamo=False,
            output_names=["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"],
        )  # fmt: skip
    return folder


def assert_same(found: OnnxFolder, bundle: Bundle, atol: float = 1e-5) -> None:
    assert isinstance(found, OnnxFolder)
    assert found.embed_dim == bundle.embed_dim
    np.testing.assert_allclose(found.encode_images(some_pictures()), bundle.encode_images(some_pictures()), atol=atol)
    np.testing.assert_allclose(
        found.encode_texts(TEXTS, truncate=True), bundle.encode_texts(TEXTS, truncate=True), atol=atol
    )


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_graph_of_each_tower_gives_the_features_of_the_model(tmp_path, kind, request):
    bundle = request.getfixturevalue(kind)
    found = diptych.load(exported(bundle, tmp_path / "out"))
    assert_same(found, bundle)
    assert found.reads_padding == (kind == "siglip")
    with pytest.raises(WeightsError, match=r"must hold model\.onnx to tell the factor"):
        _ = found.head


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_graph_of_both_towers_gives_features_and_the_head(tmp_path, kind, request):
    bundle = request.getfixturevalue(kind)
    found = diptych.load(with_both(bundle, tmp_path / "out"))
    assert_same(found, bundle)
    assert found.reads_padding  # traced with one length
    assert found.head.kind == bundle.head.kind
    assert found.head.logit_scale == pytest.approx(bundle.head.logit_scale, rel=1e-4)
    assert found.head.logit_bias == (None if kind == "clip" else pytest.approx(bundle.head.logit_bias, abs=1e-3))
    labels, pictures = TEXTS[:2], some_pictures()[:2]
    shares = [diptych.ZeroShotClassifier(one, labels)(pictures) for one in (found, bundle)]
    np.testing.assert_allclose(*shares, atol=1e-4)


def test_halves_are_computed_in_where_there_is_nothing_else(tmp_path, clip):
    found = diptych.load(exported(clip, tmp_path / "out", dtype="float16"))
    assert_same(found, clip, atol=5e-3)


def test_weights_go_first_where_torch_is_there_and_graphs_where_it_is_not(tmp_path, clip):
    exported(clip, tmp_path / "out")
    shutil.copy(_MADE[id(clip), "float32"] / "model.safetensors", tmp_path / "out")
    assert isinstance(diptych.load(tmp_path / "out"), Bundle)
    asked = diptych.load(tmp_path / "out", engine="onnx")
    assert_same(asked, clip)
    assert isinstance(asked.in_torch(), Bundle)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import diptych; print(type(diptych.load(sys.argv[1])).__name__)\n"
        "print(diptych.load(sys.argv[1]).encode_texts(['a red kite']).shape)\n"
        "diptych.load(sys.argv[1]).in_torch()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines() == ["OnnxFolder", f"(1, {clip.embed_dim})"], done.stderr
    assert MissingExtraError.__name__ in done.stderr


def test_shapes_and_empty_batches(tmp_path, clip):
    found = diptych.load(exported(clip, tmp_path / "out"))
    assert found.encode_images([]).shape == found.encode_texts([]).shape == (0, clip.embed_dim)
    with pytest.raises(ShapeError, match=r"pixels must be \[B, 32, 32, 3\] uint8"):
        found.encode_pixels(np.zeros((1, 8, 8, 3), np.uint8))


def test_what_is_told_apart_is_told_by_the_fingerprint(tmp_path, clip):
    found = OnnxFolder.load(exported(clip, tmp_path / "out"))
    before = found.fingerprint()
    assert OnnxFolder.load(tmp_path / "out").fingerprint() == before
    path = graphs_in(tmp_path / "out")["text_model"]
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert OnnxFolder.load(tmp_path / "out").fingerprint() != before


def test_folders_that_hold_no_such_model_are_refused_in_a_sentence(tmp_path, clip):
    folder = exported(clip, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"must hold weights to be opened with torch, .*Choose engine onnx"):
        diptych.load(folder, engine="torch")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(WeightsError, match=r"of a model of the type clip, metaclip_2, siglip\. Got 'bert'"):
        OnnxFolder.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").rename(tmp_path / "recipe")
    with pytest.raises(WeightsError, match=r"must hold preprocessor_config\.json"):
        OnnxFolder.load(folder)
    (tmp_path / "recipe").rename(folder / "preprocessor_config.json")
    (folder / "onnx" / "text_model.onnx").rename(folder / "onnx" / "text_model_q4.onnx")
    with pytest.raises(WeightsError, match=r"must hold vision_model\.onnx and .*Got vision_model\.onnx"):
        OnnxFolder.load(folder)


def test_graphs_without_the_projection_and_of_other_inputs_are_refused(tmp_path, clip):
    import onnx

    folder = exported(clip, tmp_path / "out")
    path = folder / "onnx" / "vision_model.onnx"
    graph = onnx.load(path)
    for node in graph.graph.node:
        node.output[:] = ["pooler_output" if name == "image_embeds" else name for name in node.output]
    graph.graph.output[0].name = "pooler_output"
    onnx.save(graph, path)
    with pytest.raises(WeightsError, match=r"must give image_embeds, .* Got pooler_output"):
        diptych.load(folder).encode_images(some_pictures())
    for node in graph.graph.node:
        node.input[:] = ["pixel_attention_mask" if name == "pixel_values" else name for name in node.input]
    graph.graph.input[0].name = "pixel_attention_mask"
    onnx.save(graph, path)
    with pytest.raises(WeightsError, match="Got pixel_attention_mask too"):
        diptych.load(folder).encode_images(some_pictures())
