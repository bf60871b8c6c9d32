"""Pictures in: any file becomes RGB, and RGB becomes what a tower was trained on.

docs/numerics.md states the rules: orientation applied, alpha over white, colours in sRGB, grey of more than 8 bits
rounded, an animation's first frame, a raw file's largest preview.
"""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Union

import numpy as np
from PIL import Image

from diptych.data.decoding import check_size, decode, sentence_for_faults, upright_rgb
from diptych.data.facts import Facts
from diptych.data.inputs import plain_source
from diptych.data.patch_rows import PLACE, largest_grid, to_patch_rows
from diptych.data.raw import RAW_ENDINGS
from diptych.errors import ConfigError, ImageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# Endings of picture files, lower case, that are looked for in folders and shards; what a file is, its bytes tell.
PICTURE_ENDINGS = (
    *("apng", "avif", "avifs", "bmp", "dib", "gif", "heic", "heics", "heif", "hif", "ico", "j2k", "jfif", "jif", "jp2"),
    *(
        "jpe",
        "jpeg",
        "jpf",
        "jpg",
        "jpx",
        "mpo",
        "pbm",
        "pgm",
        "png",
        "pnm",
        "ppm",
        "qoi",
        "tga",
        "tif",
        "tiff",
        "webp",
    ),
    *RAW_ENDINGS,
)
MAX_PIXELS = 100_000_000
FAST_MARGIN = 1.5  # times the tower's side; chosen by benchmarks/index.py
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP, arXiv:2103.00020, released code
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

ImageSource = Union[str, Path, bytes, BinaryIO, Image.Image, np.ndarray, "Tensor"]  # see `plain_source`

# Beyond this a strip is resized only where the crop looks: a 1 x 100,000 picture would need gigabytes on the way.
_WHOLE_ASPECT = 64


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


