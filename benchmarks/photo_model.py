"""What diptych-photo reaches: zero-shot on labelled photos, retrieval, loss by 8 bits, pictures a second, cold start.

    python benchmarks/photo_model.py DATA [--model FOLDER] [--sets cifar10 caltech101 ...]

DATA holds WebDataset evaluation folders (`diptych evaluate` reads the same), and `flickr8k` with captions. Each set has
the prompt templates that it brings along. Writes results/photo_model.json.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from diptych.data.labelled import read_labelled
from diptych.data.shards import ShardSet, captions_of
from diptych.eval.retrieval import retrieval
from diptych.eval.zero_shot import evaluate_zero_shot
from diptych.files import write_json
from diptych.runtime import hardware
from diptych.weights.bundle import Bundle
from diptych.weights.registry import DEFAULT_MODEL, load

SEED, ROUNDS = 0, 3
SETS = (
    "cifar10", "caltech101", "pacs_photo", "flowers5", "clothing10", "rsscn7", "pacs_sketch", "tinyimagenet32",
    "gtsrb", "mnist", "sign_digits",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    clip = load(arguments.model)
    sets: dict[str, Any] = {}
    for name in arguments.sets:
        scored = evaluate_zero_shot(clip, read_labelled(arguments.data / name), seed=SEED).to_dict()
        sets[name] = {key: value for key, value in scored.items() if key not in ("confusion", "per_class")}
        print(name, json.dumps(sets[name]), flush=True)
    result = {
        "model": Path(arguments.model).name,
        "fingerprint": clip.fingerprint(),
        "zero_shot": sets,
        "retrieval": flickr8k(clip, arguments.data / "flickr8k" / "val"),
        "pictures_per_second": speed(clip, arguments.data),
        "cold_start_seconds": cold_start(arguments.model),
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }
    write_json(Path(__file__).parent / "results" / "photo_model.json", result)
    print(json.dumps(result, indent=2))


def flickr8k(clip: Bundle, folder: Path) -> dict[str, Any]:
    """Pictures to captions and back."""
    shards = ShardSet(folder)
    samples = [shards[row] for row in range(len(shards))]
    captions = [captions_of(sample) for sample in samples]
    image_features = clip.encode_images([sample.picture or b"" for sample in samples])
    text_features = clip.encode_texts([text for texts in captions for text in texts], truncate=True)
    owners = torch.tensor([row for row, texts in enumerate(captions) for _ in texts])
    return retrieval(image_features, text_features, owners, seed=SEED).to_dict()


def speed(clip: Bundle, data: Path) -> float:
    """Photos a second, decoding included: the median of several rounds."""
    photos = read_labelled(data / "caltech101")
    pictures = [photos.image_bytes(index) for index in range(128)]
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
