import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from browsing import PARIS, Shot, jpeg_of
from diptych.data.facts import facts_of
from diptych.data.strip_location import without_location
from diptych.errors import DataError

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf exif:GPSLatitude="48,51.6N" exif:GPSLongitude="2,21E"/></x:xmpmeta>'
SHOT = Shot("a.jpg", "blue", "2021:07:01 10:00:00", "Canon EOS", PARIS, (64, 48))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(opened(data).convert("RGB"))


def test_the_place_goes_and_all_else_stays():
    data = jpeg_of(SHOT)
    out = without_location(data)
    assert len(out) == len(data)
    before, after = facts_of(opened(data)), facts_of(opened(out))
    assert before.place == pytest.approx(PARIS)
    assert after.place is None
    assert (after.taken, after.camera, after.width) == (before.taken, before.camera, 64)
    assert (pixels(out) == pixels(data)).all()
    assert opened(out).getexif().get_ifd(IFD.GPSInfo) == {}
    assert without_location(out) == out


@pytest.mark.parametrize("order", ["II", "MM"])
def test_both_orders_of_bytes_are_read_and_maker_notes_go(order: str):
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    details: dict[int, Any] = exif.get_ifd(IFD.Exif)
    details.update({Base.DateTimeOriginal: "2021:07:01 10:00:00", Base.MakerNote: b"Landmark: Eiffel Tower"})
    gps: dict[int, Any] = exif.get_ifd(IFD.GPSInfo)
    gps.update({1: "N", 2: (48.0, 51.0, 36.0), 3: "E", 4: (2.0, 21.0, 0.0), 28: b"ASCII\0\0\0a street of Paris"})
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "JPEG", exif=exif)
    data = file.getvalue()
    assert data[data.index(b"Exif\0\0") + 6 :][:2] == order.encode()
    out = without_location(data)
    assert facts_of(opened(out)).place is None
    assert str(facts_of(opened(out)).taken) == "2021-07-01 10:00:00"
    for told in (b"Eiffel", b"street of Paris"):
        assert told in data
        assert told not in out


def segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + (len(body) + 2).to_bytes(2) + body


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def test_a_thumbnail_loses_the_place_that_it_or_its_directory_tells():
    small = jpeg_of(SHOT)
    tiff = b"II*\0" + struct.pack("<I", 8)
    tiff += struct.pack("<H", 1) + entry(Base.Orientation, 3, 1, 1) + struct.pack("<I", 26)  # the picture's, no place
    first = 26 + 2 + 3 * 12 + 4
    tiff += struct.pack("<H", 3) + entry(0x8825, 4, 1, first) + entry(0x0201, 4, 1, first + 18 + 10)
    tiff += entry(0x0202, 4, 1, len(small)) + bytes(4)
    place = struct.pack("<H", 1) + entry(29, 2, 10, first + 18) + bytes(4)  # a date, which lies behind
    tiff += place + b"2021:07:01" + small
    plain = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(plain, "JPEG")
    data = plain.getvalue()[:2] + segment(0xE1, b"Exif\0\0" + tiff) + plain.getvalue()[2:]
    out = without_location(data)
    assert (len(out), b"2021:07:01\xff\xd8" in data, b"2021:07:01\xff\xd8" in out) == (len(data), True, False)
    at = out.index(b"\xff\xd8", 2)
    thumbnail = out[at : at + len(small)]
    assert thumbnail == without_location(small) != small
    assert opened(out).getexif()[Base.Orientation] == 1


def test_credentials_and_comments_within_exif_go_and_the_profile_of_colours_stays():
    exif = Image.Exif()
    details: dict[int, Any] = exif.get_ifd(IFD.Exif)
    details[Base.UserComment] = b"ASCII\0\0\0by the Eiffel Tower"
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "JPEG", exif=exif, icc_profile=b"a profile")
    data = file.getvalue()
    data = data[:2] + segment(0xEB, b"JP\0\1 c2pa stds.exif GPSLatitude 48") + data[2:]
    out = without_location(data)
    for told in (b"Eiffel", b"GPSLatitude"):
        assert (told in data, told in out) == (True, False)
    assert opened(out).info["icc_profile"] == b"a profile"
    assert (pixels(out) == pixels(data)).all()


def test_xmp_iptc_comments_and_what_follows_the_picture_become_zeros():
    data = jpeg_of(SHOT)
    told = [
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"GPS of Paris"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\x0a\x1c\x02\x5a\0\x05Paris"),
        segment(0xFE, b"at the Eiffel Tower"),
    ]
    behind = jpeg_of(SHOT) + b"ftypmp42 +48.8577+002.2950/"  # a second picture, and the film of a moving photo
    whole = data[:2] + b"".join(told) + data[2:] + behind
    assert facts_of(opened(whole)).place is not None
    out = without_location(whole)
    assert len(out) == len(whole)
    assert facts_of(opened(out)).place is None
    assert (pixels(out) == pixels(data)).all()
    for word in (b"Paris", b"GPS", b"Eiffel", b"002.2950"):
        assert word not in out
    assert out[-len(behind) :] == bytes(len(behind))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_scan_is_gone_through_to_its_end(progressive: bool):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95, progressive=progressive, restart_marker_rows=1)
    data = file.getvalue()
    assert without_location(data) == data
    assert without_location(data + b"Paris") == data + bytes(5)


def test_exif_that_cannot_be_read_goes_as_a_whole():
    data = jpeg_of(SHOT)
    start = data.index(b"Exif\0\0") + 6
    for damage in (b"XX", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff"):
        broken = data[:start] + damage + data[start + len(damage) :]
        out = without_location(broken)
        assert len(out) == len(broken)
        assert facts_of(opened(out)).place is None
        assert not opened(out).getexif()


@pytest.mark.parametrize("cut", [3, 20, 40, 200, 400])
def test_a_file_that_breaks_off_is_no_fault(cut: int):
    data = jpeg_of(SHOT)[:cut]
    assert len(without_location(data)) == cut


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"RIFF"])
def test_another_kind_is_refused(data: bytes):
    with pytest.raises(DataError, match="a JPEG must begin with FF D8"):
        without_location(data)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_place_of_any_length_and_offset_is_no_fault(tmp_path: Path):
    """Every byte of EXIF set to 255 in turn: the place is gone, or Pillow reads none."""
    data = jpeg_of(SHOT)
    start = data.index(b"Exif\0\0") + 6
    end = start - 8 + int.from_bytes(data[start - 8 : start - 6])
    for at in range(start, end):
        broken = data[:at] + b"\xff" + data[at + 1 :]
        out = without_location(broken)
        assert len(out) == len(broken)
        assert facts_of(opened(out)).place is None, at - start
