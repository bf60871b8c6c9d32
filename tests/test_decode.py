import base64
import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image

from diptych.data.images import FAST_MARGIN, Preprocess, open_image
from diptych.errors import ImageError
from diptych.serve.decode import decode_picture
from serving import data_url, picture_file

PREPROCESS = Preprocess(image_size=32)


def test_any_form_of_a_picture_gives_the_models_pixels():
    file = picture_file("red", size=(50, 40))
    for source in (data_url(file), base64.b64encode(file).decode(), file):
        pixels = decode_picture(source, "image", PREPROCESS)
        np.testing.assert_array_equal(pixels, PREPROCESS.pixels(file))


def photo(side: int) -> bytes:
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.full((side, side), 90)], axis=-1)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_a_small_one_in_full():
    least = math.ceil(FAST_MARGIN * PREPROCESS.image_size)
    assert open_image(photo(400), at_least=least).size == (50, 50)  # an eighth
    exact, scaled = (decode_picture(photo(side), "image", PREPROCESS) for side in (60, 400))
    np.testing.assert_array_equal(exact, PREPROCESS.pixels(photo(60)))
    assert np.abs(scaled.astype(int) - PREPROCESS.pixels(photo(400))).max() <= 8  # of 255; they differ, and little


def test_what_is_refused_is_named_as_the_request_calls_it():
    for source, limit, message in (
        ("?", 10, r"^input\[3\]: a picture must be base64"),
        (data_url(picture_file(size=(101, 100))), 10_000, r"^input\[3\] must have at most 10,000 pixels"),
        (b"\0" * 100, 10, r"^input\[3\] must be a picture"),
    ):
        with pytest.raises(ImageError, match=message):
            decode_picture(source, "input[3]", dataclasses.replace(PREPROCESS, max_pixels=limit))


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "JPEG", progressive=True)
    plain = file.getvalue()
    assert 5 < plain.count(b"\xff\xda") < 20
    assert decode_picture(plain, "image", PREPROCESS).shape == (32, 32, 3)
    start = plain.rindex(b"\xff\xda")  # the last scan, again and again
    bomb = plain[:-2] + plain[start:-2] * 1000 + plain[-2:]
    with pytest.raises(ImageError, match=r"^image must have at most 100 scans, and has 1,01\d") as refused:
        decode_picture(bomb, "image", PREPROCESS)
    assert refused.value.cause == "too slow"


@pytest.mark.parametrize(
    ("width", "height", "progressive", "message"),
    [
        (64, 62, False, ""),  # decoded at half its size: 992 pixels
        (64, 63, False, r"at most 1,000 pixels, or 4,000 where it is decoded at a part of its size. It has 64 x 63"),
        (40, 50, True, ""),
        (40, 51, True, r"at most 1,000 pixels. It has 40 x 51"),  # its coefficients are held whole
    ],
)
def test_a_jpeg_that_is_decoded_at_a_part_of_its_size_has_a_limit_by_its_header(
    width: int, height: int, progressive: bool, message: str
):
    file = picture_file(size=(width, height), kind="JPEG", progressive=progressive)
    preprocess = dataclasses.replace(PREPROCESS, max_pixels=1000)
    if not message:
        assert decode_picture(file, "image", preprocess).shape == (32, 32, 3)
        return
    with pytest.raises(ImageError, match=rf"^image must have {message}") as refused:
        decode_picture(file, "image", preprocess)
    assert refused.value.cause == "too large"


def test_a_jpeg_that_claims_more_than_it_holds_is_refused_undecoded():
    file = picture_file(size=(64, 62), kind="JPEG")
    at = file.index(b"\xff\xc0") + 5  # height and width of the frame's header
    with pytest.raises(ImageError, match=r"It has 65,500 x 65,500") as refused:
        decode_picture(file[:at] + b"\xff\xdc\xff\xdc" + file[at + 4 :], "image", PREPROCESS)
    assert refused.value.cause == "too large"
