import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from diptych.data.images import open_image
from diptych.data.profiles import BT709, D65, adobe_rgb_profile, cicp_profile, matrix_profile, srgb_to_linear

P3 = cicp_profile(12, 13)
PATCH = (100, 140, 120)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunks(*parts):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def png(bits, colour_type, samples, *before):
    """A PNG of one row, its samples packed by hand, with chunks before the pixels."""
    width, data = samples
    head = struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0)
    return chunks((b"IHDR", head), *before, (b"IDAT", zlib.compress(b"\0" + data)), (b"IEND", b""))


def tiff(tags, pixels):
    """A TIFF of one strip; tags are (number, value) of one short or long, or (number, several shorts)."""
    tags = [*tags, (273, 0), (278, 1), (279, len(pixels))]
    extra, entries, strip = b"", [], 8
    behind = strip + len(pixels)
    for tag, value in sorted(tags):
        if tag == 273:
            value = strip
        if isinstance(value, tuple):
            entries.append(struct.pack("<HHII", tag, 3, len(value), behind + len(extra)))
            extra += struct.pack(f"<{len(value)}H", *value)
        else:
            entries.append(struct.pack("<HHII", tag, 4, 1, value))
    ifd = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", behind + len(extra)) + pixels + extra + ifd


def row(source):
    return np.array(open_image(source))[0].tolist()


def reference(image, profile):
    to = ImageCms.createProfile("sRGB")
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return np.array(ImageCms.profileToProfile(image, source, to, 1, "RGB", flags=flags)).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_a_profile_is_followed_in_every_format(kind):
    image = Image.new("RGB", (16, 16), PATCH)
    plain, profiled = (np.array(open_image(encoded(image, kind, quality=95, **more))).astype(int)
                       for more in ({}, {"icc_profile": P3}))  # fmt: skip
    stored = Image.fromarray(plain.astype(np.uint8))
    np.testing.assert_array_equal(profiled, reference(stored, P3))
    assert np.abs(profiled - plain).max() > 10


def test_an_srgb_profile_of_any_writer_changes_no_pixel():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
                    matrix_profile(BT709, D65, srgb_to_linear)):  # fmt: skip
        np.testing.assert_array_equal(np.array(open_image(encoded(noise, icc_profile=profile))), np.array(noise))


@pytest.mark.parametrize("damage", [b"", b"no profile", P3[:300], P3[:128] + bytes(400), b"\xff" * 500])
def test_a_damaged_profile_counts_as_srgb(damage):
    assert row(encoded(Image.new("RGB", (1, 1), PATCH), icc_profile=damage)) == [list(PATCH)]


