import hashlib
import io

import numpy as np
from PIL import Image

from diptych.data.images import Preprocess
from diptych.data.walk import FoundFile
from diptych.search import reading
from diptych.search.reading import read_file, thumbnail_of

PREPROCESS = Preprocess(image_size=32)


def test_a_picture_gives_pixels_facts_and_digest(tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    read = read_file(tmp_path, FoundFile("a.png", 0, 0), PREPROCESS)
    assert (read.facts.width, read.facts.height, read.fault, read.times) == (64, 48, None, (None,))
    assert read.digest == hashlib.sha256((tmp_path / "a.png").read_bytes()).digest()
    np.testing.assert_array_equal(read.pixels[0], PREPROCESS.pixels(tmp_path / "a.png"))
    assert read_file(tmp_path, read.found, PREPROCESS, {read.digest}).pixels == ()


def test_what_cannot_be_read_has_a_fault(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert "must be a picture" in str(read_file(tmp_path, FoundFile("bad.png", 0, 0), PREPROCESS).fault)
    assert "cannot be opened: No such file" in str(read_file(tmp_path, FoundFile("gone.png", 0, 0), PREPROCESS).fault)


def test_a_long_video_is_known_by_its_ends_and_length(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_WHOLE", 8)
    digests = set()
    for content in (b"12345678", b"1234....5678", b"1234....567x", b"1234.....5678", b"x234....5678"):
        (tmp_path / "film.mp4").write_bytes(content)
        digests.add(reading._digest_of_video(tmp_path / "film.mp4"))
    assert len(digests) == 5


def test_a_thumbnail_keeps_the_shape_and_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg", exif=exif)
    image = Image.open(io.BytesIO(thumbnail_of(tmp_path / "a.jpg", side=100)))
    assert (image.size, image.format) == ((75, 100), "JPEG")
