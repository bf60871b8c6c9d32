"""Where it looks: at which size pictures are encoded for their maps, and how well the maps then point.

    python benchmarks/where.py --photos FOLDER [--scenes 100] [--only choose|report]

The size is chosen on drawings with even numbers, and on the test split of pacs_photo; it is reported on drawings with
odd numbers, the train split of pacs_photo, and on caltech101. FOLDER has pacs_photo and caltech101. Time is that of the
processor, of one thread, a scene of two pictures. Writes results/where.json.
"""

import argparse
import datetime
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import history
from diptych.audit.pointing import pointing
from diptych.data.embedded import HELD_OUT, data_path
from diptych.eval.features import ModelFeatures
from diptych.runtime import hardware
from diptych.sets.composed import compose
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.registry import load_in_torch
from diptych.where import LARGER, encode_whole, with_map_size

SEED = 0
SIZES = {"diptych-pictogram": (64, 128, 192), "diptych-photo": (224, 320, 448)}  # px of the longer side
OUT = Path(__file__).parent / "results" / "where.json"


def half(pictures: LabelledImages, first: int) -> LabelledImages:
    """Every second picture, with even or odd numbers, and their classes alone."""
    rows = range(first, len(pictures), 2)
    classes = sorted({int(pictures.targets[row]) for row in rows})
    return replace(
        pictures,
        keys=tuple(pictures.keys[row] for row in rows),
        classnames=tuple(pictures.classnames[one] for one in classes),
        targets=torch.tensor([classes.index(int(pictures.targets[row])) for row in rows]).numpy(),
        _sources=tuple(pictures._sources[row] for row in rows),
    )


def measured(model: str, pictures: LabelledImages, size: int, scenes: int, name: str) -> list[dict[str, Any]]:
    """A row for each number of the chapter."""
    chapter = pointing(ModelFeatures(load_in_torch(model)), pictures, scenes=scenes, image_size=size, seed=SEED)
    rows = [
        {
            "model": model,
            "pictures": name,
            "size": size,
            "case": ", ".join(result.case.values()),
            "value": round(result.value, 4),
            "interval": [round(result.interval.low, 4), round(result.interval.high, 4)] if result.interval else None,
            "n": result.n,
            "chance": result.numbers.get("chance"),
        }
        for result in chapter.results
    ]
    for row in rows:
        print(*row.values(), sep="  ", flush=True)
    return rows


def seconds(model: str, pictures: LabelledImages, size: int) -> dict[str, Any]:
    bundle = with_map_size(load_in_torch(model), size)
    scenes = compose(pictures, 5, squares=2, side=size // 2, seed=SEED).scenes
    encode_whole(bundle, scenes[0].picture)
    before = time.process_time()
    for scene in scenes:
        encode_whole(bundle, scene.picture)
    spent = round(1000 * (time.process_time() - before) / len(scenes), 1)
    print(model, size, f"{spent} ms", flush=True)
    return {"model": model, "size": size, "milliseconds": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--only", choices=("choose", "report"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    drawings = read_labelled(data_path(HELD_OUT))
    photos = read_labelled(options.photos / "pacs_photo")
    found: dict[str, Any] = {"chosen on": [], "reported": [], "times": []}
    if options.only != "report":
        for model, one, name in (
            ("diptych-pictogram", half(drawings, 0), "drawings, even"),
            ("diptych-photo", photos, "pacs_photo, test"),
        ):
            for size in SIZES[model]:
                found["chosen on"] += measured(model, one, size, options.scenes, name)
                found["times"].append(seconds(model, one, size))
    if options.only != "choose":
        for model, one, name in (
            ("diptych-pictogram", half(drawings, 1), "drawings, odd"),
            ("diptych-photo", read_labelled(options.photos / "pacs_photo", split="train"), "pacs_photo, train"),
            ("diptych-photo", read_labelled(options.photos / "caltech101"), "caltech101, test"),
        ):
            size = LARGER * load_in_torch(model).preprocess.image_size
            found["reported"] += measured(model, one, size, options.scenes, name)
    conditions = {"hardware": hardware(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    result = {"seed": SEED, "n": options.scenes, **conditions, **found}
    history.write(OUT, result, keys=("model", "pictures", "size", "case"))


if __name__ == "__main__":
    main()
