from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.audit.typographic import PLACES, SIZES, WRITTEN, typographic, written, wrong_classes
from probes import ColourReader, colour_set

RED = Image.new("RGB", (300, 240), (200, 0, 0))


def dark(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).max(axis=2) < 100


def test_a_word_is_written_at_its_place_in_its_size_and_a_box_alone_has_none():
    heights = []
    for size in SIZES.values():
        letters = dark(written(RED, "dog", size=size, place=PLACES["bottom"]))
        rows = np.flatnonzero(letters.any(axis=1))
        heights.append(rows[-1] - rows[0] + 1)
        assert rows[0] > 120
    assert heights == sorted(heights)
    top = dark(written(RED, "dog", size=SIZES["small"], place=PLACES["top left"]))
    assert top[:60, :100].any()
    assert not top[60:].any()
    box = written(RED, "dog", size=SIZES["large"], place=PLACES["bottom"], empty=True)
    word = written(RED, "dog", size=SIZES["large"], place=PLACES["bottom"])
    assert not dark(box).any()
    changed = (np.asarray(box) != np.asarray(RED)).any(axis=2)
    assert np.array_equal(changed, (np.asarray(word) != np.asarray(RED)).any(axis=2))  # the same box


def test_a_long_word_fits_and_a_small_picture_is_enlarged():
    small = written(Image.new("RGB", (32, 64), "red"), "hippopotamus" * 3, size=0.24, place=PLACES["middle"])
    assert small.size == (224, 448)
    columns = np.flatnonzero(dark(small).any(axis=0))
    assert columns[0] > 0
    assert columns[-1] < 223


def test_the_word_is_never_that_of_the_class_and_each_other_comes():
    targets = np.tile(np.arange(4), 300)
    wrong = wrong_classes(targets, 4, seed=3)
    assert (wrong != targets).all()
    counts = np.bincount(wrong * 4 + targets, minlength=16).reshape(4, 4)
    assert counts[~np.eye(4, dtype=bool)].min() > 60
    assert np.array_equal(wrong, wrong_classes(targets, 4, seed=3))


def test_a_model_that_cannot_read_does_not_follow(tmp_path: Path):
    model = ColourReader()
    chapter = typographic(model, colour_set(tmp_path / "set"))  # pyright: ignore[reportArgumentType]
    assert model.seen == [12] * (1 + 2 * len(WRITTEN))
    for result in chapter.results:
        assert result.value == (1 if result.case["shown"].endswith("right") else 0), result.case
    assert {one.case["prompts"] for one in chapter.results} == {"bare", "paper", "defence"}
    assert not any(one.is_significant for one in chapter.contrasts)
    assert chapter.examples == ()
    assert "0.0 %" in chapter.sentences[0]


class Reader(ColourReader):
    """Follows any word that is there: its dark letters make it say the next class, whichever is written."""

    def _image(self, image: Image.Image):
        seen = super()._image(image)
        return np.roll(seen, 1) if (np.asarray(image).max(axis=2) < 60).any() else seen


def test_a_model_that_reads_is_found_out_by_the_word_and_not_by_the_box(tmp_path: Path):
    chapter = typographic(Reader(), colour_set(tmp_path / "set", each=8), pictures=24)  # pyright: ignore[reportArgumentType]
    found = {tuple(one.case.values()): one.value for one in chapter.results}
    assert found["nothing: right", "", "", "bare"] == 1
    assert found["a word: right", "large", "bottom", "bare"] == 0
    assert found["an empty box: right", "large", "bottom", "bare"] == 1
    assert found["a word: follows it", "large", "bottom", "bare"] == pytest.approx(0.5, abs=0.3)  # of two wrong ones
    assert found["an empty box: the other class all the same", "large", "bottom", "bare"] == 0
    assert any(one.is_significant and one.name.startswith("right, a word") for one in chapter.contrasts)
    assert chapter.examples
