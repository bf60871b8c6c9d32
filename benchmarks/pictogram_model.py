"""What diptych-pictogram-small reaches: zero-shot accuracy on the held-out art style, speed, size.

    python benchmarks/pictogram_model.py

Writes results/pictogram_model.json.
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

MODEL = "diptych-pictogram-small"
SEED, ROUNDS = 0, 5


def main() -> None:
    clip = diptych.load(MODEL)
    data = read_labelled(data_path(HELD_OUT))
    scored = evaluate_zero_shot(clip, data, seed=SEED)
    pictures = [data.image_bytes(index) for index in range(512)]
    speeds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        clip.encode_images(pictures)
        speeds.append(len(pictures) / (time.perf_counter() - start))
    info = next(model for model in diptych.list_models() if model.name == MODEL)
    result = scored.to_dict() | {
        "model": MODEL,
        "fingerprint": clip.fingerprint(),
        "data": HELD_OUT,
        "chance": 1 / scored.classes,
        "parameters": info.parameters,
        "pictures_per_second": round(statistics.median(speeds)),
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }
    write_json(Path(__file__).parent / "results" / "pictogram_model.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
