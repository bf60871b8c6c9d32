"""From the bytes of a file to an upright picture in RGB: header first, then pixels, then colours.

One way for all: what `classify` refuses, the index, training and the server refuse as well, with the same cause.
"""

import contextlib
import ctypes
import functools
import io
import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

from diptych.data import png, raw
from diptych.data.bitfields import bit_fields_of
from diptych.data.boxes import child, clean_aperture, content, picture_properties, whole
from diptych.data.colour import rgb_of
from diptych.data.facts import Facts, exif_of, facts_of
from diptych.errors import ImageError

# Not all that Pillow knows: some of its readers start other programs (EPS) or take any bytes for theirs; TGA, which has
# no mark of its own, is asked by name.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM", "ICO", "QOI")
_PROGRESSIVE = 2  # times the limit: such a JPEG's coefficients are held whole, two bytes a sample, at whatever scale
_COPY = 512  # px that an embedded copy must have to stand for a picture that is too large
_HEAD = 512  # bytes
_CUT_SHORT = re.compile(r"truncat|\bEOF\b|not enough|requires a buffer|expected to read|out of range", re.IGNORECASE)
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TGA_MARK = b"TRUEVISION-XFILE.\0"


def decode(
    file: BinaryIO,
    name: str,
    max_pixels: int,
    *,
    at_least: int | None = None,
    on_facts: Callable[[Facts], None] | None = None,
) -> Image.Image:
    """Decode one file.

    Args:
        file: read from where it stands.
        name: what an error calls it; its ending counts for raw files and TGA.
        max_pixels: most that are decoded; a JPEG or JPEG 2000 that has more is decoded at 1/2, 1/4 or 1/8.
        at_least: px that both sides keep when a JPEG is decoded at a part of its size to save time.
        on_facts: is given what the header tells, before any pixel is decoded.

    Raises:
        ImageError: as `open_image` does.
    """
    head = file.read(_HEAD)
    if not head:
        raise _nothing(name)
    with sentence_for_faults(name):
        _quieten()
        if fields := bit_fields_of(head):
            check_size((fields.width, fields.height), name, max_pixels)
            if on_facts:
                on_facts(Facts(width=fields.width, height=fields.height, format="BMP"))
            return rgb_of(fields.decode(head + file.read()), name)
        file, head, extra = _picture_within(file, head, name)
        with _opened(file, head, name) as image:
            _complete(image, file, head, extra)
            if on_facts:
                on_facts(facts_of(image))
            full = image.size
            check_size(full, name, max_pixels, decoded=_scale(image, at_least, max_pixels))
            return upright_rgb(image, name)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture file tells before its pixels."""

    format: str  # as Pillow calls it
    width: int  # px, as stored
    height: int
    orientation: int = 1  # EXIF's; above 1 the picture lies on its side, or mirrored


def read_header(data: bytes, name: str) -> Header:
    """See by its content whether a file is a picture; no pixel is decoded.

    Args:
        data: a file.
        name: what an error calls it; its ending counts for raw files and TGA.

    Raises:
        ImageError: it is none, or one that `decode` does not read, or its header is damaged or cut short.
    """
    file = io.BytesIO(data)
    head = file.read(_HEAD)
    if not head:
        raise _nothing(name)
    with sentence_for_faults(name):
        _quieten()
        if fields := bit_fields_of(head):
            return Header(format="BMP", width=fields.width, height=fields.height)
        file, head, extra = _picture_within(file, head, name)
        with _opened(file, head, name) as image:
            image.info.update(extra)
            return Header(
                format=image.format or "", width=image.width, height=image.height, orientation=_orientation(image)
            )


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """An opened picture, loaded, as upright RGB; one that is plain RGB already comes back as it is."""
    image.load()
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image
    orientation = _orientation(image)
    rgb = rgb_of(image, name)
    if clap := image.info.get("clap"):
        rgb = rgb.crop(clap)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info = {}  # or a second call would turn it again
    return rgb


def _orientation(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # damaged metadata must not cost a good picture
        orientation = exif_of(image).get(_ORIENTATION, 1)
        return orientation if orientation in _UPRIGHT else 1
    return 1


def check_size(size: tuple[int, int], name: str, max_pixels: int, *, decoded: tuple[int, int] | None = None) -> None:
    """Refuse a picture without pixels, or with more to decode than the limit.

    Args:
        size: of the picture, px.
        name: what the error calls it.
        max_pixels: the limit.
        decoded: the size that will be decoded, where it is another.
    """
    width, height = size
    if not width or not height:
        raise ImageError(f"{name} must have pixels. It is {width} x {height}.", "empty")
    if math.prod(decoded or size) > max_pixels:
        raise ImageError(
            f"{name} must have at most {max_pixels:,} pixels. It has {width:,} x {height:,}: shrink it, or raise "
            "max_pixels (--max-pixels) if you trust it.",
            "too large",
        )


def _picture_within(file: BinaryIO, head: bytes, name: str) -> tuple[BinaryIO, bytes, dict[str, Any]]:
    """The file that holds the pixels, its first bytes, and what the one around it says."""
    if head.startswith(b"\0\0\1\0") and (within := _png_in_icon(file, head)):
        file, head = io.BytesIO(within), within[:_HEAD]
    if head.startswith(png.SIGNATURE):
        file.seek(0)
        data, extra = png.part(file.read())
        return io.BytesIO(data), data[:_HEAD], extra
    if raw.is_raw(file, head, name):
        file.seek(0)
        preview = raw.preview_of(file.read(), name)
        return io.BytesIO(preview.jpeg), preview.jpeg[:_HEAD], preview.info
    return file, head, {}


def _png_in_icon(file: BinaryIO, head: bytes) -> bytes | None:
    """The largest picture of an icon where it is a PNG, whose header, not the icon's, tells its size."""
    count = int.from_bytes(head[4:6], "little")
    file.seek(6)
    entries = [entry for entry in (file.read(16) for _ in range(count)) if len(entry) == 16]
    if not entries:
        return None
    best = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), int.from_bytes(entry[6:8], "little")))
    file.seek(int.from_bytes(best[12:16], "little"))
    data = file.read(int.from_bytes(best[8:12], "little"))
    return data if data.startswith(png.SIGNATURE) else None


