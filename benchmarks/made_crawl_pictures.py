"""Pictures of a made crawl as one blob with an index: drawings in many copies, photographs or what is drawn for them.

A file is drawn when it is first asked for; the same spec is the same file, at the same address.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from crawl_server import HOSTS
from diptych.data.embedded import data_path
from made_crawl_texts import pairs_of

VALIDATION_STYLE = "noto-v1"  # in no crawl: recipes are chosen on it
_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}


class Picture:
    """A picture that pages show.

    Args:
        key: of the set it is from.
        data: its file.
        caption: the name, and on the next line further words.
    """

    def __init__(self, key: str, data: bytes, caption: str) -> None:
        self.key, self.data, self.caption = key, data, caption


def training_pictures() -> list[Picture]:
    """The embedded emoji and icons, without those of the validation style."""
    paths = [path for name in ("emoji", "icons") for path in sorted(data_path(f"embedded:{name}").glob("*.tar.gz"))]
    return [Picture(*one) for one in pairs_of(paths, "webp") if not one[0].startswith(f"{VALIDATION_STYLE}/")]


def validation_pictures() -> list[Picture]:
    """Those of the validation style, one a name."""
    paths = sorted(data_path("embedded:emoji").glob("*.tar.gz"))
    found = [Picture(*one) for one in pairs_of(paths, "webp") if one[0].startswith(f"{VALIDATION_STYLE}/")]
    return list({one.caption.partition("\n")[0]: one for one in reversed(found)}.values())


def evaluation_pictures() -> list[Picture]:
    """Those of the held-out style, with their class names as captions."""
    folder = data_path("embedded:twemoji")
    names = (folder / "classnames.txt").read_text(encoding="utf-8").splitlines()
    found = pairs_of(sorted(folder.glob("test/*.tar.gz")), "webp")
    return [Picture(key, data, name) for (key, data, _), name in zip(found, names, strict=True)]


def photographs(data: Path | None, count: int, seed: int) -> list[Picture]:
    """What stands on pages that do not speak of it: photographs of the shared sets, or drawn patches of colour."""
    if data is None:
        return [Picture(f"patches/{i}", _patches(np.random.default_rng((seed, i))), "") for i in range(count)]
    found = [one for name in ("flickr8k", "caltech101", "pacs_photo") if (data / name).is_dir()
             for one in pairs_of(sorted((data / name / "train").glob("*.tar")), "jpg")]  # fmt: skip
    chosen = np.random.default_rng(seed).permutation(len(found))[:count]
    return [Picture(f"photo/{i}", found[i][1], "") for i in chosen.tolist()]


def changed(picture: Picture, change: str, side: int = 96) -> bytes:
    """A copy, its shorter side so long before one of `CHANGES`."""
    return _saved(CHANGES[change](_sized(picture, side)), "jpg", 30 if change == "JPEG quality 30" else 90)


class Pictures:
    """The files of a crawl, written as they are asked for.

    Args:
        folder: for `pictures.bin` and `pictures.json`.
        port: of all hosts.
        seed: of what chance decides in a file.
    """

    def __init__(self, folder: Path, port: int, seed: int) -> None:
        self._folder, self._port, self._seed = folder, port, seed
        self._file = (folder / "pictures.bin").open("wb")
        self._index: dict[str, dict[str, Any]] = {}
        self._known: dict[tuple[str, ...], tuple[int, int, str]] = {}

    def url(self, picture: Picture, variant: int, *, change: str = "", folder: str = "p", **told: Any) -> str:
        """The address of a copy of a picture.

        Args:
            picture: which.
            variant: 0 is the plain one; further ones are changed by chance.
            change: one of `CHANGES`, in the place of what chance would do.
            folder: of the address; the same copy in another one has the same bytes.
            told: how the server answers, see `crawl_server.py`.
        """
        name = f"{picture.key} {variant} {change} {sorted(told)}"
        number = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        spec = (picture.key, str(variant), change)
        if spec not in self._known:
            kind, data = self._copy(picture, variant, change)
            self._known[spec] = (self._file.tell(), len(data), kind)
            self._file.write(data)
        at, length, kind = self._known[spec]
        path = f"/{folder}/{number}.{kind}"
        self._index[path] = {"type": _TYPES[kind], "at": at, "length": length, **told}
        return self.address(path)

    def fixed(self, path: str, data: bytes, kind: str, **told: Any) -> str:
        """The address of a file of a site."""
        if path not in self._index:
            self._index[path] = {"type": kind, "at": self._file.tell(), "length": len(data), **told}
            self._file.write(data)
        return self.address(path)

    def address(self, path: str) -> str:
        """A path, on the host that it is on."""
        return f"http://{HOSTS[zlib.crc32(path.encode()) % len(HOSTS)]}:{self._port}{path}"

    def close(self) -> None:
        self._file.close()
        (self._folder / "pictures.json").write_text(json.dumps(self._index))

    def _copy(self, picture: Picture, variant: int, change: str) -> tuple[str, bytes]:
        draw = np.random.default_rng((self._seed, zlib.crc32(f"{picture.key} {variant} {change}".encode())))
        side = int(draw.choice((72, 96, 96, 128)))
        if change:
            return "jpg", changed(picture, change, side)
        image = _sized(picture, side)
        if variant:
            name = str(draw.choice(("as it is", "mirrored", "brightness +20 %", "border of 5 %", "crop to 90 %")))
            image = CHANGES[name](image)
        kind = str(draw.choice(("jpg", "jpg", "webp", "png")))
        return kind, _saved(image, kind, int(draw.integers(40, 95)))


def _sized(picture: Picture, side: int) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data)).convert("RGB")
    scale = side / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = (round(side * share) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "JPEG quality 30": lambda image: image,
    "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "brightness +20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "brightness -20 %": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "aspect +10 %": lambda image: image.resize((round(image.width * 1.1), image.height), Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "border of 5 %": lambda image: ImageOps.expand(image, round(0.05 * image.width), "white"),
    "crop to 90 %": lambda image: _cropped(image, 0.9),
    "crop to 75 %": lambda image: _cropped(image, 0.75),
}


def site_logo(number: int) -> bytes:
    """A logo of 120 x 40 px."""
    draw = np.random.default_rng((7, number))
    image = Image.new("RGB", (120, 40), tuple(draw.integers(0, 256, 3).tolist()))
    brush = ImageDraw.Draw(image)
    brush.text((10, 8), f"site {number}", fill="white", font_size=20)
    return _saved(image, "png", 90)


def banner(number: int) -> bytes:
    """A banner of 468 x 60 px."""
    image = Image.open(io.BytesIO(_patches(np.random.default_rng((8, number))))).resize((468, 60))
    return _saved(image, "jpg", 80)


def plain(side: int, colour: Sequence[int] = (255, 255, 255)) -> bytes:
    """A square of one colour."""
    return _saved(Image.new("RGB", (side, side), tuple(colour)), "png", 90)


def small_icon(letter: str) -> bytes:
    """A button of 24 px."""
    image = Image.new("RGB", (24, 24), "navy")
    ImageDraw.Draw(image).text((8, 4), letter, fill="white", font_size=14)
    return _saved(image, "png", 90)


def _patches(draw: np.random.Generator) -> bytes:
    low = draw.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(low).resize((160, 120), Image.Resampling.BICUBIC)
    brush = ImageDraw.Draw(image)
    for _ in range(int(draw.integers(1, 5))):
        x, y = int(draw.integers(0, 120)), int(draw.integers(0, 80))
        box = (x, y, x + int(draw.integers(10, 60)), y + int(draw.integers(10, 60)))
        shape = brush.ellipse if draw.random() < 0.5 else brush.rectangle
        shape(box, fill=tuple(draw.integers(0, 256, 3).tolist()))
    return _saved(image, "jpg", 85)


def _saved(image: Image.Image, kind: str, quality: int) -> bytes:
    file = io.BytesIO()
    name = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[kind]
    image.save(file, name, **({} if kind == "png" else {"quality": quality}))
    return file.getvalue()
