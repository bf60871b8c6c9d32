import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from diptych.data.images import Preprocess, open_image
from diptych.data.raw import RAW_ENDINGS, is_raw
from diptych.errors import ImageError

COLOUR = (200, 60, 30)


def jpeg(width, height, colour=COLOUR):
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def raw(mark=b"II*\0", *, turned=1, sensor=(262, 32803), parts=(), decoy=b"", place_of_decoy=273):
    """A raw file by formula: a first directory with maker and orientation, one of the sensor's image, and JPEGs."""
    order = "<" if mark[:2] == b"II" else ">"

    def entry(tag, kind, value):
        packed = struct.pack(f"{order}Hxx", value) if kind == 3 else struct.pack(f"{order}I", value)
        return struct.pack(f"{order}HHI", tag, kind, 1) + packed

    first, second = 8, 8 + 2 + 12 * 5 + 4
    text = second + 2 + 12 * 4 + 4
    at = text + 16
    maker = struct.pack(f"{order}HHII", 271, 2, 5, text)
    first_tags = [entry(256, 4, 160), entry(257, 4, 120), maker, entry(274, 3, turned), entry(330, 4, second)]
    second_tags = [
        entry(256, 4, 6000),
        entry(257, 4, 4000),
        entry(sensor[0], 3, sensor[1]),
        entry(place_of_decoy, 4, at),
    ]
    pack = lambda tags: struct.pack(f"{order}H", len(tags)) + b"".join(tags) + bytes(4)  # noqa: E731
    head = mark + struct.pack(f"{order}I", first) + pack(first_tags) + pack(second_tags) + b"ACME\0".ljust(16, b"\0")
    assert len(head) == at
    return head + decoy.ljust(64, b"\1") + b"\7" * 100 + b"\7".join(parts) + b"\7" * 50


def middle(source):
    return np.array(open_image(source))[10, 10].tolist()


@pytest.mark.parametrize("mark", [b"II*\0", b"MM\0*", b"IIRO", b"MMOR", b"IIU\0"])
def test_the_largest_jpeg_serves_turned_as_the_raw_file_says(mark):
    data = raw(mark, turned=6, parts=(jpeg(160, 120, "blue"), jpeg(640, 480), jpeg(320, 240, "blue")))
    image = open_image(data)
    assert image.size == (480, 640)
    assert np.abs(np.subtract(middle(data), COLOUR)).max() < 8
    pixels, facts = Preprocess(image_size=32).fast_pixels(data, "a.nef")
    assert np.abs(pixels.astype(int) - COLOUR).max() < 8
    assert (facts.width, facts.height, facts.camera) == (4000, 6000, "ACME")


@pytest.mark.parametrize("place", [273, 324])
def test_a_jpeg_that_is_a_part_of_the_sensors_image_is_no_preview(place):
    data = raw(decoy=jpeg(800, 600, "blue"), place_of_decoy=place, sensor=(262, 34892), parts=(jpeg(320, 240),))
    assert np.abs(np.subtract(middle(data), COLOUR)).max() < 8
    assert open_image(data).size == (320, 240)


def test_a_lossless_jpeg_is_no_preview():
    large = bytearray(jpeg(800, 600))
    large[large.index(b"\xff\xc0") + 1] = 0xC3
    assert open_image(raw(parts=(bytes(large), jpeg(320, 240)))).size == (320, 240)


def test_a_fujifilm_and_a_canon_file_are_searched_as_well(tmp_path):
    (tmp_path / "a.raf").write_bytes(b"FUJIFILMCCD-RAW 0201" + bytes(100) + jpeg(320, 240) + bytes(500))
    assert open_image(tmp_path / "a.raf").size == (320, 240)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 8, "Canon"
    box = lambda kind, content: struct.pack(">I", 8 + len(content)) + kind + content  # noqa: E731
    canon = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    details = Image.Exif()
    details[0x9003] = "2021:05:06 07:08:09"
    cmt = box(b"CMT1", exif.tobytes()[6:]) + box(b"CMT2", details.tobytes()[6:])
    data = (
        box(b"ftyp", b"crx \0\0\0\1crx isom") + box(b"moov", box(b"uuid", canon + cmt)) + box(b"mdat", jpeg(320, 240))
    )
    assert open_image(data).size == (240, 320)
    facts = Preprocess(image_size=32).fast_pixels(data, "a.cr3")[1]
    assert (facts.camera, str(facts.taken)) == ("Canon", "2021-05-06 07:08:09")


def test_a_tiff_is_raw_by_its_tags_or_its_ending():
    file = io.BytesIO()
    Image.new("RGB", (4, 4), COLOUR).save(file, "TIFF")
    for data, name, expected in (
        (file.getvalue(), "a.tif", False),
        (file.getvalue(), "a.NEF", True),
        (raw(), "<bytes>", True),
        (b"II*\0", "a.tif", False),
        (jpeg(8, 8), "a.nef", False),
    ):
        assert is_raw(io.BytesIO(data), data[:512], name) is expected
    assert middle_of_tiff(file.getvalue()) == list(COLOUR)
    assert len(set(RAW_ENDINGS)) == len(RAW_ENDINGS)


def middle_of_tiff(data):
    return np.array(open_image(data))[2, 2].tolist()


def test_a_raw_file_without_a_preview_is_refused_and_a_cut_one_is_cut():
    with pytest.raises(ImageError, match="without a JPEG within") as raised:
        open_image(raw())
    assert raised.value.cause == "unsupported"
    whole = raw(parts=(jpeg(640, 480),))
    with pytest.raises(ImageError) as raised:
        open_image(whole[: len(whole) - 1500])
    assert raised.value.cause == "truncated"


@pytest.mark.parametrize("seed", range(30))
def test_damage_anywhere_gives_a_picture_or_a_sentence(seed):
    data = bytearray(raw(turned=3, parts=(jpeg(320, 240),)))
    random = np.random.default_rng(seed)
    for place in random.integers(4, len(data), 20):
        data[place] = random.integers(256)
    with contextlib.suppress(ImageError):
        assert open_image(bytes(data)).mode == "RGB"
