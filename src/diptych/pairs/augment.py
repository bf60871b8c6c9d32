"""Pictures that vary from epoch to epoch: one resize or affine map, then another style, then one colour matrix."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from diptych.data.images import RESAMPLE, Preprocess, open_image
from diptych.errors import ConfigError
from diptych.pairs.styles import lines, posterized, toned

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
# An affine map has no antialiasing, so it reads from a picture of about this many times the output's resolution:
# bilinear from 1.5 times is as near to a supersampled truth as bicubic from 1 time, and cheaper.
_OVERSAMPLING = 1.5
_GOOD_AS_IT_IS = (1.25, 2.0)
_MARGIN = 2  # pixels around the part that is read, or its cut would look like the picture's edge

_MOST_LEVELS = 5  # of a posterized picture; 2 at least

_Box = tuple[float, float, float, float]


class _Draws(NamedTuple):
    """One number in [0, 1) for each choice, always all of them: turning one option on leaves the others' alone."""

    area: float
    ratio: float
    x: float
    y: float
    rotate: float
    shear: float
    translate_x: float
    translate_y: float
    flip: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grayscale: float

    def styles(self) -> "_StyleDraws":
        """Of the options that came later: drawn from these, as one number more would change all that follows."""
        seeds = [int(draw * 2**53) for draw in self]
        return _StyleDraws(*np.random.default_rng(seeds).random(len(_StyleDraws._fields)).tolist())


