"""The embedded pairs: what ships is openly licensed, small, captioned, and keeps the held-out art style out."""

import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data.embedded import HELD_OUT, data_path
from diptych.pairs.pipeline import captions_of
from diptych.pairs.shards import Sample, ShardSet
from diptych.sets.open import read_labelled

FOLDER = data_path("embedded:emoji").parent
NEAR_COPY = 0.97  # as in recipes/build_pictograms.py


@pytest.fixture(scope="module")
def training() -> list[Sample]:
    sets = (ShardSet(data_path(f"embedded:{name}")) for name in ("emoji", "icons"))
    return [samples[i] for samples in sets for i in range(len(samples))]


def thumbnail(picture: Image.Image) -> np.ndarray:
    small = np.asarray(picture, dtype=np.float64).reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)).ravel()
    small -= small.mean()
    return small / np.linalg.norm(small)


def test_a_prefix_leads_into_the_package_and_other_names_are_paths():
    assert data_path("embedded:icons") == FOLDER / "icons"
    assert data_path("some/folder") == Path("some/folder")


def test_the_embedded_pairs_stay_below_20_mb():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 20e6


def test_every_training_sample_has_a_caption_and_a_picture_of_64_pixels(training: list[Sample]):
    build = json.loads((FOLDER / "BUILD.json").read_text())
    assert len(training) == build["training"] == sum(build["sets"].values())
    assert len({sample.key for sample in training}) == len(training)
    for sample in training:
        assert captions_of(sample)
        assert Image.open(io.BytesIO(sample.parts["webp"])).size == (64, 64)


def test_no_picture_of_the_held_out_style_nor_a_near_copy_is_in_training(training: list[Sample]):
    held_out = read_labelled(data_path(HELD_OUT))
    assert not any(sample.key.startswith(held_out.name) for sample in training)
    test = np.stack([thumbnail(held_out.open(i)) for i in range(len(held_out))])  # [N, 768]
    pictures = (Image.open(io.BytesIO(sample.parts["webp"])).convert("RGB") for sample in training)
    train = np.stack([thumbnail(picture) for picture in pictures])
    # Half a percent of slack: the build compared the pictures before WebP rounded them.
    assert (train @ test.T).max() < NEAR_COPY + 0.005


def test_the_held_out_style_is_a_task_of_over_a_thousand_names_most_of_them_seen_in_training(training: list[Sample]):
    held_out = read_labelled(data_path(HELD_OUT))
    assert len(held_out) == len(held_out.classnames) == len(set(held_out.classnames)) >= 1000
    assert sorted(held_out.targets) == list(range(len(held_out)))
    names = {captions_of(sample)[0] for sample in training}
    assert len(names & set(held_out.classnames)) > 0.95 * len(held_out)


def test_every_set_is_credited_with_a_licence_that_allows_it_into_the_package():
    build = json.loads((FOLDER / "BUILD.json").read_text())
    rows = [line.split("|") for line in (FOLDER / "CREDITS.md").read_text().splitlines() if line.startswith("| ")]
    licences = {row[1].split("`")[1]: re.sub(r"\[(.+)\].*", r"\1", row[3].strip()) for row in rows if "`" in row[1]}
    assert set(licences) == {*build["sets"], "twemoji"}
    assert set(licences.values()) <= {"MIT", "Apache 2.0", "CC BY 4.0", "CC0 1.0", "CC BY 3.0"}


def test_a_tag_that_is_no_name_stands_for_the_mean_of_the_emoji_that_have_it():
    path = Path(__file__).parent.parent / "recipes" / "pictogram_words.py"
    spec = importlib.util.spec_from_file_location("pictogram_words", path)
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    vectors = {"cat": torch.tensor([1.0, 0.0]), "dog": torch.tensor([0.0, 1.0]), "fish": torch.tensor([-1.0, 0.0])}
    emoji = [
        ("cat", "pet, dog"),
        ("cat", "pet"),
        ("dog", "pet, puppy"),
        ("fish",),
    ]  # a cat is drawn twice, and counts once
    tags, means = recipe.mean_of_tags(emoji, vectors)
    assert tags == ["pet", "puppy"]
    torch.testing.assert_close(means, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]))