def _opened(file: BinaryIO, head: bytes, name: str) -> Image.Image:
    # Image.open would check the size against a limit that is global to the process, by a warning that only a change of
    # global filters can catch; so its table of readers is asked directly.
    Image.init()
    for format_ in (*_with_plugin(head), *FORMATS, *_tga(file, head, name)):
        reader, accepts = Image.OPEN.get(format_, (None, None))
        accepted = reader and (accepts(head[:16]) if accepts else format_ == "TGA")
        if isinstance(accepted, str):
            raise ImageError(f"{name} is {format_}, which this build of Pillow cannot read.", "unsupported")
        if reader and accepted:
            if format_ == "WEBP" and int.from_bytes(head[4:8], "little") + 8 > file.seek(0, io.SEEK_END):
                raise EOFError("WebP data truncated")  # Pillow only says that it could not decode
            file.seek(0)
            return reader(file, "")
    raise _no_picture(head, name)


def _complete(image: Image.Image, file: BinaryIO, head: bytes, extra: dict[str, Any]) -> None:
    """Put right what Pillow's reader leaves out of `info`, or takes amiss."""
    image.info.update(extra)
    if image.format in ("JPEG2000", "BMP") and (profile := _profile_aside(image.format, file, head)):
        image.info["icc_profile"] = profile
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _png_transparency(image, depth=head[24])
    if image.format in ("AVIF", "HEIF") and head[4:8] == b"ftyp" and not file.closed:
        for kind, data in picture_properties(file):
            if kind == b"colr" and data[:4] == b"nclx":
                image.info["cicp"] = int.from_bytes(data[4:6], "big"), int.from_bytes(data[6:8], "big")
            elif kind == b"clap" and image.format == "AVIF":  # libheif cuts by itself
                image.info["clap"] = clean_aperture(data, *image.size)


def _profile_aside(format_: str, file: BinaryIO, head: bytes) -> bytes | None:
    """The profile of a JP2 or a BMP of version 5, which Pillow leaves unread."""
    if format_ == "BMP":
        if len(head) < 138 or head[14] != 124 or head[70:74] != b"DEBM":  # PROFILE_EMBEDDED
            return None
        file.seek(14 + int.from_bytes(head[126:130], "little"))
        return file.read(int.from_bytes(head[130:134], "little"))
    header = child(file, whole(file), b"jp2h")
    space = child(file, header, b"colr") if header else None
    data = content(file, space) if space else b""
    return data[3:] if data[:1] == b"\2" else None  # the restricted ICC method


def _png_transparency(image: Image.Image, depth: int) -> Any:
    """The clear colour in the samples that Pillow gives, not in those of the file."""
    clear = image.info["transparency"]
    if image.mode == "L" and depth in (2, 4) and isinstance(clear, int):
        return (clear & (2**depth - 1)) * 255 // (2**depth - 1)
    if image.mode == "RGB" and depth == 16 and isinstance(clear, tuple):
        return tuple(value >> 8 for value in clear)  # as Pillow does with the colours
    return clear


