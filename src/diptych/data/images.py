"""Pictures in: any file becomes RGB, and RGB becomes what a tower was trained on.

Stated rules: EXIF orientation is applied, alpha lies over white, 16-bit grey is divided by 257 and rounded, 16-bit
colour loses its low byte (as Pillow reads it), CMYK is converted without a colour profile, an animation gives its first
frame.
"""

import contextlib
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.data.facts import Facts, facts_of
from diptych.errors import ConfigError, ImageError, ShapeError, WeightsError

# Endings of picture files, lower case, that are looked for in folders and shards; what a file is, its bytes tell.
PICTURE_ENDINGS = (
    "avif",
    "bmp",
    "gif",
    "heic",
    "heif",
    "jp2",
    "jpeg",
    "jpg",
    "pgm",
    "png",
    "ppm",
    "qoi",
    "tif",
    "tiff",
    "webp",
)
MAX_PIXELS = 100_000_000
FAST_MARGIN = 1.5  # times the tower's side; chosen by benchmarks/index.py
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP, arXiv:2103.00020, released code
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

ImageSource = str | Path | bytes | BinaryIO | Image.Image

# Not all that Pillow knows: some of its readers start other programs (EPS) or take any bytes for theirs (TGA).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM", "ICO", "QOI")
_CUT_SHORT = re.compile(r"truncat|\bEOF\b|not enough|requires a buffer|expected to read|out of range", re.IGNORECASE)
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Beyond this a strip is resized only where the crop looks: a 1 x 100,000 picture would need gigabytes on the way.
_WHOLE_ASPECT = 64
# What a `preprocessor_config.json` means when it is silent, by class name without its ending.
_HF_SILENT = {
    "CLIP": {"size": 224, "do_center_crop": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    "Siglip": {
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
}
_HF_ENDING = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")


def open_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> Image.Image:
    """Open a picture as upright 8-bit RGB. Safe to call from many threads.

    Args:
        source: a path, the bytes of a file, a binary file (read from where it stands), or a Pillow image. A Pillow
            image that is plain RGB comes back as it is, not as a copy.
        max_pixels: a larger picture is refused by its header, before it is decoded.
        at_least: a JPEG's file may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep so many
            pixels.

    Raises:
        ImageError: its `cause` is one of "missing", "empty", "not an image", "truncated", "too large", "unsupported",
            "unreadable".
    """
    if isinstance(source, Image.Image):
        with _sentence_for_faults("<image>"):
            return _upright_rgb(source, "<image>", max_pixels)
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), "<bytes>", max_pixels, at_least=at_least)
    if not isinstance(source, str | Path):
        name = getattr(source, "name", None)
        return _read(
            io.BytesIO(source.read()), name if isinstance(name, str) else "<file>", max_pixels, at_least=at_least
        )
    try:
        with Path(source).open("rb") as file:
            return _read(file, str(source), max_pixels, at_least=at_least)
    except FileNotFoundError as error:
        raise ImageError(f"{source} must be a picture, and no such file exists.", "missing") from error
    except IsADirectoryError as error:
        raise ImageError(f"{source} must be a picture, and is a folder. Name a file in it.", "not an image") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ImageError(f"{source} cannot be opened: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """From a picture to a tower's input: resize, centre crop, normalise.

    Equal to the Pillow image processor of `transformers`. The recipe is that of CLIP's released code, whose crop
    lies one pixel further for some sizes: torchvision rounds a middle between two pixels to the even one
    (docs/parity.md).
    """

    image_size: int  # S, pixels of one side
    resize: Literal["shortest", "squash"] = "shortest"  # shorter side to S and centre crop, or both sides to S
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN  # of R, G, B in [0, 1]
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ConfigError(f"image_size must be at least 1 pixel. Got {self.image_size}.")
        if self.resize not in ("shortest", "squash"):
            raise ConfigError(f"resize must be 'shortest' or 'squash'. Got {self.resize!r}.")
        if self.interpolation not in RESAMPLE:
            raise ConfigError(f"interpolation must be 'bicubic' or 'bilinear'. Got {self.interpolation!r}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean and std must be three numbers each, std above 0. Got {self.mean}, {self.std}.")

    def __call__(self, image: ImageSource) -> Tensor:
        """One picture as a tower takes it.

        Returns:
            [3, S, S] float32, normalised.

        Raises:
            ImageError: as `open_image` does.
        """
        return self.normalise(torch.from_numpy(self.pixels(image))[None])[0]

    def pixels(self, image: ImageSource) -> np.ndarray:
        """All steps but the last: [S, S, 3] uint8.

        Raises:
            ImageError: as `open_image` does.
        """
        return self._resized(open_image(image))

    def fast_pixels(self, data: bytes, name: str) -> tuple[np.ndarray, Facts]:
        """The same from a file's bytes, several times faster for large photographs, and what the file tells of itself.

        A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that leaves `FAST_MARGIN` times the tower's
        side; other large pictures are halved by averages first. docs/numerics.md says how far features move.

        Args:
            data: a file.
            name: what an error calls it.

        Returns:
            [S, S, 3] uint8, and the facts.

        Raises:
            ImageError: as `open_image` does.
        """
        facts: list[Facts] = []
        picture = _read(
            io.BytesIO(data),
            name,
            MAX_PIXELS,
            at_least=math.ceil(FAST_MARGIN * self.image_size),
            on_header=lambda image: facts.append(facts_of(image)),
        )
        return self._resized(picture, reducing_gap=2.0), facts[0]

    def _resized(self, picture: Image.Image, reducing_gap: float | None = None) -> np.ndarray:
        side, resample = self.image_size, RESAMPLE[self.interpolation]
        if self.resize == "squash":
            return np.array(picture.resize((side, side), resample, reducing_gap=reducing_gap))
        short, long = sorted(picture.size)
        width, height = (side * length // short for length in picture.size)
        left, top = (width - side) // 2, (height - side) // 2
        if long > _WHOLE_ASPECT * short:
            x, y = picture.width / width, picture.height / height
            box = (left * x, top * y, (left + side) * x, (top + side) * y)
            return np.array(picture.resize((side, side), resample, box))
        whole = picture.resize((width, height), resample, reducing_gap=reducing_gap)
        return np.array(whole.crop((left, top, left + side, top + side)))

    def normalise(self, batch: Tensor) -> Tensor:
        """The last step, for a batch, on the device it is on.

        Args:
            batch: [B, S, S, 3] uint8, stacked `pixels`.

        Returns:
            [B, 3, S, S] float32, (batch / 255 - mean) / std.

        Raises:
            ShapeError: the batch is not [B, S, S, 3] uint8.
        """
        if batch.dtype != torch.uint8 or batch.shape[1:] != (self.image_size, self.image_size, 3):
            expected = f"[B, {self.image_size}, {self.image_size}, 3] uint8"
            raise ShapeError(f"batch must be {expected}. Got {list(batch.shape)} {batch.dtype}.")
        std = torch.tensor(self.std, dtype=torch.float64)
        scale = (1 / (255 * std)).float().view(3, 1, 1).to(batch.device)
        shift = (torch.tensor(self.mean, dtype=torch.float64) / std).float().view(3, 1, 1).to(batch.device)
        channels_first = batch.permute(0, 3, 1, 2).contiguous()  # [B, 3, S, S]; cheaper to turn as bytes
        return channels_first.float().mul_(scale).sub_(shift)

    def to_hf(self) -> dict[str, Any]:
        """As the content of a `preprocessor_config.json` that `transformers` reads: CLIP's, or SigLIP's to squash."""
        square = {"height": self.image_size, "width": self.image_size}
        crops = self.resize == "shortest"
        return {
            "image_processor_type": "CLIPImageProcessor" if crops else "SiglipImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": self.image_size} if crops else square,
            "resample": int(RESAMPLE[self.interpolation]),
            "do_center_crop": crops,
            "crop_size": square,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> "Preprocess":
        """From the content of a `preprocessor_config.json` of CLIP or SigLIP, old spellings included.

        Raises:
            WeightsError: it asks for something that this class does not do, so features would come out wrong.
        """
        kind = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "CLIPImageProcessor")
        silent = _HF_SILENT.get(_HF_ENDING.sub("", kind))
        if silent is None:
            raise _not_ours("image_processor_type", kind, "CLIPImageProcessor or SiglipImageProcessor")
        full = {"crop_size": 224, "resample": 3, "rescale_factor": 1 / 255, **silent, **data}
        for step, must in (("do_resize", True), ("do_rescale", True), ("do_normalize", True), ("do_pad", False)):
            if bool(full.get(step, must)) != must:
                raise _not_ours(step, full[step], str(must).lower())
        if not math.isclose(full["rescale_factor"], 1 / 255, rel_tol=1e-6):
            raise _not_ours("rescale_factor", full["rescale_factor"], "1 / 255")
        if full["resample"] not in list(RESAMPLE.values()):
            raise _not_ours("resample", full["resample"], "2 (bilinear) or 3 (bicubic)")
        size, crops = full["size"], full["do_center_crop"]
        squashes = isinstance(size, Mapping) and "shortest_edge" not in size
        side = _hf_side("size", size)
        if not crops and not squashes:
            raise _not_ours("do_center_crop", crops, "true when size is a shortest_edge")
        if crops and _hf_side("crop_size", full["crop_size"]) != side:
            raise _not_ours("crop_size", full["crop_size"], f"equal to size ({side})")
        try:
            return cls(
                image_size=side,
                resize="squash" if squashes else "shortest",
                interpolation="bicubic" if full["resample"] == RESAMPLE["bicubic"] else "bilinear",
                mean=tuple(full["image_mean"]),
                std=tuple(full["image_std"]),
            )
        except (ConfigError, TypeError) as error:
            raise WeightsError(f"preprocessor_config.json holds no valid picture recipe: {error}") from error


def _hf_side(key: str, size: Any) -> int:
    sides = set(size.values()) if isinstance(size, Mapping) else {size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int):
        raise _not_ours(key, size, "one number, or a height and an equal width")
    return side


def _not_ours(key: str, value: Any, must: str) -> WeightsError:
    return WeightsError(f"preprocessor_config.json: {key} must be {must}. Got {value!r}, which diptych does not do.")


def _read(
    file: BinaryIO,
    name: str,
    max_pixels: int,
    *,
    at_least: int | None = None,  # px, what each side keeps when a JPEG is decoded at a part of its size
    on_header: Callable[[Image.Image], None] = lambda _: None,
) -> Image.Image:
    head = file.read(512)
    if not head:
        raise ImageError(f"{name} must be a picture, and is empty (0 bytes). Fetch it again.", "empty")
    with _sentence_for_faults(name):
        # Image.open would check the size against a limit that is global to the process, by a warning that only a
        # change of global filters can catch; so its table of readers is asked directly.
        Image.init()
        for format_ in (*_with_plugin(head), *_FORMATS):
            reader, accepts = Image.OPEN.get(format_, (None, None))
            accepted = reader and accepts and accepts(head[:16])
            if isinstance(accepted, str):
                raise ImageError(f"{name} is {format_}, which this build of Pillow cannot read.", "unsupported")
            if reader and accepted:
                if format_ == "WEBP" and int.from_bytes(head[4:8], "little") + 8 > file.seek(0, io.SEEK_END):
                    raise EOFError("WebP data truncated")  # Pillow only says that it could not decode
                file.seek(0)
                with reader(file, "") as image:
                    on_header(image)
                    if at_least and image.width * image.height <= max_pixels:
                        image.draft(None, (at_least, at_least))
                    return _upright_rgb(image, name, max_pixels)
    raise _no_picture(head, name)


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


def _upright_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{name} must have pixels. It is {width} x {height}.", "empty")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} must have at most {max_pixels:,} pixels. It has {width:,} x {height:,}: shrink it, or raise "
            "max_pixels if you trust it.",
            "too large",
        )
    image.load()
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image
    orientation = 1
    with contextlib.suppress(Exception):  # damaged metadata must not cost a good picture
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    rgb = _rgb(image, name)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info = {}  # or a second call would turn it again
    return rgb


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "F":
        raise ImageError(f"{name} holds floats, whose range is not known. Save it with 8 or 16 bits.", "unsupported")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise ImageError(f"{name} has values outside 0 to 65,535. Save it with 8 or 16 bits.", "unsupported")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(with_alpha, mask=with_alpha)
        return white
    return image.convert("RGB")  # a copy, also of RGB


@contextlib.contextmanager
def _sentence_for_faults(name: str) -> Iterator[None]:
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} is larger than Pillow reads: {error}", "too large") from error
    except Exception as error:  # a damaged file makes Pillow raise anything, KeyError and AssertionError included
        if isinstance(error, EOFError) or _CUT_SHORT.search(str(error)):
            raise ImageError(f"{name} is cut short ({error}). Fetch it again.", "truncated") from error
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} is damaged or of a kind that Pillow cannot read ({reason}).") from error


def _no_picture(head: bytes, name: str) -> ImageError:
    text = head.lower()
    for mark, kind in ((b"<svg", "an SVG drawing"), (b"%pdf", "a PDF"), (b"%!ps", "PostScript"), (b"8bps", "a PSD")):
        if mark in text:
            return ImageError(f"{name} is {kind}, not pixels. Draw it to a PNG first.", "unsupported")
    if _is_heic(head):
        cure = "pip install 'diptych[heif]', or save it as a JPEG."
        return ImageError(f"{name} is HEIC, which needs an extra: {cure}", "unsupported")
    if head[4:8] == b"ftyp":
        return ImageError(f"{name} is a video. Save a frame of it as a JPEG or PNG first.", "unsupported")
    if b"<html" in text or b"<!doctype" in text:
        return ImageError(f"{name} must be a picture, and is a web page. Fetch the picture itself.", "not an image")
    return ImageError(
        f"{name} must be a picture ({', '.join(_FORMATS)}). It starts with {head[:12]!r}.", "not an image"
    )
