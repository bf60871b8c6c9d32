"""What the models for pictograms reach: zero-shot accuracy on the held-out art style, speed, size.

    python benchmarks/pictogram_models.py

Writes results/pictogram_models.json.
"""

import datetime
import json
import statistics
import time
from pathlib import Path

import diptych
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.labelled import read_labelled
from diptych.eval.zero_shot import evaluate_zero_shot
from diptych.files import write_json
from diptych.runtime import hardware

MODELS = ("diptych-pictogram-small",)
SEED, ROUNDS = 0, 5


def main() -> None:
    data = read_labelled(data_path(HELD_OUT))
    pictures = [data.image_bytes(index) for index in range(512)]
    bundles = {name: diptych.load(name) for name in MODELS}
    speeds: dict[str, list[float]] = {name: [] for name in MODELS}
    for _ in range(ROUNDS):
        for name, bundle in bundles.items():
            start = time.perf_counter()
            bundle.encode_images(pictures)
            speeds[name].append(len(pictures) / (time.perf_counter() - start))
    infos = {model.name: model for model in diptych.list_models()}
    models = {}
    for name, bundle in bundles.items():
        scored = evaluate_zero_shot(bundle, data, seed=SEED)
        models[name] = scored.to_dict() | {
            "fingerprint": bundle.fingerprint(),
            "chance": 1 / scored.classes,
            "parameters": infos[name].parameters,
            "bytes": infos[name].size,
            "pictures_per_second": round(statistics.median(speeds[name])),
        }
    result = {
        "data": HELD_OUT,
        "models": models,
        "seed": SEED,
        "rounds": ROUNDS,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }
    write_json(Path(__file__).parent / "results" / "pictogram_models.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
