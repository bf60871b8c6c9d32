import struct

import numpy as np
import pytest

from diptych.data.bitfields import bit_fields_of
from diptych.data.images import open_image
from diptych.errors import ImageError


def bmp(rows, bits, masks, *, size=56, upside_down=True):
    """A BMP of bit fields; rows are lists of whole pixels."""
    width, height = len(rows[0]), len(rows)
    letter = {16: "H", 32: "I"}[bits]
    lines = [struct.pack(f"<{width}{letter}", *row) for row in (reversed(rows) if upside_down else rows)]
    pixels = b"".join(line + bytes(-len(line) % 4) for line in lines)
    start = 14 + size + (12 if size == 40 else 0)
    head = struct.pack(
        "<IiiHHIIiiII", size, width, height if upside_down else -height, 1, bits, 3, len(pixels), 0, 0, 0, 0
    )
    fields = struct.pack("<4I", *masks)[: 12 if size == 40 else 16]
    body = (head + fields).ljust(start - 14, b"\0")
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + body + pixels


R5551 = (0x7C00, 0x3E0, 0x1F, 0x8000)
WHITE, RED = [255] * 3, [255, 0, 0]


@pytest.mark.parametrize("upside_down", [True, False])
def test_the_alpha_bit_of_5551_counts(upside_down):
    data = bmp([[0xFC00, 0x7C00, 0x801F], [0x801F] * 3], 16, R5551, upside_down=upside_down)
    assert np.array(open_image(data)).tolist() == [[RED, WHITE, [0, 0, 255]], [[0, 0, 255]] * 3]


def test_alpha_that_is_zero_everywhere_is_none():
    assert np.array(open_image(bmp([[0x7C00, 0x1F]], 16, R5551))).tolist() == [[RED, [0, 0, 255]]]


def test_fields_of_any_width_are_stretched_to_8_bits():
    assert np.array(open_image(bmp([[0xFF00, 0xF888]], 16, (0xF00, 0xF0, 0xF, 0xF000)))).tolist() == [[RED, [136] * 3]]
    ten = (0x3FF00000, 0xFFC00, 0x3FF, 0)
    assert np.array(open_image(bmp([[0x3FF00000, 512]], 32, ten))).tolist() == [[RED, [0, 0, 127]]]


def test_what_pillow_follows_is_left_to_it():
    assert bit_fields_of(bmp([[0xF800]], 16, (0xF800, 0x7E0, 0x1F, 0), size=40)) is None
    assert bit_fields_of(bmp([[0]], 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000))) is None
    assert bit_fields_of(b"BM" + bytes(100)) is None


def test_the_limit_holds_before_pixels_and_a_short_file_is_refused():
    data = bmp([[0xFC00] * 4] * 4, 16, R5551)
    with pytest.raises(ImageError, match="at most 15 pixels") as raised:
        open_image(data, max_pixels=15)
    assert raised.value.cause == "too large"
    with pytest.raises(ImageError) as raised:
        open_image(data[:-1])
    assert raised.value.cause == "truncated"
