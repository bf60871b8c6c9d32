import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diptych.data.decoding import Header, read_header
from diptych.data.images import Preprocess, open_image
from diptych.errors import ConfigError, ImageError

SCREEN = Preprocess(image_size=8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width, height):
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, x * 0 + 128], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize(("limit", "scale"), [(400 * 300, 1), (400 * 300 - 1, 2), (15_000, 4), (2_000, 8)])
def test_the_limit_is_for_what_is_decoded(kind, limit, scale):
    picture = gradient(400, 300)
    image = open_image(encoded(picture, kind), max_pixels=limit)
    assert image.size == (-(-400 // scale), -(-300 // scale)) if kind == "JPEG" else image.width == 400 // scale
    small = np.array(picture.resize(image.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(small - np.array(image)).mean() < 4


def test_both_paths_take_a_picture_of_108_megapixels(tmp_path):
    (tmp_path / "phone.jpg").write_bytes(encoded(Image.new("RGB", (12_000, 9_000), (200, 60, 30)), "JPEG"))
    data = (tmp_path / "phone.jpg").read_bytes()
    assert np.abs(SCREEN.pixels(tmp_path / "phone.jpg").astype(int) - (200, 60, 30)).max() < 4
    pixels, facts = SCREEN.fast_pixels(data, "phone.jpg")
    assert np.abs(pixels.astype(int) - (200, 60, 30)).max() < 4
    assert (facts.width, facts.height) == (12_000, 9_000)


def test_a_progressive_jpeg_may_have_twice_the_limit():
    """Its coefficients are held whole, whatever the scale: a file of kilobytes could ask for gigabytes."""
    data = encoded(gradient(400, 300), "JPEG", progressive=True)
    assert open_image(data, max_pixels=60_000).size == (200, 150)
    with pytest.raises(ImageError, match=r"at most 59,999 pixels. It has 400 x 300"):
        open_image(data, max_pixels=59_999)


def test_the_limit_is_an_option_of_the_recipe():
    data = encoded(gradient(40, 30))
    for read in (lambda p: p.pixels(data), lambda p: p.fast_pixels(data, "a")):
        with pytest.raises(ImageError, match="at most 1,199 pixels") as raised:
            read(Preprocess(image_size=8, max_pixels=1199))
        assert raised.value.cause == "too large"
        read(Preprocess(image_size=8, max_pixels=1200))
    with pytest.raises(ConfigError, match="max_pixels must be at least 1"):
        Preprocess(image_size=8, max_pixels=0)
    assert "max_pixels" not in Preprocess(image_size=8).to_hf()


def test_a_bomb_is_refused_before_anything_is_decoded():
    """144 MB of pixels in a megabyte: memory stays far below them, by both paths."""
    code = (
        "import io, resource, zlib, struct\n"
        "from diptych.data.images import Preprocess, open_image\n"
        "from diptych.errors import ImageError\n"
        "c = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))\n"
        "z = zlib.compressobj(1)\n"
        "body = b''.join(z.compress(bytes(12_001)) for _ in range(12_000)) + z.flush()\n"
        "png = b'\\x89PNG\\r\\n\\x1a\\n' + c(b'IHDR', struct.pack('>IIBBBBB', 12_000, 12_000, 8, 0, 0, 0, 0))\n"
        "png += c(b'IDAT', body) + c(b'IEND', b'')\n"
        "icon = struct.pack('<3H4B2H2I', 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for data in (png, icon):\n"
        "    for read in (open_image, lambda d: Preprocess(image_size=8).fast_pixels(d, 'a')):\n"
        "        try:\n"
        "            read(data)\n"
        "        except ImageError as error:\n"
        "            assert error.cause == 'too large', error\n"
        "        else:\n"
        "            raise AssertionError\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "QOI", "AVIF", "JPEG2000"])
def test_what_is_cut_short_is_refused_alike_by_both_paths(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)[:-300]
    causes = []
    for read in (open_image, lambda d: SCREEN.fast_pixels(d, "a")):
        with pytest.raises(ImageError) as raised:
            read(data)
        causes.append(raised.value.cause)
        assert "\n" not in str(raised.value)
    assert causes[0] == causes[1]


def test_a_targa_is_known_by_its_footer_or_its_name(tmp_path):
    data = encoded(gradient(6, 5), "TGA")
    assert data.endswith(b"TRUEVISION-XFILE.\0")
    np.testing.assert_array_equal(np.array(open_image(data)), np.array(gradient(6, 5)))
    old = data[: 18 + 6 * 5 * 3]  # of before 1989
    with pytest.raises(ImageError) as raised:
        open_image(old)
    assert raised.value.cause == "not an image"
    (tmp_path / "a.TGA").write_bytes(old)
    assert open_image(tmp_path / "a.TGA").size == (6, 5)
    (tmp_path / "b.tga").write_bytes(b"just a text that is long enough")
    with pytest.raises(ImageError) as raised:
        open_image(tmp_path / "b.tga")
    assert raised.value.cause == "not an image"


def test_an_icon_gives_its_largest_picture():
    both = encoded(Image.new("RGBA", (64, 64), (200, 60, 30, 255)), "ICO", sizes=[(16, 16), (64, 64)])
    assert open_image(both).size == (64, 64)
    assert np.array(open_image(both))[9, 9].tolist() == [200, 60, 30]
    lies = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(encoded(gradient(40, 30))), 22)
    assert open_image(lies + encoded(gradient(40, 30))).size == (40, 30)


def test_libraries_say_nothing_on_the_terminal(tmp_path):
    """libtiff and Pillow write about odd files by themselves; here faults are sentences."""
    tiff = bytearray(encoded(gradient(40, 30), "TIFF", compression="tiff_lzw"))
    tiff[8:600] = bytes(592)
    many = encoded(gradient(4, 3), "TIFF").replace(
        struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 3, 1, 65_535)
    )
    (tmp_path / "a.tif").write_bytes(tiff)
    (tmp_path / "b.tif").write_bytes(many)
    code = (
        "import sys\nfrom diptych.data.images import open_image\nfrom diptych.errors import ImageError\n"
        "for name in sys.argv[1:]:\n    try:\n        open_image(name)\n    except ImageError:\n        pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    assert subprocess.run(command, capture_output=True, timeout=120).stderr == b""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM", "ICO"])
def test_a_header_tells_a_picture_before_its_pixels(kind):
    head = read_header(encoded(gradient(60, 40), kind, **({"sizes": [(60, 40)]} if kind == "ICO" else {})), "a")
    assert (head.width, head.height, head.orientation) == (60, 40, 1)
    assert head.format == (kind if kind != "ICO" else "PNG")


def test_a_header_tells_how_a_picture_lies_and_its_size_as_it_is_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(60, 40), "JPEG", exif=exif)
    assert read_header(data, "a") == Header(format="JPEG", width=60, height=40, orientation=6)
    assert read_header(data[:-100], "a").orientation == 6  # of the pixels it knows nothing
    exif[0x0112] = 77
    assert read_header(encoded(gradient(60, 40), "JPEG", exif=exif), "a").orientation == 1


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty"),
        (b"<!doctype html><html>", "not an image"),
        (b"<svg/>", "unsupported"),
        (encoded(gradient(60, 40))[:20], "truncated"),
        (encoded(gradient(60, 40), "WEBP")[:-9], "truncated"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_header_for_the_cause_that_decoding_gives(data, cause):
    for read in (lambda: read_header(data, "a"), lambda: open_image(data)):
        with pytest.raises(ImageError) as raised:
            read()
        assert raised.value.cause == cause
