"""Shifted copies of a labelled set: the same pictures as sketches, or corrupted as ImageNet-C's are.

Noise, blur, contrast, brightness, pixelation and JPEG follow Hendrycks & Dietterich, arXiv:1903.12261, at their five
severities. These were set for pictures of 224 px: a blur is made wider or narrower with the shorter side, all else goes
by the pixel. The two sketches are ours.
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
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # of what is left
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV, of a range of 1
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # of the side that is left
    "jpeg": (25, 18, 15, 10, 7),  # quality
}
SKETCHES = ("pencil", "edges")
_STEEP = 128.0  # what Sobel makes of a step of 32 levels: less is never drawn fully black
SHIFTS = (*SKETCHES, *SEVERITIES)


def shift(picture: Image.Image, kind: str, *, severity: int = 3, rng: np.random.Generator) -> Image.Image:
    """One shifted picture, RGB, of the same size.

    Args:
        picture: RGB.
        kind: one of `SHIFTS`.
        severity: 1 to 5; the sketches have none.
        rng: for the noises.

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
    match kind:
        case "gaussian-blur":
            return picture.filter(ImageFilter.GaussianBlur(strength * min(width, height) / 224))
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