def _scale(image: Image.Image, at_least: int | None, max_pixels: int) -> tuple[int, int]:
    """Decode at a part of the size: where `at_least` allows it, and as far as the limit demands.

    Returns:
        The size that will be decoded, px.
    """
    width, height = image.size
    too_large = width * height > max_pixels
    if image.format in ("JPEG", "MPO"):
        if image.info.get("progressive") and width * height > _PROGRESSIVE * max_pixels:
            return width, height
        scale = 1
        for part in (2, 4, 8):
            saves = at_least is not None and min(width // part, height // part) >= at_least
            if saves or -(-width // scale) * -(-height // scale) > max_pixels:
                scale = part
        if scale > 1 and min(width, height) >= scale:
            image.draft(None, (width // scale, height // scale))
    elif image.format == "JPEG2000" and too_large:
        scale = next((n for n in (1, 2, 3) if (width >> n) * (height >> n) <= max_pixels), 0)
        image.reduce = scale  # pyright: ignore[reportAttributeAccessIssue]  # a property of this reader
        return width >> scale, height >> scale
    elif at_least is not None or too_large:
        side = at_least or _COPY
        image.draft(None, (side, side))  # HEIC: an embedded smaller copy
    return image.size


@functools.cache
def _quieten() -> None:
    """Faults come back as sentences; the libraries' own lines on the terminal are switched off, once."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(Exception):  # libtiff writes to stderr by itself; not all builds let it be told
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def _is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and any(brand in head[8:64] for brand in (b"heic", b"heix", b"hevc", b"heim"))


def _with_plugin(head: bytes) -> tuple[str, ...]:
    """The format that Pillow has for a file when the plugin for HEIC is installed; it is looked for when one comes."""
    if not _is_heic(head):
        return ()
    try:
        import pillow_heif
    except ImportError:
        return ()
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _tga(file: BinaryIO, head: bytes, name: str) -> tuple[str, ...]:
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11) or head[16] not in (1, 8, 15, 16, 24, 32):
        return ()
    file.seek(max(0, file.seek(0, io.SEEK_END) - len(_TGA_MARK)))
    marked = file.read() == _TGA_MARK
    return ("TGA",) if marked or name.lower().endswith((".tga", ".icb", ".vda", ".vst")) else ()


@contextlib.contextmanager
def sentence_for_faults(name: str) -> Iterator[None]:
    """Whatever a reader raises becomes an `ImageError` that names the picture and its cause."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} is larger than Pillow reads: {error}", "too large") from error
    except Exception as error:  # a damaged file makes Pillow raise anything, KeyError and AssertionError included
        if isinstance(error, EOFError) or _CUT_SHORT.search(str(error)):
            raise ImageError(f"{name} is cut short ({_line(error)}). Fetch it again.", "truncated") from error
        raise ImageError(f"{name} is damaged or of a kind that Pillow cannot read ({_line(error)}).") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _nothing(name: str) -> ImageError:
    return ImageError(f"{name} must be a picture, and is empty (0 bytes). Fetch it again.", "empty")


def _no_picture(head: bytes, name: str) -> ImageError:
    text = head.lower()
    for mark, kind in ((b"<svg", "an SVG drawing"), (b"%pdf", "a PDF"), (b"%!ps", "PostScript"), (b"8bps", "a PSD")):
        if mark in text:
            return ImageError(f"{name} is {kind}, not pixels. Draw it to a PNG first.", "unsupported")
    if _is_heic(head):
        cure = "pip install 'diptych[heif]', or save it as a JPEG."
        return ImageError(f"{name} is HEIC, which needs an extra: {cure}", "unsupported")
    if head.startswith(b"\xff\x0a") or head[4:12] == b"JXL \r\n\x87\n":
        return ImageError(f"{name} is JPEG XL, which Pillow does not read. Save it as a PNG or JPEG.", "unsupported")
    if head[4:8] == b"ftyp":
        return ImageError(f"{name} is a video. Save a frame of it as a JPEG or PNG first.", "unsupported")
    if b"<html" in text or b"<!doctype" in text:
        return ImageError(f"{name} must be a picture, and is a web page. Fetch the picture itself.", "not an image")
    return ImageError(f"{name} must be a picture ({', '.join(FORMATS)}). It starts with {head[:12]!r}.", "not an image")
