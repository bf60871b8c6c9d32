"""Tell drawings from photographs, and bring the logits of two models to one level: `joint.json` of the model `diptych`.

    python recipes/build_joint.py DATA [--out src/diptych/weights/models/diptych]

Run it when the image tower of diptych-photo, or diptych-pictogram, has changed; `tests/test_joint.py` says when. Some 3
minutes on one core.

DATA holds the training parts of clothing10 (CC0), flowers5 (CC BY 2.0), caltech101 (CC BY 4.0) and sign_digits
(Apache-2.0) in WebDataset folders; the drawings are the package's own emoji and icons. Some pictures are also shown as
they may come: a photograph cut out, framed, in grey, shrunk, overexposed or compressed; a drawing on a ground of
colour, small, inverted, photographed, shrunk, compressed, or as lines alone. Of caltech101 some pictures are drawings:
those that a first fit, without them, takes for such are left out of the second.

The gate is a logistic regression on features of diptych-photo, photographs and drawings weighted alike; photographed
drawings count less and lines more. It opens where a drawing is likelier than not (a logit of 0) and is wide open at a
logit of 2. These two, the ridge and what counts how much were chosen on training parts of flickr8k, tinyimagenet32 and
pacs_sketch, which have no part in the fit.
"""

import argparse
import datetime
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import diptych
from diptych.config import to_dict
from diptych.data.embedded import data_path
from diptych.files import write_json
from diptych.pairs.shards import ShardSet, captions_of
from diptych.sets.open import read_labelled
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.golden import golden_picture
from diptych.weights.joint_file import Gate, JointFile
from diptych.weights.packaged import JOINT

