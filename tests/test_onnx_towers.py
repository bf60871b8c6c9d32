"""Towers from graphs; test_one_file.py holds their features to torch's."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bundles import make, new_tokenizer
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, MissingExtraError, ShapeError, WeightsError
from diptych.weights import onnx_towers
from diptych.weights.onnx_towers import OnnxTowers
from diptych.weights.places import find_model

pytest.importorskip("onnxscript", reason="pip install 'diptych[export]'")
onnxruntime = pytest.importorskip("onnxruntime")

PIXELS, TOKENS = np.zeros((2, 32, 32, 3), np.uint8), np.ones((3, 5), np.int64)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from diptych.export.one_file import write_graphs

    folder = tmp_path_factory.mktemp("exported") / "bundle"
    make("tiny-vit", new_tokenizer()).save(folder)
    write_graphs(folder)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy that may be spoiled."""
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_towers_need_no_torch(exported):
    script = f"""
import sys
sys.modules["torch"] = None  # whoever imports it gets an ImportError
import numpy as np
from pathlib import Path
from diptych.weights.onnx_towers import OnnxTowers
towers = OnnxTowers(Path({str(exported)!r}), threads=1)
image = towers.encode_pixels(np.zeros((2, 32, 32, 3), np.uint8))
text = towers.encode_tokens(np.ones((3, 5), np.int64))
print(towers.embed_dim, image.shape, text.shape, image.dtype, np.linalg.norm(image, axis=1).round(4))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "32 (2, 32) (3, 32) float32 [1. 1.]", done.stderr


def test_a_tower_is_opened_when_it_is_asked_for(folder):
    (folder / "image.onnx").unlink()
    towers = OnnxTowers(folder)
    assert towers.encode_tokens(TOKENS).shape == (3, 32)
    with pytest.raises(WeightsError, match=r"must hold image\.onnx, and has none"):
        towers.encode_pixels(PIXELS)


def test_for_few_the_factors_of_8_bit_weights_wait_for_a_batch_and_the_features_are_the_same(monkeypatch):
    asked = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path, options, **others):
            super().__init__(path, options, **others)
            asked.append(options.entries)

    class Options(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.entries = {}

        def add_session_config_entry(self, key, value):
            super().add_session_config_entry(key, value)
            self.entries[key] = value

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    folder = find_model("diptych-pictogram").path
    once, each_time = OnnxTowers(folder), OnnxTowers(folder, for_few=True)
    side = once.graphs.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    np.testing.assert_allclose(each_time.encode_pixels(pixels), once.encode_pixels(pixels), atol=1e-6)
    np.testing.assert_allclose(each_time.encode_tokens(TOKENS), once.encode_tokens(TOKENS), atol=1e-6)
    assert ["session.disable_quant_qdq" in entries for entries in asked] == [False, True] * 2


def test_none_give_none(exported):
    towers = OnnxTowers(exported)
    assert towers.encode_pixels(PIXELS[:0]).shape == towers.encode_tokens(TOKENS[:0]).shape == (0, 32)


def test_batches_of_other_shapes_are_refused(exported):
    towers = OnnxTowers(exported)
    with pytest.raises(ShapeError, match=r"pixels must be \[B, 32, 32, 3\] uint8\. Got \[2, 3, 32, 32\] uint8"):
        towers.encode_pixels(PIXELS.transpose(0, 3, 1, 2))
    with pytest.raises(ShapeError, match=r"Got \[2, 32, 32, 3\] float32"):
        towers.encode_pixels(PIXELS.astype(np.float32))
    with pytest.raises(ShapeError, match=r"tokens must be \[B, L\] int64, L from 1 to 16\. Got \[1, 17\] int64"):
        towers.encode_tokens(np.ones((1, 17), np.int64))


def test_a_graph_that_no_engine_opens_is_a_sentence(folder):
    (folder / "image.onnx").write_bytes(b"no graph")
    facts = json.loads((folder / "graphs.json").read_text())
    facts["sha256"]["image.onnx"] = onnx_towers.check_graph.__globals__["sha256"](folder / "image.onnx")
    (folder / "graphs.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match=r"image\.onnx cannot be opened: .*Export the model again"):
        OnnxTowers(folder).encode_pixels(PIXELS)


class Fake:
    """An onnxruntime with some providers, of which some work."""

    def __init__(self, available, working):
        self.available, self.working, self.asked = available, working, []
        self.SessionOptions = onnxruntime.SessionOptions

    def get_available_providers(self):
        return self.available

    def InferenceSession(self, path, options, providers):  # noqa: N802
        self.asked = providers
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [one if isinstance(one, str) else one[0] for one in providers]
        session.get_providers = lambda: [name for name in names if name in self.working]
        return session


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("device", "asked"),
    [
        ("auto", [(CUDA, {}), CPU]),
        ("cpu", [CPU]),
        ("cuda", [(CUDA, {}), CPU]),
        ("cuda:1", [(CUDA, {"device_id": "1"}), CPU]),
    ],
)
def test_a_device_chooses_the_provider(exported, monkeypatch, device, asked):
    fake = Fake([CUDA, CPU], [CUDA, CPU])
    monkeypatch.setattr(onnx_towers, "_onnxruntime", lambda: fake)
    OnnxTowers(exported, device=device).encode_pixels(PIXELS)
    assert fake.asked == asked


def test_a_device_that_is_not_there_is_a_sentence(exported, monkeypatch):
    monkeypatch.setattr(onnx_towers, "_onnxruntime", lambda: Fake([CPU], [CPU]))
    assert OnnxTowers(exported).encode_pixels(PIXELS).shape == (2, 32)
    for device, wheel in (("cuda", "onnxruntime-gpu"), ("coreml", "on a Mac"), ("directml", "onnxruntime-directml")):
        with pytest.raises(ConfigError, match=rf"device {device} needs another build of onnxruntime: .*{wheel}"):
            OnnxTowers(exported, device=device)
    with pytest.raises(ConfigError, match=r"cuad is not a device of onnxruntime\. Did you mean cuda\?"):
        OnnxTowers(exported, device="cuad")
    monkeypatch.setattr(onnx_towers, "_onnxruntime", lambda: Fake([CUDA, CPU], [CPU]))
    with pytest.raises(ConfigError, match=r"device cuda must be there, and onnxruntime found none"):
        OnnxTowers(exported, device="cuda").encode_pixels(PIXELS)


def test_an_engine_that_is_not_installed_is_named(exported, monkeypatch):
    for engine, name in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match=f"engine {engine} needs"):
            OnnxTowers(exported, engine=engine)


def test_openvino_gives_the_same_features(exported):
    pytest.importorskip("openvino", reason="pip install 'diptych[openvino]'")
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    ours, theirs = OnnxTowers(exported), OnnxTowers(exported, engine="openvino", threads=1)
    for count in (3, 1):
        np.testing.assert_allclose(theirs.encode_pixels(pixels[:count]), ours.encode_pixels(pixels[:count]), atol=1e-5)
    for length in (5, 16):
        tokens = draw.integers(1, 500, (4, length))
        np.testing.assert_allclose(theirs.encode_tokens(tokens), ours.encode_tokens(tokens), atol=1e-5)
    for name in ("diptych-photo", "diptych-pictogram"):  # whose weights are stored in 8 bits
        folder = find_model(name).path
        ours, theirs = OnnxTowers(folder), OnnxTowers(folder, engine="openvino", threads=1)
        side = ours.graphs.image_size
        pixels = draw.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
        np.testing.assert_allclose(theirs.encode_pixels(pixels), ours.encode_pixels(pixels), atol=1e-5)
        tokens = Tokenizer.load(folder).encode(["a cat", "two red kites, 3 blue boats & a dog"])
        np.testing.assert_allclose(theirs.encode_tokens(tokens), ours.encode_tokens(tokens), atol=1e-5)
    with pytest.raises(ConfigError, match=r"tpu is not a device of OpenVINO"):
        OnnxTowers(exported, engine="openvino", device="tpu")
