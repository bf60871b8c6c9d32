import datetime
import io

import pytest
from PIL import Image

from diptych.data.facts import Facts, facts_of

ORIENTATION, MAKE, MODEL, DATE, EXIF, TAKEN, GPS = 0x0112, 0x010F, 0x0110, 0x0132, 0x8769, 0x9003, 0x8825


def photo(tags: dict[int, object], exif: dict[int, object] | None = None, gps: dict[int, object] | None = None):
    tree = Image.Exif()
    tree.update(tags)
    tree.get_ifd(EXIF).update(exif or {})
    tree.get_ifd(GPS).update(gps or {})
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG", exif=tree.tobytes())
    return Image.open(file)


def test_all_that_a_camera_tells_is_read():
    image = photo(
        {ORIENTATION: 6, MAKE: "Canon", MODEL: "Canon EOS 80D", DATE: "2024:01:01 00:00:00"},
        {TAKEN: "2023:06:30 12:34:56"},
        {1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 54.0)},
    )
    assert facts_of(image) == Facts(
        width=30,
        height=40,
        taken=datetime.datetime(2023, 6, 30, 12, 34, 56),
        camera="Canon EOS 80D",
        place=(-33.857, 151.215),
    )


@pytest.mark.parametrize(
    ("make", "model", "camera"), [("Apple", "iPhone 15", "Apple iPhone 15"), ("", "X", "X"), ("SONY", "", "SONY")]
)
def test_a_camera_is_its_maker_and_model_once(make, model, camera):
    assert facts_of(photo({MAKE: make, MODEL: model})).camera == camera


def test_the_date_of_the_file_stands_in_for_that_of_the_shot():
    assert facts_of(photo({DATE: "2024:01:02 03:04:05"})).taken == datetime.datetime(2024, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("exif", "gps"),
    [
        ({TAKEN: "0000:00:00 00:00:00"}, {}),
        ({TAKEN: "    "}, {1: "N", 2: (1.0, 2.0, 3.0)}),
        ({}, {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)}),
    ],
)
def test_what_makes_no_sense_counts_as_absent(exif, gps):
    assert facts_of(photo({}, exif, gps)) == Facts(width=40, height=30)


def test_damaged_metadata_costs_nothing():
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "WEBP", exif=b"Exif\0\0garbage")
    assert facts_of(Image.open(file)) == Facts(width=40, height=30)
