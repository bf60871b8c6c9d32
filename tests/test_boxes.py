import io
import struct

import numpy as np
import pytest
from PIL import Image

from diptych.data.boxes import Box, boxes, clean_aperture, picture_properties, whole
from diptych.data.images import Preprocess, open_image
from diptych.data.profiles import pq_to_light


def box(kind, content):
    return struct.pack(">I", 8 + len(content)) + kind + content


def with_property(data, kind, content):
    """An AVIF of Pillow's with one more property of its picture; places of pixels are moved along."""
    file = io.BytesIO(data)
    (meta,) = [found for found in boxes(file, *whole(file)[1:]) if found.kind == b"meta"]
    new = box(kind, content)
    at_ipco, at_ipma = data.index(b"ipco") - 4, data.index(b"ipma") - 4
    size = int.from_bytes(data[at_ipco : at_ipco + 4], "big")
    table = bytearray(data[at_ipma : at_ipma + int.from_bytes(data[at_ipma : at_ipma + 4], "big")])
    count = sum(1 for _ in boxes(file, at_ipco + 8, at_ipco + size))
    table[18] += 1  # associations of the first item: size, kind, flags, entries, item
    table += bytes([0x80 | (count + 1)])
    struct.pack_into(">I", table, 0, len(table))
    more = len(new) + 1
    out = bytearray(data[: at_ipco + size] + new + bytes(table) + data[at_ipma + len(table) - 1 :])
    for place, grown in ((at_ipco, len(new)), (data.index(b"iprp") - 4, more), (meta.start - 8, more)):
        struct.pack_into(">I", out, place, int.from_bytes(out[place : place + 4], "big") + grown)
    iloc = out.index(b"iloc") + 8  # size of offsets and lengths, items, then item, reference, extents, offset
    offset = iloc + 2 + 2 + 2 + 2 + 2
    struct.pack_into(">I", out, offset, int.from_bytes(out[offset : offset + 4], "big") + more)
    return bytes(out)


def clap(width, height, right, down):
    return struct.pack(">IIIIiIiI", width, 1, height, 1, *right, *down)


@pytest.fixture
def avif():
    """40 x 30, its left quarter red, the rest blue."""
    pixels = np.full((30, 40, 3), (0, 0, 255), np.uint8)
    pixels[:, :10] = (255, 0, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=100, subsampling="4:4:4", range="full")
    return file.getvalue()


def test_what_clap_cuts_away_is_gone(avif):
    data = with_property(avif, b"clap", clap(30, 20, (5, 1), (0, 1)))
    assert (b"clap", clap(30, 20, (5, 1), (0, 1))) in picture_properties(io.BytesIO(data))
    image = open_image(data)
    assert image.size == (30, 20)
    assert np.array(image)[:, 0, 2].min() > 200  # no red is left
    facts = Preprocess(image_size=8).fast_pixels(data, "a.avif")[1]
    assert (facts.width, facts.height) == (30, 20)


def test_code_points_are_followed():
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (120, 120, 120)).save(file, "AVIF", quality=100, range="full")
    srgb = file.getvalue()
    at = srgb.index(b"nclx") + 4
    pq = srgb[:at] + struct.pack(">HH", 9, 16) + srgb[at + 4 :]  # BT.2020, PQ
    assert np.abs(np.array(open_image(srgb)).astype(int) - 120).max() <= 2
    light = pq_to_light(np.array([120 / 255]))[0] / 203  # of paper white
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(np.array(open_image(pq)) - expected).max() <= 4


def test_an_aperture_is_worked_by_hand():
    assert clean_aperture(clap(2, 1, (-1, 1), (1, 2)), 4, 2) == (0, 1, 2, 2)
    for wrong in (clap(4, 2, (0, 1), (0, 1)), clap(5, 2, (0, 1), (0, 1)), clap(2, 2, (9, 1), (0, 1)), bytes(32), b""):
        assert clean_aperture(wrong, 4, 2) is None


def test_damaged_boxes_end_the_search():
    for data in (
        b"",
        b"\0\0\0\1",
        b"\0\0\0\7meta",
        b"\xff\xff\xff\xffmeta",
        box(b"meta", bytes(4) + box(b"pitm", b"")),
    ):
        assert picture_properties(io.BytesIO(data)) == []
    nested = box(b"a   ", box(b"b   ", b"xy")) + struct.pack(">I4sQ", 1, b"c   ", 18) + b"zz"
    assert list(boxes(io.BytesIO(nested), 0, len(nested))) == [Box(b"a   ", 8, 18), Box(b"c   ", 34, 36)]
