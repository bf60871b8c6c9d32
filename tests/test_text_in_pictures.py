"""curate/text_in_pictures.py: how much of a picture is text, and how well the rest fits."""

import builtins

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from conftest import png
from diptych.curate import text_in_pictures
from diptych.curate.text_in_pictures import TextInPictures, area_of, masked
from diptych.errors import ConfigError, MissingExtraError
from diptych.rows.stage import Whole, WithPictures
from pair_tables import pairs_of

# Text is what is black.
DETECTOR = """
import numpy as np

def black(pixels):
    rows, columns = np.nonzero(pixels.max(axis=2) < 30)
    return [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 0.9]] if len(rows) else []
"""


@pytest.fixture
def stage(tmp_path, monkeypatch, tiny_bundle):
    (tmp_path / "text_detector.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(text_in_pictures, "model_of", lambda name: tiny_bundle)
    monkeypatch.setattr(text_in_pictures, "BATCH", 2)
    return lambda **options: TextInPictures(detector="text_detector:black", **options)


def with_box(width):
    """Orange, with a black box of this width in 40 x 40."""
    pixels = np.full((40, 40, 3), (250, 150, 0), np.uint8)
    pixels[10:20, 5 : 5 + width] = 0
    return png(Image.fromarray(pixels))


def test_a_box_is_filled_with_the_mean_of_what_surrounds_it():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 100
    filled = masked(pixels, np.array([[2, 2, 6, 6]]))
    assert filled[3, 3].tolist() == [50] * 3
    outside = np.ones((8, 8), bool)
    outside[2:6, 2:6] = False
    assert (filled[outside] == pixels[outside]).all()
    assert masked(pixels, np.array([[0, 0, 8, 8]]))[0, 0].tolist() == [50] * 3
    assert (masked(pixels, np.empty((0, 4), np.int64)) == pixels).all()


def test_boxes_that_overlap_count_once():
    boxes = np.array([[0, 0, 5, 10], [3, 0, 5, 10], [9, 9, 10, 10]])
    assert area_of(np.zeros((10, 10, 3), np.uint8), boxes) == pytest.approx(0.51)


def test_a_picture_is_scored_without_its_text(stage, tiny_bundle):
    plain = png(Image.fromarray(np.full((40, 40, 3), (250, 150, 0), np.uint8)))
    rows = pairs_of(*["a red kite"] * 4, "a blue boat", picture=[plain, with_box(20), b"bad", with_box(30), plain])
    judged = stage().apply(rows, Whole())
    expected = (tiny_bundle.encode_images([plain]) @ tiny_bundle.encode_texts(["a red kite", "a blue boat"]).T)[0]
    scores = judged.kept["masked_score"].to_pylist()
    assert scores == pytest.approx([expected[0].item()] * 3 + [expected[1].item()], abs=2e-3)
    assert judged.kept["text_area"].to_pylist() == pytest.approx([0, 200 / 1600, 300 / 1600, 0])
    assert judged.dropped["cause"].to_pylist() == ["not an image"]
    assert "picture" not in judged.kept.column_names


def test_too_much_text_and_too_low_a_score_are_dropped(stage):
    rows = pairs_of(*["a red kite"] * 3, picture=[with_box(0), with_box(20), with_box(30)])
    judged = stage(max_area=200 / 1600).apply(rows, Whole())
    assert len(judged.kept) == 2  # what is on the limit is kept
    assert judged.dropped.select(["cause", "value", "limit"]).to_pylist() == [
        {"cause": "text-in-pictures", "value": "18.8%", "limit": "at most 12.5% of the picture is text"}
    ]
    score = judged.kept["masked_score"][0].as_py()
    judged = stage(min_score=min(round(score + 0.2, 3), 1)).apply(rows, Whole())
    assert judged.dropped["value"].to_pylist()[0] == f"{score:.4f}"
    none = stage(max_area=0.5, min_score=0.1).apply(pairs_of(picture=[]), Whole())
    assert (len(none.kept), none.kept["masked_score"].type) == (0, pa.float32())


def test_without_a_detector_it_says_how_to_get_one(monkeypatch, tiny_bundle):
    monkeypatch.setattr(text_in_pictures, "model_of", lambda name: tiny_bundle)
    real = builtins.__import__

    def absent(name, *rest):
        if name == "rapidocr":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    text_in_pictures._rapidocr.cache_clear()
    with pytest.raises(MissingExtraError, match="pip install rapidocr onnxruntime"):
        TextInPictures().apply(pairs_of("a", picture=[with_box(3)]), Whole())


def test_the_detector_of_rapidocr_finds_a_line_of_text(monkeypatch, tiny_bundle):
    pytest.importorskip("rapidocr", reason="rapidocr, which finds text in pictures, is not installed")
    monkeypatch.setattr(text_in_pictures, "model_of", lambda name: tiny_bundle)
    picture = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(picture).text((60, 70), "SALE TODAY", fill="black", font_size=48)
    blank = Image.new("RGB", (400, 200), "white")
    judged = TextInPictures().apply(pairs_of("a", "b", picture=[png(picture), png(blank)]), Whole())
    text, none = judged.kept["text_area"].to_pylist()
    assert (0.1 < text < 0.5, none) == (True, 0)


def test_options_that_cannot_be_are_named():
    assert isinstance(TextInPictures(), WithPictures)
    with pytest.raises(ConfigError, match="max_area must be a share"):
        TextInPictures(max_area=50)
    with pytest.raises(ConfigError, match="min_score must be a cosine"):
        TextInPictures(min_score=28)
