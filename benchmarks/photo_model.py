"""What diptych-photo reaches: zero-shot on labelled photos, retrieval, pictures a second, cold start; and what parts of
it are worth.

    python benchmarks/photo_model.py DATA [--model NAME=FOLDER ...] [--sets cifar10 caltech101 ...] [--pictures N]
        [--no-speed]

DATA holds WebDataset evaluation folders (`diptych evaluate` reads the same), and `flickr8k` with captions. Each set has
the prompt templates that it brings along. `class_means` is a bound: what the same features would reach with a perfect
text side, taken for the mean of half of the labelled pictures, on the other half; `by_table` is top-1 with the prompts
that `diptych evaluate` takes, those of the table of tasks where it has the set. Rows are added to
results/photo_model.json by name; a row of another name stays as it is.
"""

import argparse
import datetime
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

import history
from diptych.classify import class_weights
from diptych.eval.measure import prompts_of, task_of
from diptych.eval.zero_shot import score_zero_shot
from diptych.measures.retrieval import retrieval
from diptych.pairs.shards import ShardSet, captions_of
from diptych.runtime import hardware
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.packaged import DEFAULT_TOWERS
from diptych.weights.registry import load_in_torch

RESULT = history.RESULTS / "photo_model.json"
SEED, ROUNDS, HALVES = 0, 3, 10
SETS = ("cifar10", "caltech101", "pacs_photo", "flowers5", "clothing10", "rsscn7", "pacs_sketch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", help=f"NAME=FOLDER, or a name; default {DEFAULT_TOWERS}")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--pictures", type=int, default=0, help="at most so many of each set, evenly spread; 0: all")
    parser.add_argument("--no-speed", action="store_true", help="neither retrieval nor speed")
    arguments = parser.parse_args()
    features: dict[tuple[str, str], Tensor] = {}  # by image side and set: several models may have the same
    for entry in arguments.model or [DEFAULT_TOWERS]:
        name, _, folder = entry.partition("=")
        clip = load_in_torch(folder or name)
        row: dict[str, Any] = {"fingerprint": clip.fingerprint(), "zero_shot": {}}
        for set_name in arguments.sets:
            photos = read_labelled(arguments.data / set_name)
            kept = evenly_spread(len(photos), arguments.pictures)
            key = (image_side(clip), set_name)
            if key not in features:
                features[key] = torch.from_numpy(clip.encode_images([photos.image_bytes(index) for index in kept]))
            row["zero_shot"][set_name] = score(clip, photos, features[key], torch.tensor(photos.targets)[kept])
            print(name, set_name, json.dumps(row["zero_shot"][set_name]), flush=True)
        if not arguments.no_speed:
            row["retrieval"] = flickr8k(clip, arguments.data / "flickr8k" / "val")
            row["pictures_per_second"] = speed(clip, arguments.data)
            row["cold_start_seconds"] = cold_start(folder or name)
        row |= {"seed": SEED, "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "hardware": hardware()}
        rows = json.loads(RESULT.read_text(encoding="utf-8"))["models"] if RESULT.exists() else {}
        history.write(RESULT, {"models": rows | {name: row}}, measured={"models": {name: row}})
        print(name, json.dumps(row), flush=True)


def evenly_spread(count: int, most: int) -> list[int]:
    """At most so many positions of `count`, from the first to near the last."""
    wanted = min(most or count, count)
    return [number * count // wanted for number in range(wanted)]


def image_side(clip: Bundle) -> str:
    """A digest of all that makes features out of pictures."""
    digest = hashlib.sha256(repr((clip.preprocess, clip.model.config.image)).encode())
    for name, value in sorted(clip.model.image.state_dict().items()):
        digest.update(name.encode() + value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def score(clip: Bundle, photos: LabelledImages, features: Tensor, targets: Tensor) -> dict[str, Any]:
    """Zero-shot, and the bound."""
    weights = torch.from_numpy(class_weights(clip, photos.classnames, photos.templates or ("{}",)))
    scored = score_zero_shot(features, targets, weights, templates=photos.templates or ("{}",), seed=SEED).to_dict()
    prompts = prompts_of(photos, task_of(photos.name, "classification"))
    of_table = torch.from_numpy(class_weights(clip, prompts.classnames, prompts.templates))
    return scored | {
        "by_table": score_zero_shot(features, targets, of_table, templates=prompts.templates, seed=SEED).top1,
        "class_means": class_means(features, targets, len(photos.classnames)),
    }


def class_means(features: Tensor, targets: Tensor, classes: int) -> float:
    """Top-1 of the nearest class mean: the mean over several halves that give the means, the other half being asked."""
    shares = []
    for seed in range(HALVES):
        order = torch.randperm(len(targets), generator=generator(seed))
        known, asked = order.chunk(2)
        means = torch.zeros(classes, features.shape[1]).index_add_(0, targets[known], features[known])
        found = (features[asked] @ normalize(means, dim=1).T).argmax(dim=1)
        shares.append((found == targets[asked]).float().mean().item())
    return round(statistics.mean(shares), 4)


def flickr8k(clip: Bundle, folder: Path) -> dict[str, Any]:
    """Pictures to captions and back."""
    shards = ShardSet(folder)
    samples = [shards[row] for row in range(len(shards))]
    captions = [captions_of(sample) for sample in samples]
    image_features = torch.from_numpy(clip.encode_images([sample.picture or b"" for sample in samples]))
    texts = [text for some in captions for text in some]
    text_features = torch.from_numpy(clip.encode_texts(texts, truncate=True))
    owners = torch.tensor([row for row, texts in enumerate(captions) for _ in texts])
    return retrieval(image_features, text_features, owners, seed=SEED).to_dict()


def speed(clip: Bundle, data: Path) -> float:
    """Photos a second, decoding included: the median of several rounds."""
    photos = read_labelled(data / "caltech101")
    pictures: Sequence[bytes] = [photos.image_bytes(index) for index in range(128)]
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        clip.encode_images(pictures, batch_size=16)
        seconds.append(time.perf_counter() - start)
    return round(len(pictures) / statistics.median(seconds), 1)


def cold_start(model: str) -> float:
    """Seconds of one `diptych classify`, import included: the median of several."""
    picture = Path(__file__).parent.parent / "docs" / "images" / "examples" / "sailboat.png"
    labels = [word for label in ("a boat", "a dog", "a house") for word in ("--labels", label)]
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        command = [sys.executable, "-m", "diptych", "classify", str(picture), *labels, "--model", model]
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds), 2)


if __name__ == "__main__":
    main()
