import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest

from bundles import TEXTS, make, new_tokenizer, some_pictures
from diptych.errors import MissingExtraError, WeightsError
from diptych.weights.bundle import Bundle
from diptych.weights.graph_bundle import GraphBundle

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from diptych.export.one_file import write_graphs

    folder = tmp_path_factory.mktemp("models") / "model"
    make("tiny-vit", new_tokenizer()).save(folder)
    write_graphs(folder)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


def test_it_is_the_bundle_of_the_same_folder_to_the_fifth_digit(folder):
    graphs, torchs = GraphBundle.load(folder), Bundle.load(folder)
    pictures = some_pictures()
    np.testing.assert_allclose(graphs.encode_images(pictures, batch_size=4), torchs.encode_images(pictures), atol=1e-5)
    texts = graphs.encode_texts(TEXTS, batch_size=2, truncate=True)
    np.testing.assert_allclose(texts, torchs.encode_texts(TEXTS, truncate=True), atol=1e-5)
    assert graphs.fingerprint() == torchs.fingerprint()
    assert graphs.head.kind == torchs.head.kind
    assert graphs.head.logit_scale == pytest.approx(torchs.head.logit_scale)
    facts = ("embed_dim", "reads_padding", "golden_texts", "about", "preprocess")
    assert [getattr(graphs, name) for name in facts] == [getattr(torchs, name) for name in facts]
    assert graphs.encode_images([]).shape == (0, graphs.embed_dim)


def test_each_tower_is_checked_before_it_gives_anything(folder):
    config = json.loads((folder / "config.json").read_text())
    golden = config["diptych"]["golden"]
    golden["image_features"][0][0] += 0.5
    (folder / "config.json").write_text(json.dumps(config))
    bundle = GraphBundle.load(folder)
    assert len(bundle.encode_texts(["a red kite"])) == 1  # that tower is as it was
    with pytest.raises(WeightsError, match=r"encode as it did when it was saved, and image features are 0\.5"):
        bundle.encode_images(some_pictures()[:1])
    golden["tokens"][0][1] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="must give the tokens that it gave"):
        GraphBundle.load(folder).encode_texts(["a red kite"])


def test_another_tokenizer_and_missing_files_are_named(folder):
    other = new_tokenizer().with_context_length(20)
    saved = (folder / "tokenizer.json").read_bytes()
    other.save(folder)
    with pytest.raises(WeightsError, match=r"tokenizer\.json must be the file that was saved"):
        GraphBundle.load(folder)
    (folder / "tokenizer.json").write_bytes(saved)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="must be a bundle that diptych wrote"):
        GraphBundle.load(folder)


def test_features_that_are_no_numbers_are_refused(folder, monkeypatch):
    bundle = GraphBundle.load(folder)
    bundle.encode_images(some_pictures()[:1])
    broken = np.full((2, bundle.embed_dim), np.nan, np.float32)
    monkeypatch.setattr(type(bundle.towers), "encode_pixels", lambda *_: broken)
    with pytest.raises(WeightsError, match="image features must be finite numbers, and 2 of 2 are not"):
        bundle.encode_images(some_pictures()[:2])


def test_what_only_torch_does_is_done_there_with_the_same_recipe(folder, monkeypatch):
    bundle = GraphBundle.load(folder)
    limited = dataclasses.replace(bundle, preprocess=dataclasses.replace(bundle.preprocess, max_pixels=1000))
    assert isinstance(limited.in_torch(), Bundle)
    assert limited.in_torch() is limited.in_torch()
    assert limited.in_torch().preprocess.max_pixels == 1000
    monkeypatch.setitem(sys.modules, "diptych.weights.bundle", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[torch\]'"):
        bundle.in_torch()


def test_what_it_does_not_have_is_told_with_where_it_is(folder):
    bundle = GraphBundle.load(folder)
    for name in ("model", "save", "with_image_size", "encode_grid"):
        with pytest.raises(
            AttributeError, match=rf"has no '{name}'\. In torch: diptych\.load\(\.\.\., engine='torch'\)"
        ):
            getattr(bundle, name)
    assert not hasattr(bundle, "model")
