"""curate/people.py: faces blurred, or pictures with people left out, by a detector from outside the package."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from conftest import png
from diptych.curate.people import People, blurred
from diptych.errors import ConfigError
from diptych.rows.stage import Whole, WithPictures
from pair_tables import pairs_of

# A "face" is a red square; this stands in a file of the user's.
DETECTOR = """
import numpy as np

def red_squares(pixels):
    rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1:] < 100).all(axis=2))
    if not len(rows):
        return np.empty((0, 5))
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 0.8]])
"""


@pytest.fixture
def detector(tmp_path, monkeypatch):
    (tmp_path / "users_detector.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    return "users_detector:red_squares"


def picture(square, kind="PNG"):
    pixels = np.full((60, 80, 3), (30, 60, 90), np.uint8)
    if square:
        pixels[20:40, 30:50] = (255, 0, 0)
        pixels[28:32, 38:42] = (220, 20, 90)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def rows_of(*pictures, **columns):
    sums = [hashlib.sha256(data).hexdigest() for data in pictures]
    texts = [f"text {i}" for i in range(len(pictures))]
    return pairs_of(*texts, picture=list(pictures), sha256=sums, bytes=[len(data) for data in pictures], **columns)


def test_faces_are_blurred_and_all_else_stays_as_it_was(detector):
    rows = rows_of(picture(True), picture(False), picture(True, "JPEG"), notes=[None, "old", "old"])
    kept = People(detector=detector).apply(rows, Whole()).kept
    data = kept["picture"].to_pylist()
    assert data[1] == rows["picture"][1].as_py()
    before, after = opened(rows["picture"][0].as_py()), opened(data[0])
    inside = np.zeros((60, 80), bool)
    inside[18:42, 28:52] = True  # the box and a tenth around it
    assert (before[~inside] == after[~inside]).all()
    assert np.abs(before[28:32, 38:42] - after[28:32, 38:42]).max() > 15  # the spot is gone
    assert (
        np.ptp(after[25:35, 35:45].reshape(-1, 3), axis=0).max()
        < np.ptp(before[25:35, 35:45].reshape(-1, 3), axis=0).max()
    )
    assert [Image.open(io.BytesIO(one)).format for one in data] == ["PNG", "PNG", "JPEG"]
    assert kept["sha256"].to_pylist() == [hashlib.sha256(one).hexdigest() for one in data]
    assert kept["bytes"].to_pylist() == [len(one) for one in data]
    assert kept["notes"].to_pylist() == [
        "faces blurred: 1; encoded again as PNG",
        "old",
        "old; faces blurred: 1; encoded again as JPEG",
    ]
    assert kept["key"].to_pylist() == rows["key"].to_pylist()


def test_a_picture_without_faces_keeps_its_bytes_and_columns_are_the_same_in_every_part(detector):
    some, none = (People(detector=detector).apply(rows_of(picture(square)), Whole()).kept for square in (True, False))
    assert some.schema == none.schema
    assert none["notes"].to_pylist() == [None]
    empty = People(detector=detector).apply(rows_of(), Whole())
    assert (len(empty.kept), len(empty.dropped), "notes" in empty.kept.column_names) == (0, 0, True)


def test_pictures_with_people_are_left_out_where_that_is_asked(detector):
    rows = rows_of(picture(True), b"bad", picture(False))
    judged = People(detector=detector, action="drop").apply(rows, Whole())
    assert judged.kept["text"].to_pylist() == ["text 2"]
    assert "picture" not in judged.kept.column_names  # they stay as they are
    assert judged.dropped.select(["cause", "limit"]).to_pylist() == [
        {"cause": "not an image", "limit": None},
        {"cause": "people", "limit": "no person in the picture"},
    ]
    assert judged.dropped["value"][1].as_py() == "1 found"
    sure = People(detector=detector, action="drop", min_confidence=0.9).apply(rows, Whole())
    assert len(sure.kept) == 2


def test_what_cannot_be_read_is_dropped_when_faces_are_blurred(detector):
    judged = People(detector=detector).apply(rows_of(b"bad", picture(True)), Whole())
    assert judged.dropped["cause"].to_pylist() == ["not an image"]
    assert len(judged.kept) == 1


def test_a_box_at_the_edge_is_blurred_within_the_picture():
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    result = blurred(pixels, np.array([[0, 0, 20, 20], [19, 19, 20, 20]]))
    assert result.shape == pixels.shape
    assert result.std() < 0.5 * pixels.std()


def test_a_detector_must_be_named_as_a_function():
    assert isinstance(People(detector="a:b"), WithPictures)
    with pytest.raises(ConfigError, match=r'people\.detector must name a function as "module:function"'):
        People(detector="yunet")
    assert png(Image.new("RGB", (1, 1)))
