import datetime
import io

import pytest
from PIL import Image

from diptych.data.facts import Facts, facts_of, place_of_iso_6709
from diptych.data.images import Preprocess, open_image

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
        format="JPEG",
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
    assert facts_of(photo({}, exif, gps)) == Facts(width=40, height=30, format="JPEG")


def test_damaged_metadata_costs_nothing():
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "WEBP", exif=b"Exif\0\0garbage")
    assert facts_of(Image.open(file)) == Facts(width=40, height=30, format="WEBP")


GOOD, MOMENT = "2021:05:06 07:08:09", datetime.datetime(2021, 5, 6, 7, 8, 9)
DIGITIZED = 0x9004


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (GOOD, MOMENT),
        (GOOD + "\0", MOMENT),
        (GOOD + "+0000", MOMENT),
        (GOOD + ".27-05:30", MOMENT),
        (GOOD + "Z", MOMENT),
        ("2021-05-06 07:08:09", MOMENT),
        ("2021-05-06T07:08:09.123+02:00", MOMENT),
        ("2021/05/06 07:08:09", MOMENT),
        ("20210506T070809", MOMENT),
        ("2021:05:06 07:08", MOMENT.replace(second=0)),
        ("2021:05:06", datetime.datetime(2021, 5, 6)),
        ("2021:05:06 24:00:00", datetime.datetime(2021, 5, 6)),
        ("2021:05:06 07:08:60", MOMENT.replace(second=59)),
        ("0000:00:00 00:00:00", None),
        ("2021:13:06 07:08:09", None),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
        ("2021", None),
    ],
)
def test_dates_are_read_as_cameras_write_them(text, moment):
    assert facts_of(photo({}, {TAKEN: text})).taken == moment


def test_the_moment_of_the_shot_comes_first_and_a_bad_field_hides_none():
    other = "2024:01:02 03:04:05"
    zero = "0000:00:00 00:00:00"
    assert facts_of(photo({DATE: other}, {DIGITIZED: GOOD})).taken == MOMENT
    assert facts_of(photo({DATE: GOOD}, {TAKEN: zero, DIGITIZED: "   "})).taken == MOMENT
    assert facts_of(photo({DATE: other}, {TAKEN: GOOD, DIGITIZED: other})).taken == MOMENT
    utc = {29: "2021:05:06", 7: (7.0, 8.0, 9.0)}
    assert facts_of(photo({}, {TAKEN: zero}, utc)).taken == MOMENT
    assert facts_of(photo({}, {}, {29: "2021:05:06"})).taken == datetime.datetime(2021, 5, 6)


def test_texts_end_at_their_nul_and_lose_their_blanks():
    assert facts_of(photo({MAKE: "NIKON\0CORPORATION  ", MODEL: " D70\0\0rest"})).camera == "NIKON D70"


N, E = "N", "E"
D48, D2 = (48.0, 51.0, 30.0), (2.0, 17.0, 24.0)


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        ({1: "n\0", 2: D48, 3: "w", 4: D2}, (48.858333, -2.29)),
        ({1: "South", 2: D48, 3: "West", 4: D2}, (-48.858333, -2.29)),
        ({1: "S", 2: (-48.0, 30.0), 3: E, 4: (2.25,)}, (-47.5, 2.25)),  # the sign is said twice
        ({1: N, 2: (48.5,), 3: E, 4: (2.0, 15.0)}, (48.5, 2.25)),
        ({1: E, 2: D2, 3: N, 4: D48}, (48.858333, 2.29)),  # the two taken for each other
        ({2: D48, 3: E, 4: D2}, None),
        ({1: N, 2: D48, 4: D2}, None),
        ({1: "", 2: D48, 3: "?", 4: D2}, None),
        ({1: N, 2: (181.0, 0.0, 0.0), 3: E, 4: D2}, None),
        ({1: N, 2: (float("nan"), 0.0, 0.0), 3: E, 4: D2}, None),
        ({1: N, 2: "48", 3: E, 4: D2}, None),
    ],
)
def test_a_place_needs_both_numbers_and_both_hemispheres(gps, place, monkeypatch):
    image = Image.new("RGB", (4, 4))
    exif = Image.Exif()
    exif.get_ifd(GPS).update(gps)
    monkeypatch.setattr("diptych.data.facts.exif_of", lambda _: exif)  # as read: a file could not hold some of these
    assert facts_of(image).place == place


def test_xmp_tells_what_exif_does_not():
    xmp = (
        '<rdf:Description exif:GPSLatitude="48,51.5N" exif:GPSLongitude="2,17,24W" tiff:Model="X &amp; Y" '
        'tiff:Make="ACME"><photoshop:DateCreated>2021-05-06T07:08:09</photoshop:DateCreated></rdf:Description>'
    )
    image = photo({})
    image.info["xmp"] = xmp.encode()
    facts = facts_of(image)
    assert (facts.taken, facts.camera, facts.place) == (MOMENT, "ACME X & Y", (48.858333, -2.29))
    image = photo({MAKE: "Other"}, {TAKEN: "2020:01:01 00:00:00"})
    image.info["xmp"] = xmp.encode()
    assert (facts_of(image).taken, facts_of(image).camera) == (datetime.datetime(2020, 1, 1), "Other")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_upright_in_every_format(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, kind, exif=exif)
    pixels, facts = Preprocess(image_size=8).fast_pixels(file.getvalue(), "a")
    assert pixels.shape == (8, 8, 3)
    assert (facts.width, facts.height) == ((40, 30) if orientation < 5 else (30, 40))
    assert open_image(file.getvalue()).size == (facts.width, facts.height)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("+48.8577+002.2950+035.000/", (48.8577, 2.295)),
        ("-33.8568+151.2153/", (-33.8568, 151.2153)),
        ("+4851.5-00217.4/", (48.858333, -2.29)),
        ("+485130+0021724/", (48.858333, 2.29)),
        ("+91.0+002.0/", None),
        ("Paris", None),
        ("", None),
    ],
)
def test_places_of_videos_are_read(text, place):
    assert place_of_iso_6709(text) == place