PHOTOGRAPHS, DRAWINGS = "diptych-photo", "diptych-pictogram"
PHOTOS = {"clothing10": 250, "flowers5": 250, "caltech101": 250, "sign_digits": 100}  # of the training part, spread
DRAWN = {"emoji": 500, "icons": 500}
CHANGED = 50  # of each, in each shape
OPEN, WIDE = 0.0, 2.0  # logits of the regression between which the gate opens
RIDGE = 1e-2
SHOT, LINES, DOUBTFUL = 0.3, 3.0, 0.5  # what a photographed drawing, lines alone, and one of caltech101 count
SIDE = 224  # px
SEED = 0

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("src/diptych/weights/models/diptych"))
    arguments = parser.parse_args()
    photographs, drawings = diptych.load(PHOTOGRAPHS, engine="onnx"), diptych.load(DRAWINGS, engine="onnx")
    groups: list[tuple[np.ndarray, bool, float, bool]] = []  # features, is it drawn, its weight, may it be mislabelled
    for is_drawn, sets, changes in ((False, PHOTOS, OF_PHOTOS), (True, DRAWN, OF_DRAWINGS)):
        for name, count in sets.items():
            pictures = read(name, arguments.data, count)
            is_doubtful = name == "caltech101"
            counts = DOUBTFUL if is_doubtful else 1.0
            groups.append((encoded(photographs, pictures), is_drawn, counts, is_doubtful))
            spread = pictures[:: max(len(pictures) // CHANGED, 1)][:CHANGED]
            for change in changes:
                draw = np.random.default_rng(SEED)
                features = encoded(photographs, [change(picture, draw) for picture in spread])
                weight = SHOT if change is photographed else LINES if change is as_lines else counts
                groups.append((features, is_drawn, weight, is_doubtful))
            print(name, len(pictures), flush=True)
    weights, offset = fit(groups)
    joint = JointFile(
        photographs=PHOTOGRAPHS,
        drawings=DRAWINGS,
        level=round(level(photographs, drawings, arguments.data), 2),
        gate=Gate(
            weights=tuple(round(float(one) / (WIDE - OPEN), 4) for one in weights),
            offset=round((offset - OPEN) / (WIDE - OPEN), 4),
        ),
        golden=golden(photographs, drawings),
        about=f"recipes/build_joint.py, seed {SEED}, {datetime.datetime.now(datetime.UTC).date().isoformat()}",
    )
    arguments.out.mkdir(exist_ok=True)
    write_json(arguments.out / JOINT, to_dict(joint))


def read(name: str, data: Path, count: int) -> list[Image.Image]:
    """Squares of so many pictures of a training part, evenly spread."""
    preprocess = diptych.load(PHOTOGRAPHS, engine="onnx").preprocess
    if name in DRAWN:
        shards = ShardSet(data_path(f"embedded:{name}"))
        sources = [shards[row].picture or b"" for row in spread_rows(len(shards), count)]
    else:
        photos = read_labelled(data / name, split="train")
        sources = [photos.image_bytes(row) for row in spread_rows(len(photos), count)]
    return [Image.fromarray(preprocess.pixels(source)) for source in sources]


def spread_rows(length: int, count: int) -> list[int]:
    return [number * length // min(count, length) for number in range(min(count, length))]


def encoded(model: DualEncoder, pictures: list[Image.Image]) -> np.ndarray:
    """[N, D]."""
    parts = [pictures[start : start + 32] for start in range(0, len(pictures), 32)]
    return np.concatenate([model.encode_pixels(np.stack([np.asarray(one) for one in part])) for part in parts])


def fit(groups: list[tuple[np.ndarray, bool, float, bool]]) -> tuple[np.ndarray, float]:
    """Logistic regression by Newton's steps, photographs and drawings weighted alike; twice, see above."""
    features = np.concatenate([group[0] for group in groups]).astype(np.float64)
    drawn, each, doubtful = (
        np.concatenate([np.full(len(group[0]), float(group[column])) for group in groups]) for column in (1, 2, 3)
    )
    mean, deviation = features.mean(axis=0), features.std(axis=0).mean()
    inputs = np.c_[(features - mean) / deviation, np.ones(len(features))]
    sure, found = 1 - doubtful, np.zeros(inputs.shape[1])
    for _ in range(2):
        counted = each * sure
        for kind in (0.0, 1.0):
            counted[drawn == kind] /= 2 * counted[drawn == kind].sum()
        found = np.zeros_like(found)
        for _ in range(30):
            shares = 1 / (1 + np.exp(-inputs @ found))
            slope = inputs.T @ (counted * (shares - drawn)) + RIDGE * np.r_[found[:-1], 0]
            bend = (inputs * (counted * shares * (1 - shares))[:, None]).T @ inputs + RIDGE * np.eye(len(found))
            found -= np.linalg.solve(bend, slope)
        sure = np.where((doubtful > 0) & (inputs @ found > 0), 0.0, 1.0)
    weights = found[:-1] / deviation
    return weights, float(found[-1] - weights @ mean)


def level(photographs: DualEncoder, drawings: DualEncoder, data: Path) -> float:
    """By how much the logits of drawings stand above those of photographs: of the best of some hundred words, the mean.

    The words are names of emoji, which are none of the icons' and few of the photographs'.
    """
    shards = ShardSet(data_path("embedded:emoji"))
    words = sorted({captions_of(shards[row])[0] for row in spread_rows(len(shards), DRAWN["emoji"])})

    def best(model: DualEncoder, pictures: list[Image.Image]) -> float:
        squares = [Image.fromarray(model.preprocess.resized(picture)) for picture in pictures]
        logits = model.logits_per_image(encoded(model, squares), model.encode_texts(words, truncate=True))
        return float(logits.max(axis=1).mean())

    photos = [picture for name in PHOTOS for picture in read(name, data, CHANGED)]
    return best(drawings, read("icons", data, 4 * CHANGED)) - best(photographs, photos)


def golden(photographs: DualEncoder, drawings: DualEncoder) -> tuple[float, ...]:
    """A few numbers of the golden picture and text that change with the models."""
    picture = golden_picture()
    [first], [second] = photographs.encode_images([picture]), drawings.encode_images([picture])
    text = drawings.encode_texts(drawings.golden_texts[:1])[0]
    return (*(round(float(one), 3) for one in first[:4]), round(float(second @ text), 3))


# What may become of a picture


def ground(draw: np.random.Generator) -> tuple[int, int, int]:
    """White mostly, else black or some colour."""
    chosen = draw.random()
    if chosen < 0.6:
        return (255, 255, 255)
    red, green, blue = draw.integers(0, 256, 3).tolist() if chosen > 0.75 else (0, 0, 0)
    return (red, green, blue)


def cut_out(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    mask = Image.new("L", picture.size)
    pen = ImageDraw.Draw(mask)
    for _ in range(draw.integers(1, 4)):
        x, y, width, height = *draw.integers(10, 110, 2).tolist(), *draw.integers(60, 150, 2).tolist()
        (pen.ellipse if draw.random() < 0.6 else pen.rectangle)((x, y, min(x + width, 218), min(y + height, 218)), 255)
    return Image.composite(
        picture, Image.new("RGB", picture.size, ground(draw)), mask.filter(ImageFilter.GaussianBlur(1))
    )


def framed(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    side = int(draw.integers(90, 190))
    inner = picture.resize((SIDE, side) if draw.random() < 0.5 else (side, side))
    outer = Image.new("RGB", picture.size, ground(draw))
    outer.paste(inner, ((SIDE - inner.width) // 2, (SIDE - inner.height) // 2))
    return outer


def compressed(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


def grey(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.convert("L").convert("RGB")


def shrunk(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.resize((32, 32), Image.Resampling.BICUBIC).resize(picture.size, Image.Resampling.BICUBIC)


def overexposed(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return Image.fromarray(np.minimum(np.asarray(picture) * 1.6, 255).astype(np.uint8))


def on_colour(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    colour = draw.integers(120, 256, 3) / 255
    return Image.fromarray((np.asarray(picture) * colour).astype(np.uint8))


def small(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    side = int(draw.integers(70, 170))
    outer = Image.new("RGB", picture.size, (255, 255, 255))
    x, y = draw.integers(0, SIDE - side, 2).tolist()
    outer.paste(picture.resize((side, side)), (x, y))
    return outer


def inverted(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.invert(picture)


def photographed(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8))).astype(float)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    light = 0.75 + 0.2 * (x * draw.random() + y * draw.random())
    noisy = pixels * light[..., None] + draw.normal(0, 4, pixels.shape)
    return compressed(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), draw)


def as_lines(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    soft = picture.convert("L").filter(ImageFilter.GaussianBlur(float(draw.uniform(1, 2.5))))
    edges = ImageOps.crop(soft.filter(ImageFilter.FIND_EDGES), 3)  # of the picture itself are none of the drawing's
    lines = ImageOps.autocontrast(edges).resize(picture.size).point([255 if value <= 50 else 0 for value in range(256)])
    pen = int(draw.choice([1, 3, 5]))
    return lines.filter(ImageFilter.MinFilter(pen)).filter(ImageFilter.GaussianBlur(0.7)).convert("RGB")


OF_PHOTOS: tuple[Change, ...] = (cut_out, framed, compressed, grey, shrunk, overexposed)
OF_DRAWINGS: tuple[Change, ...] = (on_colour, small, inverted, photographed, as_lines, shrunk, compressed)


if __name__ == "__main__":
    main()
