"""Models as folders for other engines."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from bundles import TEXTS, make, new_tokenizer, some_pictures
from chromium import browser_tab, needs_chromium
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, MissingExtraError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.normalise import normalise
from diptych.weights.onnx_towers import OnnxTowers
from siglip_standins import write_siglip2_tokenizer
from tower_kinds import IMAGE_KINDS, TEXT_KINDS, image_of, kind_of, preprocess_of, text_of

pytest.importorskip("onnxscript", reason="pip install 'diptych[export]'")
onnxruntime = pytest.importorskip("onnxruntime")

from diptych.export.model_folder import export_model  # noqa: E402


@pytest.fixture(scope="module")
def tiny():
    return make("tiny-vit", new_tokenizer())


def inputs(bundle):
    """Pictures as bytes, the same normalised, and texts: what graphs take."""
    pixels = np.stack([bundle.preprocess.pixels(picture) for picture in some_pictures()])
    images = normalise(bundle.preprocess, torch.from_numpy(pixels)).numpy()
    return pixels, images, np.asarray(bundle.tokenizer.encode(TEXTS, truncate=True))


def run(path, batch):
    session = onnxruntime.InferenceSession(path)
    (port,), (out,) = session.get_inputs(), session.get_outputs()
    return port.name, out.name, session.run(None, {port.name: batch})[0]


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_an_onnx_folder_is_a_bundle_and_opens_without_torch(tiny, tmp_path):
    export_model(tiny, tmp_path / "out", format="onnx", dtype="float16")
    pixels, _, tokens = inputs(tiny)
    bundle, towers = Bundle.load(tmp_path / "out"), OnnxTowers(tmp_path / "out")
    assert (bundle.about, towers.graphs.dtype) == (tiny.about, "float16")
    np.testing.assert_allclose(towers.encode_pixels(pixels), np.asarray(bundle.encode_pixels(pixels)), atol=1e-5)
    with torch.no_grad():
        expected = bundle.model.encode_text(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(towers.encode_tokens(tokens), expected, atol=1e-5)


def test_normalisation_may_be_left_outside(tiny, tmp_path):
    export_model(tiny, tmp_path / "out", format="onnx", normalise="outside")
    pixels, images, _ = inputs(tiny)
    _, _, features = run(tmp_path / "out" / "image.onnx", images)
    np.testing.assert_allclose(features, np.asarray(tiny.encode_pixels(pixels)), atol=1e-5)
    assert not (tmp_path / "out" / "graphs.json").exists()


def test_openvino_gives_torchs_features(tiny, tmp_path):
    openvino = pytest.importorskip("openvino", reason="pip install 'diptych[openvino]'")
    export_model(tiny, tmp_path / "out", format="openvino")
    pixels, _, tokens = inputs(tiny)
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    with torch.no_grad():
        of_texts = tiny.model.encode_text(torch.from_numpy(tokens)).numpy()
    for name, batch, expected in (
        ("image", pixels, np.asarray(tiny.encode_pixels(pixels))),
        ("text", tokens, of_texts),
    ):
        compiled = openvino.Core().compile_model(tmp_path / "out" / f"{name}.xml", "CPU", hints)
        for count in (1, 3):
            np.testing.assert_allclose(compiled([batch[:count]])[0], expected[:count], atol=1e-5)
    assert not list((tmp_path / "out").glob("*.onnx"))
    assert Bundle.load(tmp_path / "out").fingerprint() == tiny.fingerprint()


@pytest.mark.parametrize(("kind", "output"), [("vit", None), ("siglip", "pooler_output")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_transformers_js_layout(tmp_path, kind, output, dtype):
    bundle = of_kind(kind, tmp_path / "tokenizer")
    export_model(bundle, tmp_path / "out", format="transformers.js", dtype=dtype)
    _, images, tokens = inputs(bundle)
    ending = "_fp16" if dtype == "float16" else ""
    with torch.no_grad():
        of_images = bundle.model.image(torch.from_numpy(images)).numpy()
        of_texts = bundle.model.text(torch.from_numpy(tokens)).numpy()
    for name, port, out, batch, expected in (
        ("vision_model", "pixel_values", "image_embeds", images, of_images),
        ("text_model", "input_ids", "text_embeds", tokens, of_texts),
    ):
        got = run(tmp_path / "out" / "onnx" / f"{name}{ending}.onnx", batch)
        assert got[:2] == (port, output or out)
        if dtype == "float32":
            np.testing.assert_allclose(got[2], expected, rtol=1e-4, atol=1e-5)
        else:
            assert cosines(got[2], expected).min() > 0.9999
    assert Bundle.load(tmp_path / "out").about == bundle.about


def of_kind(kind, folder):
    if kind == "vit":
        return make("tiny-vit", new_tokenizer())
    image = next(image_of(cls) for cls in IMAGE_KINDS if kind_of(cls) == kind)
    text = next(text_of(cls) for cls in TEXT_KINDS if kind_of(cls) == kind)
    write_siglip2_tokenizer(folder)
    tokenizer = Tokenizer.load(folder)
    text = dataclasses.replace(text, context_length=tokenizer.context_length, vocab_size=tokenizer.vocab_size)
    model = CLIP(CLIPConfig(embed_dim=24, head="sigmoid", image=image, text=text), generator(0)).eval()
    return Bundle(model=model, preprocess=preprocess_of(image), tokenizer=tokenizer)


def test_what_cannot_be_exported_is_refused_in_a_sentence_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    resnet = make("tiny-resnet", tiny.tokenizer)
    with pytest.raises(ConfigError, match=r"transformers\.js has no class for CLIP's ResNets"):
        export_model(resnet, tmp_path / "out", format="transformers.js")
    with pytest.raises(ConfigError, match=r"onxn is not a format\. Did you mean onnx\?"):
        export_model(tiny, tmp_path / "out", format="onxn")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"openvino needs an extra"):
        export_model(tiny, tmp_path / "out", format="openvino")
    assert list(tmp_path.iterdir()) == []


BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
IN_A_PAGE = """async ([modelType, options, asked]) => {
    const library = await import("/library/transformers.js");
    const { features } = await import("/transformers_js_features.mjs");
    library.env.allowRemoteModels = false;
    library.env.allowLocalModels = true;
    library.env.localModelPath = "/";
    library.env.backends.onnx.wasm.wasmPaths = location.origin + "/runtime/";
    return await features(library, "out", modelType, options, asked);
}"""


@pytest.fixture
def transformers_js() -> Path:
    """The folder node_modules that holds it."""
    modules = Path(os.environ.get("DIPTYCH_TRANSFORMERS_JS", "")) / "node_modules"
    if not (modules / "@huggingface" / "transformers").is_dir():
        pytest.skip("needs DIPTYCH_TRANSFORMERS_JS=a folder with @huggingface/transformers in node_modules")
    return modules


def to_be_asked(kind, folder):
    """A model of which an export lies in `folder`, and what is asked of both.

    Pictures have the tower's size: how another library resizes is not what is asked here.
    """
    bundle = of_kind(kind, folder / "tokenizer")
    export_model(bundle, folder / "out", format="transformers.js")
    pictures = [picture.resize((32, 32)) for picture in some_pictures()]
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    return bundle, pictures, ["a red kite", "a blue boat, a red kite", "a cat"]


def assert_near(given, bundle, pictures, texts):
    assert cosines(np.array(given["texts"]), np.asarray(bundle.encode_texts(texts))).min() >= 0.99999
    assert cosines(np.array(given["images"]), np.asarray(bundle.encode_images(pictures))).min() >= 0.99999


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize("kind", ["vit", "siglip"])
def test_transformers_js_in_node_gives_our_features(tmp_path, kind, transformers_js):
    bundle, pictures, texts = to_be_asked(kind, tmp_path)
    asked = {"texts": texts, "pictures": [str(tmp_path / f"{number}.png") for number in range(len(pictures))]}
    done = subprocess.run(
        ["node", BENCHMARKS / "transformers_js.mjs", tmp_path / "out", "fp32"],
        input=json.dumps(asked), capture_output=True, text=True, timeout=120, cwd=transformers_js.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_near(json.loads(done.stdout), bundle, pictures, texts)


@needs_chromium
@pytest.mark.parametrize("kind", ["vit", "siglip"])
def test_transformers_js_in_a_browser_gives_our_features(tmp_path, kind, transformers_js):
    bundle, pictures, texts = to_be_asked(kind, tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html><title>transformers.js</title>")
    shutil.copy(BENCHMARKS / "transformers_js_features.mjs", tmp_path)
    (tmp_path / "library").symlink_to(transformers_js / "@huggingface" / "transformers" / "dist")
    (tmp_path / "runtime").symlink_to(transformers_js / "onnxruntime-web" / "dist")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser_tab() as (tab, _, asked):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        tab.goto(f"{here}/index.html")
        pages = [f"{here}/{number}.png" for number in range(len(pictures))]
        options = {"dtype": "fp32", "device": "wasm"}
        given = tab.evaluate(IN_A_PAGE, [config["model_type"], options, {"texts": texts, "pictures": pages}])
        server.shutdown()
    assert all(url.startswith((here, "blob:", "data:")) for url in asked), "nothing comes from elsewhere"
    assert_near(given, bundle, pictures, texts)


class QuietHandler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, format, *args):
        pass
