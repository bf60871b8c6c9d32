"""Shifted copies of a labelled set: the same pictures as sketches, or corrupted as ImageNet-C's are.

Noise, blur, zoom, contrast, brightness, pixelation and JPEG follow Hendrycks & Dietterich, arXiv:1903.12261, at their
five severities. These were set for pictures of 224 px: what blurs or bends is made wider or narrower with the shorter
side, all else goes by the pixel. Motion runs along any direction at their lengths; how far things are bent (elastic) is
ours, and so are the two sketches.
"""

import io
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter

from diptych.config import unknown_name
from diptych.errors import ConfigError, ImageError
from diptych.sets.labelled import LabelledImages
from diptych.sets.writer import LabelledPicture

# Strength at severities 1 to 5.
SEVERITIES: dict[str, tuple[float, ...]] = {
    "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, of a range of 1
    "shot-noise": (60, 25, 12, 5, 3),  # photons at white
    "impulse-noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of values that become black or white
    "gaussian-blur": (1, 2, 3, 4, 6),  # standard deviation in px of 224
    "defocus-blur": (3, 4, 6, 8, 10),  # radius of the disc in px of 224
    "motion-blur": (10, 15, 15, 15, 20),  # px of 224 on either side, weighed by `_MOTION`
    "zoom-blur": (1.11, 1.16, 1.21, 1.26, 1.33),  # the largest of the magnifications that are averaged
    "elastic": (1.5, 3, 4.5, 6, 8),  # px of 224 that a point is moved, standard deviation
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # of what is left
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV, of a range of 1
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # of the side that is left
    "jpeg": (25, 18, 15, 10, 7),  # quality
}
_MOTION = (3, 5, 8, 12, 15)  # standard deviation along the line, px of 224
_ZOOM_STEP = 0.02
_WAVES = 6  # nodes of the smooth field that bends a picture, along its side
SKETCHES = ("pencil", "edges")
_STEEP = 128.0  # what Sobel makes of a step of 32 levels: less is never drawn fully black
SHIFTS = (*SKETCHES, *SEVERITIES)


def shift(picture: Image.Image, kind: str, *, severity: int = 3, rng: np.random.Generator) -> Image.Image:
    """One shifted picture, RGB, of the same size.

    Args:
        picture: RGB.
        kind: one of `SHIFTS`.
        severity: 1 to 5; the sketches have none.
        rng: for noises, directions and bends.

    Raises:
        ConfigError: there is no such kind or severity.
    """
    if kind not in SHIFTS:
        raise ConfigError(unknown_name(kind, "", SHIFTS, "a kind of shift"))
    if not 1 <= severity <= 5:
        raise ConfigError(f"severity must be from 1 to 5. Got {severity}.")
    if kind in SKETCHES:
        return _pencil(picture) if kind == "pencil" else _edges(picture)
    strength = SEVERITIES[kind][severity - 1]
    width, height = picture.size
    unit = min(width, height) / 224
    match kind:
        case "defocus-blur":
            return _convolved(picture, _disc(strength * unit))
        case "motion-blur":
            return _convolved(picture, _line(strength * unit, _MOTION[severity - 1] * unit, rng.uniform(0, np.pi)))
        case "zoom-blur":
            return _zoomed(picture, strength)
        case "elastic":
            return _bent(picture, strength * unit, rng)
        case "gaussian-blur":
            return picture.filter(ImageFilter.GaussianBlur(strength * unit))
        case "pixelate":
            small = (max(1, int(width * strength)), max(1, int(height * strength)))
            return picture.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
        case "jpeg":
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=int(strength))
            return Image.open(file).convert("RGB")
        case "brightness":
            hue, saturation, value = picture.convert("HSV").split()
            lighter = _from_values(np.asarray(value) / 255 + strength)
            return Image.merge("HSV", (hue, saturation, lighter)).convert("RGB")
    values = np.asarray(picture) / 255  # [H, W, 3]
    return _from_values(_noisy(values, kind, strength, rng))


def shifted(
    data: LabelledImages, kind: str, *, severity: int = 3, seed: int = 0, skipped: Counter[str] | None = None
) -> Iterator[LabelledPicture]:
    """All pictures of a split, shifted; one that cannot be read is left out and counted in `skipped` by its cause."""
    for index in range(len(data)):
        rng = np.random.default_rng([seed, index])
        try:
            picture = shift(data.open(index), kind, severity=severity, rng=rng)
        except ImageError as error:
            if skipped is not None:
                skipped[error.cause] += 1
            continue
        yield f"{index:06d}", picture, int(data.targets[index])


