"""Are copies of evaluation pictures found among 10,000 training pictures, and nothing else?

    OMP_NUM_THREADS=1 python benchmarks/overlap.py [--chosen-on] [--photo] [--show FOLDER]

Wants data sets beside the repository (../shared/data). Of photographs, which the detector was not trained on, 300 are
the evaluation set; of 60 of them a copy of each change lies among training pictures that are 10,000 in all. Some
pictures of flowers5 and rsscn7 were looked at when the form of the score was chosen; most of the rest are flickr8k's,
which were not. Each training picture is judged as `curate` does it, and each evaluation picture as `audit overlap`
does it, with the copies of one change at a time.

--chosen-on measures on the sets that the limits in curate/copies.py were chosen on. --photo adds what the features of
diptych-photo find, which takes minutes. --show writes pairs that were found and not planted, to be judged by eye.
Writes results/overlap.json.
"""

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

import history
from diptych.curate.copies import (
    HASH_BITS,
    LEAST_COSINE,
    NEAREST,
    THRESHOLD,
    Sketches,
    best_scores,
    candidates,
    small_grey,
)
from diptych.data.images import open_image
from diptych.embed import encode_fast
from diptych.measures.binomial import clopper_pearson
from diptych.measures.perceptual_hash import hamming
from diptych.pairs.sources import Source, open_pairs
from diptych.runtime import hardware
from diptych.weights.registry import load_in_torch

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
CHOSEN_ON = ("caltech101", "clothing10", "pacs_photo", "tinyimagenet32")
REPORTED_ON = ("flickr8k", "flowers5", "rsscn7", "cifar10")
TRAINING, EVALUATION, PLANTED, SEED = 10_000, 300, 60, 0

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(share: float) -> Change:
    def cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
        width, height = (round(share * side) for side in picture.size)
        left, top = random.integers(0, picture.width - width + 1), random.integers(0, picture.height - height + 1)
        return picture.crop((left, top, left + width, top + height))

    return cropped


def as_jpeg(picture: Image.Image, _random: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30)
    return Image.open(file)


