import json

import numpy as np
import pytest
from PIL import Image

from bundles import make, new_tokenizer
from diptych.errors import ConfigError, DataError
from diptych.export.gate import Thresholds
from diptych.export.int8_folder import export_int8
from diptych.sets.open import read_labelled
from diptych.weights.engines import engines_here, load
from diptych.weights.graph_bundle import GraphBundle

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
NAMES = ("a red kite", "a blue boat")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    for number in range(264):
        path = folder / NAMES[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        small = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40, 32), Image.Resampling.BICUBIC).save(path)
    return read_labelled(folder)


@pytest.fixture(scope="module", params=["tiny-resnet", "tiny-vit"])
def written(request, data, tmp_path_factory):
    bundle, out = make(request.param, new_tokenizer()), tmp_path_factory.mktemp("int8") / "model"
    done = export_int8(bundle, out, data, accepted=("worst", "found", "top1"), thresholds=Thresholds(cosine=0.98))
    return bundle, out, done


def test_what_is_written_is_near_and_needs_no_torch(written, data):
    bundle, out, done = written
    made = load(out)
    assert isinstance(made, GraphBundle)
    assert engines_here(out) == ("onnx",)
    assert not (out / "model.safetensors").exists()
    pictures = [data.open(row) for row in range(6)]
    for before, after in (
        (bundle.encode_images(pictures), made.encode_images(pictures)),
        (bundle.encode_texts(NAMES), made.encode_texts(NAMES)),
    ):
        cosines = (before * after).sum(axis=1)
        assert cosines.min() > 0.97
        assert not np.array_equal(before, after)
    assert made.fingerprint() != bundle.fingerprint()  # an index of one is not searched with the other
    assert made.about == bundle.about
    report = json.loads((out / "gate.json").read_text())
    assert report["images"]["mean"] == done.report.images.mean > 0.98
    assert report["left_out"] == dict(done.left_out)


def test_what_else_is_in_a_batch_changes_nothing(written, data):
    _, out, _ = written
    made = load(out)
    pictures = [data.open(row) for row in range(5)]
    alone = np.concatenate([made.encode_images([one]) for one in pictures])
    np.testing.assert_allclose(made.encode_images(pictures), alone, atol=1e-6)
    texts = [*NAMES, "kite", "a red boat, a blue kite and a red kite"]
    alone = np.concatenate([made.encode_texts([one]) for one in texts])
    np.testing.assert_allclose(made.encode_texts(texts), alone, atol=1e-6)


def test_what_is_not_near_enough_is_refused_with_the_numbers_and_nothing_is_written(data, tmp_path):
    bundle = make("tiny-resnet", new_tokenizer())
    with pytest.raises(ConfigError, match=r"mean cosine of 0\.\d+, below 0\.99999.*--accept cosine"):
        export_int8(bundle, tmp_path / "out", data, thresholds=Thresholds(cosine=0.99999, worst=-1, found=0, top1=1))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="must be one of cosine, worst, found, top1"):
        export_int8(bundle, tmp_path / "out", data, accepted=("speed",))


def test_a_set_that_is_too_small_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/1.png", "b/1.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(DataError, match="at least 264 pictures"):
        export_int8(make("tiny-vit", new_tokenizer()), tmp_path / "out", read_labelled(tmp_path))


def test_another_engine_says_that_it_cannot(written):
    _, out, _ = written
    with pytest.raises(ConfigError, match=r"holds graphs in 8 bits alone, which are onnxruntime's\. Got engine torch"):
        load(out, engine="torch")