def _noisy(values: np.ndarray, kind: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    match kind:
        case "gaussian-noise":
            return values + rng.normal(size=values.shape, scale=strength)
        case "shot-noise":
            return rng.poisson(values * strength) / strength
        case "impulse-noise":
            drawn = rng.random(values.shape)
            return np.where(drawn < strength / 2, 0, np.where(drawn < strength, 1, values))
        case _:
            assert kind == "contrast"
            mean = values.mean(axis=(0, 1), keepdims=True)
            return (values - mean) * strength + mean


def _convolved(picture: Image.Image, kernel: np.ndarray) -> Image.Image:
    """Each channel with a kernel [K, K], K odd; beyond the border the picture is mirrored."""
    far = len(kernel) // 2
    values = np.pad(np.asarray(picture) / 255, ((far, far), (far, far), (0, 0)), mode="symmetric")
    shape = values.shape[:2]
    spectrum = np.fft.rfft2(values, axes=(0, 1)) * np.fft.rfft2(kernel, s=shape)[..., None]
    whole = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))  # [H + 2 far, W + 2 far, 3], moved by `far`
    return _from_values(whole[2 * far :, 2 * far :])


def _disc(radius: float) -> np.ndarray:
    """A pixel at the rim counts by how far it reaches in."""
    v, u = _around(radius)
    weights = np.clip(radius + 0.5 - np.hypot(u, v), 0, 1)
    return weights / weights.sum()


def _line(length: float, deviation: float, angle: float) -> np.ndarray:
    v, u = _around(length)
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    weights = (
        np.clip(1 - np.abs(across), 0, 1)
        * (np.abs(along) <= max(length, 1))
        * np.exp(-0.5 * (along / max(deviation, 0.5)) ** 2)
    )
    return weights / weights.sum()


def _around(far: float) -> tuple[np.ndarray, np.ndarray]:
    reach = max(1, int(np.ceil(far)))
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return v.astype(float), u.astype(float)


def _zoomed(picture: Image.Image, largest: float) -> Image.Image:
    """The mean of the picture and of its enlarged middles."""
    width, height = picture.size
    total, factors = np.asarray(picture) / 255, np.arange(1, largest, _ZOOM_STEP)[1:]
    for factor in factors:
        left, top = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
        box = (left, top, width - left, height - top)
        total = total + np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box)) / 255
    return _from_values(total / (len(factors) + 1))


def _bent(picture: Image.Image, far: float, rng: np.random.Generator) -> Image.Image:
    """Each point is taken from one nearby; how far off changes smoothly over the picture."""
    width, height = picture.size
    moves = [
        np.asarray(
            Image.fromarray(rng.normal(size=(_WAVES, _WAVES), scale=far).astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
        )
        for _ in range(2)
    ]
    y, x = np.mgrid[0:height, 0:width]
    values = np.asarray(picture) / 255
    return _from_values(_sampled(values, np.clip(y + moves[0], 0, height - 1), np.clip(x + moves[1], 0, width - 1)))


def _sampled(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Between pixels, bilinear: [H, W, 3] at [H, W] places each within the picture."""
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    below, right = np.minimum(top + 1, len(values) - 1), np.minimum(left + 1, values.shape[1] - 1)
    down, over = (y - top)[..., None], (x - left)[..., None]
    upper = values[top, left] * (1 - over) + values[top, right] * over
    lower = values[below, left] * (1 - over) + values[below, right] * over
    return upper * (1 - down) + lower * down


def _pencil(picture: Image.Image) -> Image.Image:
    """Grey divided by its blurred self: flat parts turn white, edges stay dark."""
    grey = picture.convert("L")
    blurred = grey.filter(ImageFilter.GaussianBlur(max(1.0, min(picture.size) / 32)))
    return _from_values((np.asarray(grey) + 1) / (np.asarray(blurred) + 1.0)).convert("RGB")


def _edges(picture: Image.Image) -> Image.Image:
    """How steep the grey is (Sobel), black on white; the steepest 2 % are fully black."""
    grey = np.pad(np.asarray(picture.convert("L"), dtype=float), 1, mode="edge")
    rows, columns = (grey[2:] - grey[:-2]), (grey[:, 2:] - grey[:, :-2])
    down = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    across = columns[:-2] + 2 * columns[1:-1] + columns[2:]
    steep = np.hypot(down, across)
    return _from_values(1 - steep / max(_STEEP, float(np.quantile(steep, 0.98)))).convert("RGB")


def _from_values(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8))
