"""What diptych-pictogram and diptych-pictogram-small reach: zero-shot accuracy on the held-out art style, speed, size.

    python benchmarks/pictogram_model.py [--model NAME=FOLDER ...]

Writes results/pictogram_model.json, a row a model; rows of other models stay as they are.
"""

import argparse
import dataclasses
import datetime
import json
import statistics
import time
from typing import Any

import diptych
import history
from diptych.data.embedded import HELD_OUT, data_path
from diptych.eval.measure import evaluate_zero_shot
from diptych.runtime import hardware
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle

MODELS = ("diptych-pictogram", "diptych-pictogram-small")
SEED, ROUNDS = 0, 5
PICTURES = 512  # of which the speed is taken
SENTENCES = ("a {}", "an icon of a {}", "a photo of a {}.")  # that nobody needs here, yet people type
RESULT = history.RESULTS / "pictogram_model.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help=f"NAME=FOLDER, or a name; default {' and '.join(MODELS)}")
    arguments = parser.parse_args()
    data = read_labelled(data_path(HELD_OUT))
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["models"] if RESULT.exists() else {}
    measured = {}
    for entry in arguments.model or MODELS:
        name, _, folder = entry.partition("=")
        measured[name] = measure(diptych.load(folder or name), data)
        print(name, json.dumps(measured[name]), flush=True)
    history.write(RESULT, {"models": rows | measured}, measured={"models": measured})


def measure(clip: Bundle, data: LabelledImages) -> dict[str, Any]:
    """One model's row."""
    scored = evaluate_zero_shot(clip, data, seed=SEED)
    pictures = [data.image_bytes(index) for index in range(PICTURES)]
    speeds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        clip.encode_images(pictures)
        speeds.append(len(pictures) / (time.perf_counter() - start))
    in_sentences = {text: evaluate_zero_shot(clip, data, templates=(text,), seed=SEED).value for text in SENTENCES}
    assert scored.interval
    return {
        "top1": scored.numbers["top-1"],
        "top5": scored.numbers["top-5"],
        "mean_per_class": scored.numbers["mean per class"],
        "interval": dataclasses.asdict(scored.interval),
        "classes": len(scored.prompts.labels),
        "images": scored.n,
        "skipped": dict(scored.skipped),
        "templates": list(scored.prompts.templates),
        "top1_in_sentences": in_sentences,
        "fingerprint": clip.fingerprint(),
        "data": HELD_OUT,
        "chance": 1 / len(scored.prompts.labels),
        "parameters": sum(parameter.numel() for parameter in clip.in_torch().model.parameters()),
        "pictures_per_second": round(statistics.median(speeds)),
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }


if __name__ == "__main__":
    main()