# What a `preprocessor_config.json` means when it is silent, by class name without its ending.
_HF_SILENT = {
    "CLIP": {"size": 224, "do_center_crop": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    "Siglip": {
        "size": _square(224),
        "do_center_crop": False,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
    "ChineseCLIP": {"size": 224, "do_center_crop": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    "OwlViT": {"size": _square(768), "do_center_crop": False, "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    "Blip": {"size": _square(384), "do_center_crop": False, "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    "ViT": {
        "size": _square(224),
        "do_center_crop": False,
        "resample": 2,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
    "VideoMAE": {
        "size": 224,
        "do_center_crop": True,
        "resample": 2,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
    "EfficientNet": {
        "size": _square(346),
        "crop_size": _square(289),
        "do_center_crop": False,
        "rescale_offset": False,
        "include_top": True,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
    "Siglip2": {
        "patch_size": 16,
        "max_num_patches": 256,
        "resample": 2,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
}
_HF_ENDING = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")


def open_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> Image.Image:
    """Open a picture as upright 8-bit RGB. Safe to call from many threads.

    Args:
        source: a path, the bytes of a file, a binary file (read from where it stands), a Pillow image, or pixels as
            uint8, an array [H, W, 3] or a tensor [3, H, W]. A Pillow image that is plain RGB comes back as it is, not
            as a copy.
        max_pixels: most that are decoded. A larger picture is refused by its header, before that; but a JPEG or
            JPEG 2000 is decoded at 1/2, 1/4 or 1/8 of its size where that is within the limit.
        at_least: a JPEG's file may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep so many
            pixels.

    Raises:
        ImageError: its `cause` is one of "missing", "empty", "not an image", "truncated", "too large", "unsupported",
            "unreadable".
    """
    source = plain_source(source)
    if isinstance(source, Image.Image):
        with sentence_for_faults("<image>"):
            check_size(source.size, "<image>", max_pixels)
            return upright_rgb(source, "<image>")
    if isinstance(source, bytes):
        return decode(io.BytesIO(source), "<bytes>", max_pixels, at_least=at_least)
    if not isinstance(source, str | Path):
        name = getattr(source, "name", None)
        return decode(
            io.BytesIO(source.read()), name if isinstance(name, str) else "<file>", max_pixels, at_least=at_least
        )
    try:
        with Path(source).open("rb") as file:
            return decode(file, str(source), max_pixels, at_least=at_least)
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
    # shortest: shorter side to S and centre crop; squash: both sides to S; naflex: to the largest grid of patches that
    # fits, so that it keeps its shape
    resize: Literal["shortest", "squash", "naflex"] = "shortest"
    patch_size: int = 0  # p, pixels of one side, where resize is naflex; else 0
    max_patches: int = 0  # N of naflex; 0: as many as a square picture of image_size has
    crop_from: int = 0  # pixels of both sides that a squashed picture has before a crop in the middle; 0: no crop
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN  # of R, G, B in [0, 1]
    std: tuple[float, float, float] = CLIP_STD
    max_pixels: int = MAX_PIXELS  # most that are decoded of one picture, as in `open_image`; no part of a saved recipe

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ConfigError(f"image_size must be at least 1 pixel. Got {self.image_size}.")
        if self.resize not in ("shortest", "squash", "naflex"):
            raise ConfigError(f"resize must be 'shortest', 'squash' or 'naflex'. Got {self.resize!r}.")
        is_naflex = self.resize == "naflex"
        if (self.patch_size > 0) != is_naflex or self.max_patches < 0 or (self.max_patches and not is_naflex):
            raise ConfigError(
                "patch_size must be at least 1 pixel where resize is 'naflex', and it and max_patches 0 elsewhere. "
                f"Got {self.patch_size} and {self.max_patches} with {self.resize!r}."
            )
        if is_naflex and self.image_size % self.patch_size:
            raise ConfigError(
                f"patch_size must divide image_size. Got patch_size={self.patch_size}, image_size={self.image_size}."
            )
        if self.crop_from and (self.resize != "squash" or self.crop_from < self.image_size):
            raise ConfigError(
                "crop_from must be at least image_size where resize is 'squash', and 0 elsewhere. "
                f"Got {self.crop_from} with {self.image_size} and {self.resize!r}."
            )
        if self.interpolation not in RESAMPLE:
            raise ConfigError(f"interpolation must be 'bicubic' or 'bilinear'. Got {self.interpolation!r}.")
        if self.max_pixels < 1:
            raise ConfigError(f"max_pixels must be at least 1. Got {self.max_pixels}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean and std must be three numbers each, std above 0. Got {self.mean}, {self.std}.")

    @property
    def row_width(self) -> int:
        """Numbers of a patch's row, where pictures come out as such rows; 0 where they come out as squares."""
        return PLACE + 3 * self.patch_size**2 if self.patch_size else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what `pixels` gives."""
        if not self.patch_size:
            return (self.image_size, self.image_size, 3)
        return (self.max_patches or (self.image_size // self.patch_size) ** 2, self.row_width)

    def __call__(self, image: ImageSource) -> np.ndarray:
        """One picture as a tower takes it.

        Returns:
            [3, S, S] float32, normalised; or [N, 2 + p * p * 3].

        Raises:
            ImageError: as `open_image` does.
        """
        scale, shift = self.scale_and_shift
        pixels = self.pixels(image)
        if not self.patch_size:
            values = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
            return values * scale[:, None, None] - shift[:, None, None]
        rows = pixels.astype(np.float32)
        rows[:, PLACE:] *= np.tile(scale, self.patch_size**2)
        rows[:, PLACE:] -= np.tile(shift, self.patch_size**2)
        return rows

    @property
    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """[3] float32 each, of R, G, B: (x / 255 - mean) / std of a byte x is x times the first less the second."""
        std = np.array(self.std)
        return (1 / (255 * std)).astype(np.float32), (np.array(self.mean) / std).astype(np.float32)

    def pixels(self, image: ImageSource) -> np.ndarray:
        """All steps but the last.

        Returns:
            [S, S, 3] uint8; or [N, 2 + p * p * 3] uint8, one row a patch: its row and column in the picture, from 1,
            then its pixels, line by line. Rows of zeros at the end are padding.

        Raises:
            ImageError: as `open_image` does.
        """
        return self.arranged(self.resized(open_image(image, max_pixels=self.max_pixels)))

    def arranged(self, pixels: np.ndarray) -> np.ndarray:
        """What `pixels` gives, of pixels [height, width, 3] that are of the size that `size_for` says."""
        return to_patch_rows(pixels, self.patch_size, self.shape[0]) if self.patch_size else pixels

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels of what a picture of this width and height is resized to."""
        if not self.patch_size:
            return self.image_size, self.image_size
        rows, columns = largest_grid(width, height, self.shape[0])
        return columns * self.patch_size, rows * self.patch_size

    def fast_pixels(self, data: bytes, name: str) -> tuple[np.ndarray, Facts]:
        """The same from a file's bytes, several times faster for large photographs, and what the file tells of itself.

        A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that leaves `FAST_MARGIN` times the tower's
        side; other large pictures are halved by averages first. docs/numerics.md says how far features move.

        Args:
            data: a file.
            name: what an error calls it.

        Returns:
            What `pixels` gives, and the facts.

        Raises:
            ImageError: as `open_image` does.
        """
        facts: list[Facts] = []
        picture = decode(
            io.BytesIO(data),
            name,
            self.max_pixels,
            at_least=math.ceil(FAST_MARGIN * self.image_size),
            on_facts=facts.append,
        )
        return self.arranged(self.resized(picture, reducing_gap=2.0)), facts[0]

    def resized(self, picture: Image.Image, reducing_gap: float | None = None) -> np.ndarray:
        """An upright RGB picture in the tower's size: [S, S, 3] uint8; or [rows * p, columns * p, 3].

        Args:
            picture: of any size.
            reducing_gap: as Pillow has it: how far large pictures are halved by averages first.
        """
        side, resample = self.image_size, RESAMPLE[self.interpolation]
        if self.crop_from:
            squashed = picture.resize((self.crop_from, self.crop_from), resample, reducing_gap=reducing_gap)
            before = (self.crop_from - side) // 2
            return np.array(squashed.crop((before, before, before + side, before + side)))
        if self.resize != "shortest":
            return np.array(picture.resize(self.size_for(*picture.size), resample, reducing_gap=reducing_gap))
        short, long = sorted(picture.size)
        width, height = (side * length // short for length in picture.size)
        left, top = (width - side) // 2, (height - side) // 2
        if long > _WHOLE_ASPECT * short:
            x, y = picture.width / width, picture.height / height
            box = (left * x, top * y, (left + side) * x, (top + side) * y)
            return np.array(picture.resize((side, side), resample, box))
        whole = picture.resize((width, height), resample, reducing_gap=reducing_gap)
        return np.array(whole.crop((left, top, left + side, top + side)))

    def to_hf(self) -> dict[str, Any]:
        """As the content of a `preprocessor_config.json` that `transformers` reads.

        CLIP's, or SigLIP's to squash, or SigLIP 2's of pictures that keep their shape.
        """
        square = {"height": self.image_size, "width": self.image_size}
        crops = self.resize == "shortest"
        plain: dict[str, Any] = {
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
        if self.crop_from:
            whole = {"height": self.crop_from, "width": self.crop_from}
            plain |= {"image_processor_type": "EfficientNetImageProcessor", "do_center_crop": True, "size": whole}
            return plain | {"rescale_offset": False, "include_top": False}
        if not self.patch_size:
            return plain
        plain = {key: value for key, value in plain.items() if key not in ("size", "do_center_crop", "crop_size")}
        naflex = {"patch_size": self.patch_size, "max_num_patches": self.shape[0]}
        return plain | {"image_processor_type": "Siglip2ImageProcessor"} | naflex

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> "Preprocess":
        """From the content of a `preprocessor_config.json` of one of the kinds above, old spellings included.

        Raises:
            WeightsError: it asks for something that this class does not do, so features would come out wrong.
        """
        kind = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "CLIPImageProcessor")
        silent = _HF_SILENT.get(_HF_ENDING.sub("", kind))
        if silent is None:
            must = f"one of {', '.join(f'{name}ImageProcessor' for name in _HF_SILENT)}"
            raise _not_ours("image_processor_type", kind, must)
        full = {"crop_size": 224, "resample": 3, "rescale_factor": 1 / 255, **silent, **data}
        if "include_top" in silent:
            full = _plain_efficientnet(full)
        for step, must in (("do_resize", True), ("do_rescale", True), ("do_normalize", True), ("do_pad", False)):
            if bool(full.get(step, must)) != must:
                raise _not_ours(step, full[step], str(must).lower())
        if not math.isclose(full["rescale_factor"], 1 / 255, rel_tol=1e-6):
            raise _not_ours("rescale_factor", full["rescale_factor"], "1 / 255")
        if full["resample"] not in list(RESAMPLE.values()):
            raise _not_ours("resample", full["resample"], "2 (bilinear) or 3 (bicubic)")
        try:
            return cls(
                **(_naflex_from_hf(full) if "max_num_patches" in silent else _square_from_hf(full)),
                interpolation="bicubic" if full["resample"] == RESAMPLE["bicubic"] else "bilinear",
                mean=tuple(full["image_mean"]),
                std=tuple(full["image_std"]),
            )
        except (ConfigError, TypeError) as error:
            raise WeightsError(f"preprocessor_config.json holds no valid picture recipe: {error}") from error


def _square_from_hf(full: Mapping[str, Any]) -> dict[str, Any]:
    size, crops = full["size"], full["do_center_crop"]
    squashes = isinstance(size, Mapping) and "shortest_edge" not in size
    side = _hf_side("size", size)
    if not crops and not squashes:
        raise _not_ours("do_center_crop", crops, "true when size is a shortest_edge")
    if crops and "include_top" in full:
        return {"image_size": _hf_side("crop_size", full["crop_size"]), "resize": "squash", "crop_from": side}
    if crops and _hf_side("crop_size", full["crop_size"]) != side:
        raise _not_ours("crop_size", full["crop_size"], f"equal to size ({side})")
    return {"image_size": side, "resize": "squash" if squashes else "shortest"}


def _plain_efficientnet(full: dict[str, Any]) -> dict[str, Any]:
    """An EfficientNet's recipe with its numbers as the others have them: x / 255, mean, deviation."""
    factor, offset = full["rescale_factor"], bool(full["rescale_offset"])
    mean, std = (float(offset),) * 3, (1.0,) * 3
    if not full.get("do_rescale", True) or not math.isclose(factor, (2 if offset else 1) / 255, rel_tol=1e-6):
        raise _not_ours("rescale_factor", factor, "2 / 255 with rescale_offset, else 1 / 255")
    scale = factor * 255
    if full.get("do_normalize", True):
        mean = tuple(m + n for m, n in zip(mean, full["image_mean"], strict=True))
        std = tuple(full["image_std"])
    if full["include_top"]:
        std = tuple(s * t for s, t in zip(std, full["image_std"], strict=True))
    plain = {"image_mean": tuple(m / scale for m in mean), "image_std": tuple(s / scale for s in std)}
    return full | plain | {"rescale_factor": 1 / 255, "do_normalize": True}


def _naflex_from_hf(full: Mapping[str, Any]) -> dict[str, Any]:
    patch_size, patches = int(full["patch_size"]), int(full["max_num_patches"])
    side = math.isqrt(patches)
    more = {} if side**2 == patches else {"max_patches": patches}
    return {"image_size": side * patch_size, "resize": "naflex", "patch_size": patch_size, **more}


def _hf_side(key: str, size: Any) -> int:
    sides = set(size.values()) if isinstance(size, Mapping) else {size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int):
        raise _not_ours(key, size, "one number, or a height and an equal width")
    return side


def _not_ours(key: str, value: Any, must: str) -> WeightsError:
    return WeightsError(f"preprocessor_config.json: {key} must be {must}. Got {value!r}, which diptych does not do.")
