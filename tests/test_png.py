import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diptych.data import png
from diptych.data.images import Preprocess, open_image
from diptych.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" xmp:CreateDate="2021-05-06T07:08:09+02:00"/></x:xmpmeta>'


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def plain():
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


def beside(*chunks, behind=False):
    """A PNG with chunks before its pixels, or behind them."""
    data = plain()
    at = len(data) - 12 if behind else 33
    return data[:at] + b"".join(chunks) + data[at:]


def exif(**tags):
    tree = Image.Exif()
    tree[0x0112], tree[0x0132] = tags.get("turned", 6), "2021:05:06 07:08:09"
    return tree.tobytes()


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    "aside",
    [
        chunk(b"eXIf", exif()[6:]),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  99\n" + exif().hex().encode())),
    ],
)
def test_metadata_counts_before_and_behind_the_pixels(aside, behind):
    data = beside(aside, behind=behind)
    np.testing.assert_array_equal(np.array(open_image(data)), np.rot90(PIXELS, -1))
    facts = Preprocess(image_size=8).fast_pixels(data, "a.png")[1]
    assert (facts.width, facts.height, str(facts.taken)) == (30, 40, "2021-05-06 07:08:09")


def test_long_or_damaged_text_does_not_cost_the_picture():
    bomb = zlib.compress(bytes(40_000_000))
    for aside in (
        chunk(b"zTXt", b"workflow\0\0" + bomb),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        chunk(b"iCCP", b"x\0\0" + bomb),
        chunk(b"iCCP", b"x\0\0broken"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n9\nno digits")),
        chunk(b"eXIf", b"garbage"),
        chunk(b"cICP", b""),
        struct.pack(">I", 3) + b"tEXt" + b"a\0b" + b"sum!",
    ):
        np.testing.assert_array_equal(np.array(open_image(beside(aside))), PIXELS)


def test_a_file_without_metadata_is_handed_on_as_it_is():
    assert png.part(plain()) == (plain(), {})


def test_facts_are_read_without_decoding(monkeypatch):
    loads = []
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: loads.append(self) or 1 / 0)
    with pytest.raises(ImageError):
        Preprocess(image_size=8).fast_pixels(plain(), "a.png")
    assert len(loads) == 1  # by decoding alone, not by the search for EXIF


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_damaged_pixels_are_refused_alike_by_every_path(share, tmp_path):
    data = bytearray(plain())
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    place = at + 4 + int(size * share)
    data[place : place + 40] = bytes(40)
    data[at + 4 + size : at + 8 + size] = struct.pack(">I", zlib.crc32(data[at : at + 4 + size]))
    causes = []
    (tmp_path / "a.png").write_bytes(data)
    for read in (open_image, Preprocess(image_size=8).pixels, lambda d: Preprocess(image_size=8).fast_pixels(d, "a")):
        with pytest.raises(ImageError) as raised:
            read(bytes(data))
        causes.append(raised.value.cause)
    assert len(set(causes)) == 1
