"""curate/describe.py: pictures become columns, and what cannot be read is dropped with its cause."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from diptych.curate import describe
from diptych.curate.describe import Describe, grey_of, side_needed
from diptych.data.images import open_image
from diptych.embed import encode_fast
from diptych.errors import ConfigError
from diptych.measures.perceptual_hash import hamming, perceptual_hash
from diptych.rows.columns import pairs_table
from diptych.rows.stage import DROPPED, Whole, WithPictures

MODEL = "diptych-pictogram-small"


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Broad waves with grain: something to tell apart at any size."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, format_: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def with_pictures(*pictures: bytes | None) -> pa.Table:
    rows = pairs_table([{"key": f"{i:032x}", "text": f"text {i}", "source": 0} for i in range(len(pictures))])
    return rows.append_column("picture", pa.array(pictures, pa.binary()))


def described(*pictures: bytes | None, **options) -> pa.Table:
    judged = Describe(**options).apply(with_pictures(*pictures), Whole())
    assert len(judged.dropped) == 0
    return judged.kept


def test_size_format_and_bytes_are_those_of_the_picture_whatever_the_source_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    pictures = [saved(noise(40, 30), "JPEG", exif=exif), saved(noise(20, 10)), saved(noise(9, 9), "WEBP")]
    rows = with_pictures(*pictures).set_column(8, "width", pa.array([7, 7, 7], pa.int32()))
    kept = Describe().apply(rows, Whole()).kept
    assert kept.select(["width", "height", "format", "bytes"]).to_pylist() == [
        {"width": w, "height": h, "format": f, "bytes": len(data)}
        for (w, h, f), data in zip([(30, 40, "jpeg"), (20, 10, "png"), (9, 9, "webp")], pictures, strict=True)
    ]
    assert kept.schema.field("width").type == kept.schema.field("height").type == pa.int32()
    assert kept["text"].to_pylist() == ["text 0", "text 1", "text 2"]


def test_the_pictures_stay_where_they_are():
    assert "picture" not in described(saved(noise(40, 30))).column_names
    assert isinstance(Describe(), WithPictures)


def test_the_hash_is_that_of_the_small_grey_picture_and_of_it_mirrored():
    image = noise(50, 70)
    kept = described(saved(image))
    looks, mirrored, detail = perceptual_hash(grey_of(image)[None])
    assert (kept["look"].to_pylist(), kept["look_mirrored"].to_pylist()) == (looks.tolist(), mirrored.tolist())
    assert kept["detail"].to_pylist() == detail.tolist()
    flipped = described(saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    assert hamming(flipped["look"].to_numpy(), mirrored)[0] <= 1  # Pillow's resize is not quite symmetric


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_with_nearly_the_same_hash():
    image = noise(1600, 1200)
    kept = described(saved(image, "JPEG", quality=90))
    assert (kept["width"][0].as_py(), kept["height"][0].as_py()) == (1600, 1200)
    looks, _, _ = perceptual_hash(grey_of(image)[None])
    assert hamming(kept["look"].to_numpy(), looks)[0] <= 2


def test_what_cannot_be_read_is_dropped_by_cause_and_the_others_keep_their_order():
    good = saved(noise(40, 30), "JPEG")
    rows = with_pictures(good, None, b"", b"<html>", good[: len(good) // 2], saved(noise(20, 10)))
    judged = Describe().apply(rows, Whole())
    assert judged.kept["text"].to_pylist() == ["text 0", "text 5"]
    assert judged.dropped.schema == DROPPED
    assert [(row["key"][-1], row["cause"]) for row in judged.dropped.to_pylist()] == [
        ("1", "empty"),
        ("2", "empty"),
        ("3", "not an image"),
        ("4", "truncated"),
    ]
    assert "web page" in judged.dropped["value"][2].as_py()


def test_a_picture_with_more_pixels_than_the_limit_is_dropped_by_its_header():
    rows = with_pictures(saved(noise(40, 30)), saved(noise(10, 10)))
    judged = Describe(max_pixels=1000).apply(rows, Whole())
    assert judged.kept["width"].to_pylist() == [10]
    assert judged.dropped["cause"].to_pylist() == ["too large"]
    with pytest.raises(ConfigError, match=r"describe.max_pixels must be at least 1\. Got 0"):
        Describe(max_pixels=0)


@pytest.mark.parametrize("model", [None, MODEL])
def test_no_rows_have_the_same_columns(model):
    empty = Describe(model=model).apply(with_pictures(), Whole())
    assert empty.kept.schema == described(saved(noise(40, 30)), model=model).schema
    assert empty.dropped.schema == DROPPED


def test_features_are_those_of_the_model_unit_length_and_a_row_each(monkeypatch):
    monkeypatch.setattr(describe, "_BATCH", 2)
    pictures = [saved(noise(60, 60, seed)) for seed in range(3)]
    rows = with_pictures(pictures[0], b"no picture", *pictures[1:])
    kept = Describe(model=MODEL).apply(rows, Whole()).kept
    features = np.array(kept["features"].to_pylist(), np.float32)
    bundle = describe.model_of(MODEL)
    plain = encode_fast(bundle, [bundle.preprocess.pixels(open_image(data)) for data in pictures])
    assert kept.schema.field("features").type == pa.list_(pa.float16(), plain.shape[1])
    np.testing.assert_allclose(features, plain, atol=0.02)  # float16, and bfloat16 where it is quicker
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=2e-3)
    assert describe.model_of(MODEL) is bundle


def test_a_jpeg_keeps_what_the_hash_and_the_model_need():
    assert side_needed(None) == 64
    bundle = describe.model_of(MODEL)
    assert side_needed(bundle) == max(64, -(-bundle.preprocess.image_size * 3 // 2))