class _StyleDraws(NamedTuple):
    """Likewise."""

    margin: float
    lines: float
    posterize: float
    levels: float
    tone: float


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of a training picture. What leaves the picture's frame is filled with white.

    The default is a random resized crop alone, with the range of area that open_clip uses. With crop_scale and
    crop_ratio both (1, 1) there is no crop but `Preprocess`'s own.
    """

    crop_scale: tuple[float, float] = (0.9, 1.0)  # share of the picture's area; a box that does not fit is shrunk
    crop_ratio: tuple[float, float] = (
        3 / 4,
        4 / 3,
    )  # width / height; times the picture's own where it is not cropped to a square
    rotate: float = 0.0  # degrees, at most, to either side; so are the next ones
    shear: float = 0.0  # degrees, along x
    translate: float = 0.0  # share of the crop's side, along x and y; at most a half, or nothing might stay in sight
    flip: bool = False  # left to right, half of the time; not for pictures whose captions say left or right
    color: float = 0.0  # brightness, contrast and saturation: factors in 1 - color .. 1 + color
    hue: float = 0.0  # share of a full turn
    grayscale: float = 0.0  # probability; so are the next two
    lines: float = 0.0  # dark lines on white in place of the picture
    posterize: float = 0.0  # each channel in 2 to 5 levels
    tone: float = 0.0  # another tone curve: exponents from 1 / (1 + tone) to 1 + tone
    margin: float = 0.0  # white around the picture, at most so much of the crop's side in all

    def __post_init__(self) -> None:
        for name, most in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= most:
                raise ConfigError(f"{name} must be two numbers, low and high, 0 < low <= high <= {most}. Got {bounds}.")
        limits = {"rotate": 180, "shear": 60, "translate": 0.5, "color": 1, "hue": 0.5, "grayscale": 1}
        limits |= {"lines": 1, "posterize": 1, "tone": 4, "margin": 1}
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must lie in 0 to {most}. Got {getattr(self, name)}.")

    def __call__(self, image: Image.Image, generator: np.random.Generator, preprocess: Preprocess) -> np.ndarray:
        """A varied picture, ready for `normalise`; a pure function of picture and generator state.

        Returns:
            As `preprocess.pixels` does: [S, S, 3] uint8, or a row for each patch, the crop in the shape that it has.

        Raises:
            ImageError: as `open_image` does.
        """
        draws = _Draws(*generator.random(len(_Draws._fields)).tolist())
        pixels = self._place(open_image(image, max_pixels=preprocess.max_pixels), draws, preprocess)
        if self.flip and draws.flip < 0.5:
            pixels = pixels[:, ::-1]
        if self.lines or self.posterize or self.tone:
            pixels = self._restyle(pixels, draws.styles())
        if self.color or self.hue or self.grayscale:
            pixels = self._recolour(pixels, draws)
        return preprocess.arranged(np.ascontiguousarray(pixels))

    def _place(self, picture: Image.Image, draws: _Draws, preprocess: Preprocess) -> np.ndarray:
        if self.rotate or self.shear or self.translate or self.margin:
            return self._warped(picture, self._crop(picture, draws, preprocess), draws, preprocess)
        if not self._crops:
            return preprocess.resized(picture)
        left, top, width, height = self._crop(picture, draws, preprocess)
        box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
        size = preprocess.size_for(round(width), round(height))
        return np.array(picture.resize(size, RESAMPLE[preprocess.interpolation], box))

    @property
    def is_fixed(self) -> bool:
        """Whether a picture looks the same each time, or at most flipped."""
        return self == Augment(crop_scale=(1, 1), crop_ratio=(1, 1), flip=self.flip)

    @property
    def _crops(self) -> bool:
        return (self.crop_scale, self.crop_ratio) != ((1, 1), (1, 1))

    def _crop(self, picture: Image.Image, draws: _Draws, preprocess: Preprocess) -> _Box:
        """Left, top, width and height, in pixels."""
        low, high = self.crop_scale
        area = low + (high - low) * draws.area
        low, high = self.crop_ratio
        ratio = low * (high / low) ** draws.ratio  # even in the logarithm: wide and tall alike
        own = picture.width / picture.height if preprocess.resize == "shortest" else 1.0
        width, height = math.sqrt(area * ratio / own), math.sqrt(area * own / ratio)  # as shares of the picture's
        fit = min(1.0, 1 / width, 1 / height)
        width, height = max(1.0, fit * width * picture.width), max(1.0, fit * height * picture.height)
        x, y = (draws.x, draws.y) if self._crops else (0.5, 0.5)  # else `Preprocess`'s own place
        return x * (picture.width - width), y * (picture.height - height), width, height

    def _warped(self, picture: Image.Image, crop: _Box, draws: _Draws, preprocess: Preprocess) -> np.ndarray:
        left, top, width, height = crop
        if self.margin:
            more = self.margin * draws.styles().margin
            left, top = left - more * width / 2, top - more * height / 2
            width, height = (1 + more) * width, (1 + more) * height
        across, down = size = preprocess.size_for(round(width), round(height))  # of the output
        angle, shear = math.radians(_spread(draws.rotate, self.rotate)), math.radians(_spread(draws.shear, self.shear))
        cos, sin, tan = math.cos(angle), math.sin(angle), math.tan(shear)
        # From (u, v) in the output's unit square, 0 in its middle, to the picture: x = x_u * u + x_v * v + x_0.
        x_u, x_v = width * cos, width * (cos * tan - sin) * (down / across)
        y_u, y_v = height * sin * (across / down), height * (sin * tan + cos)
        x_0 = left + width * (0.5 + _spread(draws.translate_x, self.translate))
        y_0 = top + height * (0.5 + _spread(draws.translate_y, self.translate))

        low, high = _GOOD_AS_IT_IS
        if not (low * across <= width <= high * across and low * down <= height <= high * down):
            reach_x, reach_y = (abs(x_u) + abs(x_v)) / 2, (abs(y_u) + abs(y_v)) / 2
            x_1, x_2 = _pixels_within(x_0 - reach_x, x_0 + reach_x, picture.width)
            y_1, y_2 = _pixels_within(y_0 - reach_y, y_0 + reach_y, picture.height)
            new_width = math.ceil((x_2 - x_1) * _OVERSAMPLING * across / width)
            new_height = math.ceil((y_2 - y_1) * _OVERSAMPLING * down / height)
            picture = picture.resize((new_width, new_height), RESAMPLE[preprocess.interpolation], (x_1, y_1, x_2, y_2))
            scale_x, scale_y = new_width / (x_2 - x_1), new_height / (y_2 - y_1)
            x_u, x_v, x_0 = x_u * scale_x, x_v * scale_x, (x_0 - x_1) * scale_x
            y_u, y_v, y_0 = y_u * scale_y, y_v * scale_y, (y_0 - y_1) * scale_y
        to_picture = (
            *(x_u / across, x_v / down, x_0 - (x_u + x_v) / 2),
            *(y_u / across, y_v / down, y_0 - (y_u + y_v) / 2),
        )
        bilinear = Image.Resampling.BILINEAR
        return np.array(
            picture.transform(size, Image.Transform.AFFINE, to_picture, bilinear, fillcolor=(255, 255, 255))
        )

    def _restyle(self, pixels: np.ndarray, draws: _StyleDraws) -> np.ndarray:
        if self.tone:
            pixels = toned(pixels, (1 + self.tone) ** _spread(draws.tone, 1))
        if draws.posterize < self.posterize:
            pixels = posterized(pixels, 2 + int(draws.levels * (_MOST_LEVELS - 1)))
        return lines(pixels) if draws.lines < self.lines else pixels

    def _recolour(self, pixels: np.ndarray, draws: _Draws) -> np.ndarray:
        """Brightness, contrast about the mean luma, saturation, hue: one map, so nothing is clipped on the way."""
        brightness = 1 + _spread(draws.brightness, self.color)
        contrast = 1 + _spread(draws.contrast, self.color)
        saturation = 0.0 if draws.grayscale < self.grayscale else 1 + _spread(draws.saturation, self.color)
        turn = 2 * math.pi * _spread(draws.hue, self.hue)
        cos, sin = saturation * math.cos(turn), saturation * math.sin(turn)
        chroma = _FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ
        values = pixels.reshape(-1, 3).astype(np.float32)
        mean_luma = np.full(len(values), 1 / len(values), dtype=np.float32) @ values @ _LUMA
        values = values @ (brightness * contrast * chroma.T).astype(np.float32)
        values += np.float32((1 - contrast) * brightness * mean_luma + 0.5)  # the half rounds
        return np.clip(values, 0, 255, out=values).astype(np.uint8).reshape(pixels.shape)


def _pixels_within(start: float, stop: float, length: int) -> tuple[int, int]:
    return max(0, math.floor(start) - _MARGIN), min(length, math.ceil(stop) + _MARGIN)


def _spread(draw: float, most: float) -> float:
    """From [0, 1) to [-most, most)."""
    return (2 * draw - 1) * most