def test_a_profile_of_another_kind_of_picture_is_left_aside():
    assert row(encoded(Image.new("L", (1, 1), 77), icc_profile=P3)) == [[77] * 3]
    assert row(encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF", icc_profile=P3)) == [[255, 0, 0]]


def test_alpha_is_laid_over_white_in_srgb():
    clear = Image.new("RGBA", (1, 1), (*PATCH, 128))
    opaque = np.array(row(encoded(Image.new("RGB", (1, 1), PATCH), icc_profile=P3))[0])
    mixed = np.array(row(encoded(clear, icc_profile=P3))[0])
    assert np.abs(mixed - (opaque * 128 + 255 * 127) / 255).max() <= 1
    palette = Image.new("P", (1, 1))
    palette.putpalette(PATCH)
    assert row(encoded(palette, icc_profile=P3)) == [opaque.tolist()]


def test_grey_follows_a_grey_profile():
    grey = bytearray(matrix_profile(BT709, D65, lambda signal: signal))  # linear light
    grey[16:20] = b"GRAY"
    grey = bytes(grey).replace(b"rTRC", b"kTRC")
    for image, alpha in ((Image.new("L", (1, 1), 55), 255), (Image.new("LA", (1, 1), (55, 51)), 51)):
        expected = (128 * alpha + 255 * (255 - alpha)) / 255
        assert np.abs(np.array(row(encoded(image, icc_profile=grey))[0]) - expected).max() <= 1


def test_png_names_its_space_by_numbers():
    grey55 = (1, bytes([55]))
    gamma = lambda value: (b"gAMA", struct.pack(">I", value))  # noqa: E731
    assert row(png(8, 0, grey55, gamma(100_000))) == [pytest.approx([128] * 3, abs=1)]
    assert row(png(8, 0, grey55, gamma(45_455))) == [[55] * 3]
    assert row(png(8, 0, grey55, gamma(100_000), (b"sRGB", b"\0"))) == [[55] * 3]
    assert row(png(8, 0, grey55, gamma(0))) == [[55] * 3]
    patch = (1, bytes(PATCH))
    expected = reference(Image.new("RGB", (1, 1), PATCH), P3)[0].tolist()
    assert row(png(8, 2, patch, (b"cICP", bytes([12, 13, 0, 1])))) == expected
    assert row(png(8, 2, patch, (b"cICP", bytes([1, 13, 0, 1])), gamma(100_000))) == [list(PATCH)]


def test_a_camera_that_marks_adobe_rgb_without_a_profile_is_believed():
    image = Image.new("RGB", (16, 16), PATCH)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    stored = np.array(open_image(encoded(image, "JPEG", quality=95)))
    marked = np.array(open_image(encoded(image, "JPEG", quality=95, exif=exif))).astype(int)
    assert np.abs(marked - reference(Image.fromarray(stored), adobe_rgb_profile())).max() <= 1
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    np.testing.assert_array_equal(np.array(open_image(encoded(image, "JPEG", quality=95, exif=exif))), stored)


def test_a_cmyk_jpeg_is_inverted_only_where_adobe_says_so():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    at = data.index(b"\xff\xee")
    bare = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert np.abs(np.subtract(row(data)[0], (255, 0, 0))).max() <= 3
    # The same samples, taken for ink: 255 of cyan and black, none of the others.
    assert np.abs(np.subtract(row(bare)[0], 0)).max() <= 3


def test_grey_of_12_bits_and_white_as_zero():
    twelve = lambda a, b: bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])  # noqa: E731
    size = [(256, 2), (257, 1), (259, 1), (277, 1)]
    assert row(tiff([*size, (258, 12), (262, 1)], twelve(4095, 2048))) == [[255] * 3, [128] * 3]
    sixteen = struct.pack("<2H", 0, 65_535 - 25_700)
    assert row(tiff([*size, (258, 16), (262, 0)], sixteen)) == [[255] * 3, [100] * 3]
    assert row(tiff([*size, (258, 16), (262, 1)], struct.pack("<2H", 0, 25_700))) == [[0] * 3, [100] * 3]


def test_the_clear_colour_of_a_png_is_found_at_every_depth():
    white, clear = [255] * 3, lambda *values: (b"tRNS", struct.pack(f">{len(values)}H", *values))
    sixteen = struct.pack(">3H", 25_700, 25_701, 0)
    assert row(png(16, 0, (3, sixteen), clear(25_701))) == [[100] * 3, white, [0] * 3]
    assert row(png(2, 0, (4, bytes([0b00_01_10_11])), clear(1))) == [[0] * 3, white, [170] * 3, white]
    assert row(png(4, 0, (2, bytes([0x3_7])), clear(3))) == [white, [119] * 3]
    assert row(png(1, 0, (8, bytes([0b1010_0000])), clear(0)))[:2] == [white, white]
    colours = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x2234, 0x5678, 0x9ABC)
    assert row(png(16, 2, (2, colours), clear(0x1234, 0x5678, 0x9ABC))) == [white, [0x22, 0x56, 0x9A]]


def test_profiles_that_pillow_leaves_unread_are_followed():
    image = Image.new("RGB", (16, 16), PATCH)
    expected = reference(image, P3)[0, 0].tolist()
    plain = encoded(image, "BMP")
    fields = struct.pack("<II", 124, 16) + plain[22:54] + bytes(16) + b"DEBM" + bytes(48) + struct.pack("<III", 4, 0, 0)
    pixels = plain[54:]
    head = fields.ljust(112, b"\0")[:112] + struct.pack("<III", 124 + len(pixels), len(P3), 0)
    bmp = b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(P3), 0, 0, 138) + head + pixels + P3
    assert row(bmp)[0] == expected
    jp2 = encoded(image, "JPEG2000", irreversible=False)
    at = jp2.index(b"colr") - 4
    old = int.from_bytes(jp2[at : at + 4], "big")
    new = struct.pack(">I", 11 + len(P3)) + b"colr" + b"\2\0\0" + P3
    start = jp2.index(b"jp2h") - 4
    size = int.from_bytes(jp2[start : start + 4], "big") + len(new) - old
    with_profile = jp2[:start] + struct.pack(">I", size) + jp2[start + 4 : at] + new + jp2[at + old :]
    assert row(jp2)[0] == list(PATCH)
    assert row(with_profile)[0] == expected
