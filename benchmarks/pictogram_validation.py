"""The style that diptych-pictogram's choices are made on: Emoji One 4, of which nothing was learned and nothing ships.

    python benchmarks/pictogram_validation.py make pictograms-all emojione4       # a labelled folder, from npm
    python benchmarks/pictogram_validation.py measure emojione4 MODEL [MODEL ...] --corpus pictograms-all

Needs npm and `pip install 'diptych[pictograms]'`, as recipes/build_pictograms.py does, whose corpus the drawings are
compared with: near copies of one in training are left out, as those of the held-out style are there. Its sisters 1 and
2 are in that corpus, so the style is not quite strange. The classes are the names of embedded:twemoji, so that chance
is the same; those that Emoji One lacks have no picture. With a corpus, also what a model's features of drawings reach
with no words at all: each name at the mean of its training drawings. Writes results/pictogram_validation.json.
"""

import argparse
import collections
import datetime
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import diptych
import history
from diptych.data.embedded import HELD_OUT, data_path
from diptych.eval.measure import evaluate_zero_shot
from diptych.measures.binomial import clopper_pearson
from diptych.pairs.shards import ShardSet, captions_of
from diptych.runtime import hardware, instruction_sets
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.sets.writer import write_labelled
from diptych.weights.bundle import Bundle

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
from build_pictograms import NEAR_COPY, PACKAGES, EmojiWords, fetch, plain_hex, shrunk, thumbnail

PACKAGE, VERSION, FOLDER = "emojione-assets", "4.5.0", "png/64"
BATCH = 256
RESULT = history.RESULTS / "pictogram_validation.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("corpus", type=Path)
    making.add_argument("out", type=Path)
    measuring = commands.add_parser("measure")
    measuring.add_argument("data", type=Path)
    measuring.add_argument("models", nargs="+", help="NAME=FOLDER, or a name")
    measuring.add_argument("--corpus", type=Path, help="for what the pictures alone reach")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.corpus, arguments.out)
        return
    data = read_labelled(arguments.data)
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["models"] if RESULT.exists() else {}
    measured = {}
    for entry in arguments.models:
        name, _, folder = entry.partition("=")
        measured[name] = measure(diptych.load(folder or name), data, arguments.corpus)
        print(name, json.dumps(measured[name]), flush=True)
    history.write(RESULT, {"models": rows | measured}, measured={"models": measured})


def make(corpus: Path, out: Path) -> None:
    """Write the drawings whose emoji is a class, but those that are near one in training."""
    classes = {name: number for number, name in enumerate(read_labelled(data_path(HELD_OUT)).classnames)}
    training = ShardSet(corpus / "emoji")
    known = np.stack([thumbnail(pixels_of(training[row].picture)) for row in range(len(training))])  # [N, 768]
    dropped: collections.Counter[str] = collections.Counter()
    kept = []
    with tempfile.TemporaryDirectory() as scratch:
        words = EmojiWords(fetch("emojibase-data", PACKAGES["emojibase-data"], Path(scratch)))
        for path in sorted((fetch(PACKAGE, VERSION, Path(scratch)) / FOLDER).iterdir()):
            entry = words.by_hex.get(plain_hex(path.stem))
            target = classes.get(entry["label"].lower()) if entry else None
            if target is None:
                dropped["no class"] += 1
                continue
            pixels = shrunk(path)
            if (known @ thumbnail(pixels)).max() >= NEAR_COPY:
                dropped["near copy of a training picture"] += 1
            else:
                kept.append((path.stem, Image.fromarray(pixels), target))
        about = f"npm `{PACKAGE}` {VERSION}, for measurements alone; {dict(dropped)} left out."
        print(write_labelled(out, list(classes), {"test": kept}, templates=["{}"], about=about), dict(dropped))


def pixels_of(picture: bytes | None) -> np.ndarray:
    """[64, 64, 3] uint8."""
    return np.asarray(Image.open(io.BytesIO(picture or b"")).convert("RGB"))


def measure(clip: Bundle, data: LabelledImages, corpus: Path | None) -> dict[str, Any]:
    """One model's row."""
    scored = evaluate_zero_shot(clip, data, seed=0)
    assert scored.interval
    row = {
        "top1": scored.value,
        "low": scored.interval.low,
        "high": scored.interval.high,
        "top5": scored.numbers["top-5"],
        "images": scored.n,
        "classes": len(data.classnames),
        "fingerprint": clip.fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instruction_sets": instruction_sets(),
    }
    if corpus:
        right = by_drawings(clip, data, corpus)
        bounds = clopper_pearson(right, len(data))
        row |= {"by_drawings": right / len(data), "by_drawings_low": bounds.low, "by_drawings_high": bounds.high}
    return row


def by_drawings(clip: Bundle, data: LabelledImages, corpus: Path) -> int:
    """Pictures whose nearest mean of a name's training drawings is their own."""
    row_of = {name: row for row, name in enumerate(data.classnames)}
    means = np.zeros((len(row_of), clip.embed_dim), dtype=np.float32)  # [C, D]
    samples = ShardSet(corpus / "emoji")
    for start in range(0, len(samples), BATCH):
        some = [samples[row] for row in range(start, min(start + BATCH, len(samples)))]
        for feature, sample in zip(clip.encode_images([one.picture or b"" for one in some]), some, strict=True):
            row = row_of.get(next(iter(captions_of(sample))))
            if row is not None:
                means[row] += feature
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    pictures = clip.encode_images([data.image_bytes(index) for index in range(len(data))])
    return int(((pictures @ means.T).argmax(axis=1) == np.array(data.targets)).sum())


if __name__ == "__main__":
    main()