def text(picture: Image.Image, _random: np.random.Generator) -> Image.Image:
    copy = picture.copy()
    pen, height = ImageDraw.Draw(copy), copy.height // 6
    pen.rectangle((0, copy.height - height, 0.6 * copy.width, copy.height), fill="black")
    font = ImageFont.load_default(size=max(8, copy.height // 8))
    pen.text((2, copy.height - height), "COPYRIGHT", fill="white", font=font)
    return copy


CHANGES: dict[str, Change] = {
    "JPEG of quality 30": as_jpeg,
    "half size": lambda picture, _: picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC),
    "brighter by 1.3": lambda picture, _: ImageEnhance.Brightness(picture).enhance(1.3),
    "grey": lambda picture, _: picture.convert("L").convert("RGB"),
    "aspect 4:3": lambda picture, _: picture.resize((picture.width * 4 // 3, picture.height), Image.Resampling.BICUBIC),
    "mirrored": lambda picture, _: ImageOps.mirror(picture),
    "crop to 90 %": crop(0.9),
    "crop to 75 %": crop(0.75),
    "text over a corner": text,
    "white border": lambda picture, _: ImageOps.expand(picture, border=round(0.08 * min(picture.size)), fill="white"),
}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pictures of some sets, in the order in which they are drawn."""

    pictures: list[bytes]
    seconds: float  # of one core a picture, to make it small and grey
    small: list[np.ndarray]


def pool(names: tuple[str, ...], random: np.random.Generator) -> Pool:
    pictures: list[bytes] = []
    for name in names:
        for split in sorted(path for path in (DATA / name).iterdir() if path.is_dir()):
            pairs = open_pairs(Source(path=str(split)))
            pictures += [picture for number in range(len(pairs)) if (picture := pairs[number].picture)]
    # Small pictures come last: they only fill up the training pictures.
    order = [int(row) for row in random.permutation(len(pictures))]
    order.sort(key=lambda row: min(Image.open(io.BytesIO(pictures[row])).size) < 64)
    began = time.process_time()
    chosen = [pictures[row] for row in order[: TRAINING + EVALUATION]]
    small = [small_grey(picture) for picture in chosen]
    return Pool(pictures=chosen, small=small, seconds=(time.process_time() - began) / len(small))


def share(found: np.ndarray) -> dict[str, float]:
    interval = clopper_pearson(int(found.sum()), len(found))
    return {"recall": float(found.mean()), "low": interval.low, "high": interval.high}


def measure(names: tuple[str, ...], *, photo: bool, show: Path | None) -> dict[str, object]:
    random = np.random.default_rng(SEED)
    drawn = pool(names, random)
    originals = [open_image(picture) for picture in drawn.pictures[:PLANTED]]
    copies = {name: [change(picture, random) for picture in originals] for name, change in CHANGES.items()}
    filler = min(TRAINING - PLANTED * len(CHANGES), len(drawn.small) - EVALUATION)
    began = time.process_time()
    others = Sketches.of(drawn.small[EVALUATION : EVALUATION + filler])
    detector_seconds = (time.process_time() - began) / filler
    known = Sketches.of(drawn.small[:EVALUATION], known=True)
    rows: list[dict[str, object]] = []
    found_others, other_scores = best_scores(others, known)
    false = np.flatnonzero(other_scores >= THRESHOLD)
    feature = photo_features(drawn, copies, filler) if photo else None
    for name, pictures in copies.items():
        sketches = Sketches.of([small_grey(picture) for picture in pictures])
        best, scores = best_scores(sketches, known)
        planted = Sketches(**{field: value[:PLANTED] for field, value in vars(known).items()})
        nearest, audit = best_scores(planted, joined(others, sketches))
        straight = hamming(planted.hashes, sketches.hashes)
        turned = hamming(planted.hashes, sketches.mirrored_hashes)
        row: dict[str, object] = {
            "change": name,
            "curate": share((scores >= THRESHOLD) & (best == np.arange(PLANTED))),
            "audit": share((audit >= THRESHOLD) & (nearest == filler + np.arange(PLANTED))),
            "hash alone": float((np.minimum(straight, turned) <= HASH_BITS).mean()),
            "detector among nearest": among(planted.features, sketches.features, others.features),
        }
        if feature:
            row["diptych-photo among nearest"] = among(
                *(one[:, None] for one in (feature["known"], feature[name], feature["others"]))
            )
        rows.append(row)
        print(row, flush=True)
    began = time.process_time()
    pairs = candidates(known, others)
    candidate_seconds = (time.process_time() - began) / len(known)
    if show:
        show.mkdir(parents=True, exist_ok=True)
        for number in false.tolist():
            sheet = Image.new("RGB", (520, 260), "white")
            for side, row in enumerate((int(found_others[number]), EVALUATION + number)):
                picture = open_image(drawn.pictures[row])
                picture.thumbnail((256, 256))
                sheet.paste(picture, (260 * side, 0))
            sheet.save(show / f"{other_scores[number]:.3f}-{number}.png")
    return {
        "sets": list(names),
        "training": filler + PLANTED * len(CHANGES),
        "evaluation": EVALUATION,
        "planted of each change": PLANTED,
        "rows": rows,
        "found and not planted": len(false),
        "candidates a picture": len(pairs) / len(known),
        "pictures a second, one core": {
            "decode and squeeze": 1 / drawn.seconds,
            "detector": 1 / detector_seconds,
            "look for candidates among 10,000": 1 / candidate_seconds,
        },
    }


def among(own: np.ndarray, copies: np.ndarray, others: np.ndarray) -> float:
    """Share of pictures, [N, V, D], whose copy is among the `NEAREST` of all training pictures."""
    cosines = np.einsum("nvd,nwd->nvw", own, copies).max(axis=(1, 2))
    to_others = np.stack([own[:, view] @ others[:, 0].T for view in range(own.shape[1])]).max(axis=0)
    return float(((to_others >= cosines[:, None]).sum(axis=1) < NEAREST).mean())


def joined(first: Sketches, second: Sketches) -> Sketches:
    return Sketches(**{name: np.concatenate([value, getattr(second, name)]) for name, value in vars(first).items()})


def photo_features(drawn: Pool, copies: dict[str, list[Image.Image]], filler: int) -> dict[str, np.ndarray]:
    bundle = load_in_torch("diptych-photo")

    def encoded(pictures: list[Image.Image] | list[bytes]) -> np.ndarray:
        batches = [pictures[first : first + 64] for first in range(0, len(pictures), 64)]
        pixels = bundle.preprocess.pixels
        return np.concatenate([encode_fast(bundle, [pixels(one) for one in some]) for some in batches])

    return {
        "known": encoded(drawn.pictures[:PLANTED]),
        "others": encoded(drawn.pictures[EVALUATION : EVALUATION + filler]),
        **{name: encoded(pictures) for name, pictures in copies.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chosen-on", action="store_true")
    parser.add_argument("--photo", action="store_true")
    parser.add_argument("--show", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = CHOSEN_ON if asked.chosen_on else REPORTED_ON
    result = measure(names, photo=asked.photo, show=asked.show)
    limits = {"threshold": THRESHOLD, "nearest": NEAREST, "least cosine": LEAST_COSINE, "hash bits": HASH_BITS}
    print(result)
    if not asked.chosen_on:
        result = {"seed": SEED, "hardware": hardware(), "limits": limits, **result}
        history.write(history.RESULTS / "overlap.json", result, keys=("change",))


if __name__ == "__main__":
    main()
