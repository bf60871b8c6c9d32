"""BMP pictures of bit fields that Pillow reads without their alpha, or not at all: 5551, 4444, 2:10:10:10."""

import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

_BITFIELDS, _ALPHA_BITFIELDS = 3, 6  # biCompression
_PILLOWS_16 = ((0xF800, 0x7E0, 0x1F, 0x0), (0x7C00, 0x3E0, 0x1F, 0x0))
_PILLOWS_32 = (  # read with their alpha
    (0xFF0000, 0xFF00, 0xFF, 0x0),
    (0xFF000000, 0xFF0000, 0xFF00, 0x0),
    (0xFF000000, 0xFF00, 0xFF, 0x0),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
    (0x0, 0x0, 0x0, 0x0),
)


@dataclass(frozen=True, kw_only=True)
class BitFields:
    """The header of such a file."""

    width: int  # px
    height: int
    flipped: bool  # rows from the bottom up, as most
    bits: int  # of a pixel: 16 or 32
    masks: tuple[int, int, int, int]  # of red, green, blue, alpha
    start: int  # of the pixels in the file

    def decode(self, data: bytes) -> Image.Image:
        """RGB, or RGBA where the file has alpha and not all of it is 0, which writers leave where they mean none.

        Raises:
            EOFError: the file ends before its pixels do.
        """
        stride = (self.width * self.bits + 31) // 32 * 4
        if len(data) < self.start + stride * self.height:
            raise EOFError("not enough pixels")
        rows = np.frombuffer(data, np.uint8, stride * self.height, self.start).reshape(self.height, stride)
        values = rows[:, : self.width * self.bits // 8].copy().view(f"<u{self.bits // 8}").astype(np.uint32)  # [H, W]
        channels = [_channel(values, mask) for mask in self.masks if mask]
        if len(channels) == 4 and not channels[3].any():
            channels.pop()
        stacked = np.stack(channels, axis=-1)  # [H, W, 3 or 4]
        return Image.fromarray(np.ascontiguousarray(stacked[::-1] if self.flipped else stacked))


def bit_fields_of(head: bytes) -> BitFields | None:
    """The header of a BMP whose masks Pillow does not follow, else None."""
    if head[:2] != b"BM" or len(head) < 70:
        return None
    start, size, width, height, _, bits, compression = struct.unpack_from("<10xIIiiHHI", head)
    if compression not in (_BITFIELDS, _ALPHA_BITFIELDS) or bits not in (16, 32) or size < 40:
        return None
    masks = struct.unpack_from("<4I", head, 54)
    if size < 56 and compression != _ALPHA_BITFIELDS:
        masks = (*masks[:3], 0)
    red, green, blue, alpha = masks
    if (
        masks in (_PILLOWS_16 if bits == 16 else _PILLOWS_32)
        or not (red and green and blue)
        or width < 1
        or not height
        or max(masks) >> bits
    ):
        return None
    return BitFields(
        width=width, height=abs(height), flipped=height > 0, bits=bits, masks=(red, green, blue, alpha), start=start
    )


def _channel(values: np.ndarray, mask: int) -> np.ndarray:
    """[H, W] uint8: the bits of a mask, stretched so that all ones are 255."""
    lowest = (mask & -mask).bit_length() - 1
    top = mask >> lowest
    return (((values & mask) >> lowest).astype(np.uint64) * 255 // top).astype(np.uint8)
