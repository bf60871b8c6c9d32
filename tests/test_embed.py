import dataclasses
import json
import resource
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.embed import Embedded, embed_images, encode_fast, find_images
from diptych.errors import ConfigError, DataError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    tokenizer = Tokenizer.train(["a red kite"] * 3, vocab_size=515, context_length=16)
    config = preset("tiny-vit")
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=515))
    return Bundle(model=CLIP(config, generator(0)), preprocess=Preprocess(image_size=32), tokenizer=tokenizer)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five pictures, of which the second and the last are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:900])
    (folder / "4.png").write_text("not a picture")
    return folder


@pytest.fixture
def embedded() -> Embedded:
    return Embedded(("a/é.png", "b.png"), np.eye(2, 3, dtype=np.float32), {"c.png": "c.png is empty"})


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_rows_are_the_readable_pictures_in_order_and_the_others_are_named(bundle, folder, batch_size):
    paths = find_images([folder])
    embedded = embed_images(bundle, paths, batch_size=batch_size)
    good = [paths[i] for i in (0, 2, 3)]
    assert embedded.keys == tuple(map(str, good))
    torch.testing.assert_close(embedded.features, bundle.encode_images(good), rtol=0, atol=1e-6)
    assert list(embedded.skipped) == [str(paths[1]), str(paths[4])]
    assert "is cut short" in embedded.skipped[str(paths[1])]


def test_progress_ends_with_all_pictures_done(bundle, folder):
    seen = []
    embed_images(bundle, find_images([folder]), batch_size=2, on_progress=lambda *numbers: seen.append(numbers))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_nothing_readable_gives_no_rows(bundle, folder):
    embedded = embed_images(bundle, [folder / "4.png"])
    assert embedded.features.shape == (0, 32)
    assert len(embedded.skipped) == 1


def test_no_batch_is_empty(bundle, folder):
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        embed_images(bundle, [folder / "0.png"], batch_size=0)


def test_a_safetensors_file_holds_features_keys_and_skipped(embedded, tmp_path):
    embedded.save(tmp_path / "new" / "f.safetensors")
    with safetensors.safe_open(tmp_path / "new" / "f.safetensors", framework="pt") as file:
        assert np.array_equal(file.get_tensor("features"), embedded.features)
        assert json.loads(file.metadata()["keys"]) == ["a/é.png", "b.png"]
        assert json.loads(file.metadata()["skipped"]) == embedded.skipped


@pytest.mark.parametrize("skipped", [{}, {"c.png": "c.png is empty"}])
def test_a_numpy_file_holds_the_same_without_pickles(embedded, skipped, tmp_path):
    dataclasses.replace(embedded, skipped=skipped).save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
        assert np.array_equal(file["features"], embedded.features)
        assert file["keys"].tolist() == ["a/é.png", "b.png"]
        assert dict(file["skipped"].tolist()) == skipped


def test_a_file_of_another_kind_is_refused(embedded, tmp_path):
    with pytest.raises(ConfigError, match=r"\.safetensors or \.npz\. Got .*f\.csv"):
        embedded.save(tmp_path / "f.csv")


@pytest.mark.parametrize("name", ["f.npz", "f.safetensors"])
def test_a_full_disk_leaves_no_half_of_a_file(tmp_path, name):
    embedded = Embedded(("a.png",) * 5000, np.zeros((5000, 8), np.float32))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(DataError, match="could not be written"):
            embedded.save(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_folders_are_read_with_subfolders_in_natural_order_each_picture_once(tmp_path):
    names = ["set10/a.png", "set2/b10.JPG", "set2/b9.jpg", "c.webp", ".hidden/d.png", "set2/.e.png", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = find_images([tmp_path / "set2" / "b9.jpg", tmp_path, tmp_path / "set2"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "set2/b9.jpg",
        "c.webp",
        "set2/b10.JPG",
        "set10/a.png",
    ]


def test_a_file_that_is_named_is_taken_whatever_its_ending(tmp_path):
    (tmp_path / "picture.data").touch()
    assert find_images([tmp_path / "picture.data"]) == [tmp_path / "picture.data"]


def test_a_folder_below_a_hidden_one_is_read_when_it_is_named(tmp_path):
    (tmp_path / ".cache" / "set").mkdir(parents=True)
    (tmp_path / ".cache" / "set" / "a.png").touch()
    assert len(find_images([tmp_path / ".cache" / "set"])) == 1


def test_a_path_that_is_not_there_and_a_folder_without_pictures_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone must be a picture or a folder of pictures, and does not exist"):
        find_images([tmp_path / "gone"])
    with pytest.raises(DataError, match=r"no picture was found in .*\. Endings that count: apng"):
        find_images([tmp_path])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_encoding_is_near_the_exact_one_and_of_unit_length(bundle, folder, monkeypatch, dtype):
    monkeypatch.setattr("diptych.weights.bundle.fast_dtype", lambda device: dtype)
    pixels = [bundle.preprocess.pixels(folder / f"{i}.png") for i in (0, 2, 3)]
    features = encode_fast(bundle, pixels)
    exact = bundle.encode_pixels(np.stack(pixels))
    assert (features * exact).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), np.ones(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(features, exact, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.05)
    assert encode_fast(bundle, []).shape == (0, 32)
