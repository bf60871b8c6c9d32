"""Any mode that Pillow reads becomes 8-bit RGB, in sRGB.

Stated rules (docs/numerics.md): a profile is followed, whether embedded or named by numbers, relative colorimetric
with black point compensation. One that is damaged, of another kind of picture, or sRGB's own within rounding changes
nothing.
"""

import functools
import io

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from diptych.data.profiles import adobe_rgb_profile, cicp_profile, gamma_profile
from diptych.errors import ImageError

_SRGB_WITHIN = 3  # levels by which a profile may differ from sRGB and still count as it
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_MOST_PROFILE = 4 * 2**20  # bytes; printers' have up to 3 MB
_PNG_GAMMA = 1 / 2.2
_BITS, _MEANING = 258, 262  # TIFF's BitsPerSample and PhotometricInterpretation
_WHITE_IS_ZERO = 0


def rgb_of(image: Image.Image, name: str) -> Image.Image:
    """A decoded picture as RGB in sRGB, alpha over white. Never the image itself.

    Raises:
        ImageError: values whose range is not known.
    """
    profile = profile_of(image)
    image = _eight_bits(image, name)
    if profile is not None and profile is not image.info.get("icc_profile") and _colours(image) == "L":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")  # a named space is one of colours
    if profile is not None and _transform(profile, _colours(image)) is None:
        profile = None
    if not image.has_transparency_data:
        return _to_srgb(image, profile)
    with_alpha = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    if profile is None:
        white.paste(with_alpha, mask=with_alpha)
    else:
        colours = image.convert("LA").getchannel("L") if _colours(image) == "L" else with_alpha.convert("RGB")
        white.paste(_to_srgb(colours, profile), mask=with_alpha.getchannel("A"))
    return white


def profile_of(image: Image.Image) -> bytes | None:
    """The profile that holds for a picture: of several, the one that the file's format puts first."""
    info = image.info
    if "cicp" in info and (image.format == "PNG" or not info.get("icc_profile")):
        return cicp_profile(*info["cicp"])
    if info.get("icc_profile"):
        return info["icc_profile"] if len(info["icc_profile"]) <= _MOST_PROFILE else None
    gamma = info.get("gamma")
    if image.format == "PNG" and gamma and "srgb" not in info:
        chromaticity = info.get("chromaticity")
        near = abs(gamma / _PNG_GAMMA - 1) < 0.05  # as libpng: most writers mean sRGB by it
        return None if near and not _wide(chromaticity) else gamma_profile(gamma, chromaticity)
    if image.format in ("JPEG", "MPO") and b"R03" in (info.get("exif") or b"") and _is_adobe(image):
        return adobe_rgb_profile()
    return None


def _wide(chromaticity: tuple[float, ...] | None) -> bool:
    srgb = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    return chromaticity is not None and any(abs(a - b) > 0.005 for a, b in zip(chromaticity, srgb, strict=True))


def _is_adobe(image: Image.Image) -> bool:
    """Exif 2.32, DCF: the index "R03" of the interoperability directory marks Adobe RGB."""
    try:
        return str(image.getexif().get_ifd(IFD.Interop).get(Base.InteropIndex)).startswith("R03")
    except Exception:  # damaged metadata must not cost a good picture
        return False


def _colours(image: Image.Image) -> str:
    """The mode whose profiles fit the picture."""
    if image.mode in ("1", "L", "LA"):
        return "L"
    return "RGB" if image.mode in ("RGB", "RGBX", "RGBA", "RGBa", "P", "PA", "YCbCr") else image.mode


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile is None:
        return image.convert("RGB")  # a copy, also of RGB
    colours = _colours(image)
    transform = _transform(profile, colours)
    assert transform is not None
    rgb = transform.apply(image if image.mode == colours else image.convert(colours))
    rgb.info = {}
    return rgb


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB, or None where it changes nothing or cannot be followed."""
    if _SPACES.get(profile[16:20]) != mode:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        probe = _probe(mode)
        changed = transform.apply(probe)
    except Exception:  # littleCMS refuses a damaged profile in many ways; the colours are then taken for sRGB's
        return None
    if mode == "CMYK":
        return transform
    difference = np.abs(np.asarray(changed).astype(int) - np.asarray(probe.convert("RGB")))
    return transform if difference.max() > _SRGB_WITHIN else None


def _probe(mode: str) -> Image.Image:
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    return Image.fromarray(colours).convert(mode)


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of more bits becomes L or LA; what Pillow reads by another rule than the file's is put right."""
    if image.mode == "La":
        return image.convert("LA")
    if image.mode == "F":
        raise ImageError(f"{name} holds floats, whose range is not known. Save it with 8 or 16 bits.", "unsupported")
    if image.mode.startswith("I"):
        return _from_16_bits(image, name)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Without Adobe's mark ink is ink; Pillow takes any such JPEG for the inverted kind.
        inks = image.point(lambda value: 255 - value)
        inks.info = image.info
        return inks
    return image


def _from_16_bits(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ImageError(f"{name} has values outside 0 to 65,535. Save it with 8 or 16 bits.", "unsupported")
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))
    top = 2 ** bits[0] - 1 if 8 < bits[0] < 16 else 65_535
    clear = image.info.get("transparency")
    eight = (values * 255 + top // 2) // top if top != 65_535 else (values + 128) // 257
    if tags.get(_MEANING) == _WHITE_IS_ZERO and image.mode.startswith("I;16"):
        eight = 255 - eight  # Pillow turns it round with 8 bits alone
    grey = Image.fromarray(eight.astype(np.uint8))
    if not isinstance(clear, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
