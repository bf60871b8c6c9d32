"""What diptych-pictogram and diptych-pictogram-small reach: zero-shot accuracy on the held-out art style, speed, size.

    python benchmarks/pictogram_model.py

Writes results/pictogram_model.json.
"""

import datetime
import json
import statistics
import time
from pathlib import Path
from typing import Any

import diptych
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.labelled import LabelledImages, read_labelled
from diptych.eval.zero_shot import evaluate_zero_shot
from diptych.files import write_json
from diptych.runtime import hardware

MODELS = ("diptych-pictogram", "diptych-pictogram-small")
SEED, ROUNDS = 0, 5
PICTURES = 512  # of which the speed is taken
SENTENCES = ("a {}", "an icon of a {}", "a photo of a {}.")  # that nobody needs here, yet people type


def main() -> None:
    data = read_labelled(data_path(HELD_OUT))
    results = {name: measure(name, data) for name in MODELS}
    write_json(Path(__file__).parent / "results" / "pictogram_model.json", {"models": results})
    print(json.dumps(results, indent=2))


def measure(name: str, data: LabelledImages) -> dict[str, Any]:
    """One model's row."""
    clip = diptych.load(name)
    scored = evaluate_zero_shot(clip, data, seed=SEED)
    pictures = [data.image_bytes(index) for index in range(PICTURES)]
    speeds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        clip.encode_images(pictures)
        speeds.append(len(pictures) / (time.perf_counter() - start))
    info = next(model for model in diptych.list_models() if model.name == name)
    in_sentences = {text: evaluate_zero_shot(clip, data, templates=(text,), seed=SEED).top1 for text in SENTENCES}
    return scored.to_dict() | {
        "top1_in_sentences": in_sentences,
        "fingerprint": clip.fingerprint(),
        "data": HELD_OUT,
        "chance": 1 / scored.classes,
        "parameters": info.parameters,
        "pictures_per_second": round(statistics.median(speeds)),
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }


if __name__ == "__main__":
    main()
