"""Pictures that look a little like photographs, drawn on the spot, and what becomes of pictures on their way."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

SIZE = (180, 120)  # px


def scene(number: int) -> Image.Image:
    """Clouds with things before them; another number is another picture."""
    random = np.random.default_rng(number)
    width, height = SIZE
    clouds = Image.fromarray(random.integers(0, 256, (6, 9, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(clouds)
    for _ in range(14):
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = random.integers(6, 50, 2)
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        shape((x, y, x + w, y + h), fill=tuple(random.integers(0, 256, 3).tolist()))
    return clouds


def cropped(picture: Image.Image, share: float) -> Image.Image:
    width, height = (round(side * share) for side in picture.size)
    left, top = (picture.width - width) // 3, (picture.height - height) * 2 // 3
    return picture.crop((left, top, left + width, top + height))


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def marked(picture: Image.Image) -> Image.Image:
    copy = picture.copy()
    pen = ImageDraw.Draw(copy)
    pen.rectangle((0, 100, 100, 120), fill="black")
    pen.text((4, 104), "COPYRIGHT 2026", fill="white")
    return copy


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG": lambda picture: Image.open(io.BytesIO(jpeg(picture, 30))),
    "half size": lambda picture: picture.resize((90, 60), Image.Resampling.BICUBIC),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "aspect": lambda picture: picture.resize((240, 120), Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "crop 90 %": lambda picture: cropped(picture, 0.9),
    "crop 75 %": lambda picture: cropped(picture, 0.75),
    "a mark": marked,
    "a frame": lambda picture: ImageOps.expand(picture, border=12, fill="white"),
}
