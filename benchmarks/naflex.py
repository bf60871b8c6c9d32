"""What NaFlex training gains in equal processor time: lengths drawn and shapes kept, beside squares of one size.

    python benchmarks/naflex.py                                        # two sets, 2 seeds, 90 CPU seconds a run
    python benchmarks/naflex.py --sets emoji --seconds 5 --seeds 1 --out /tmp/small.json

Same pairs, same width and depth, same text tower, same rate and budget of patches a step; what differs is what becomes
of a picture. `square 64` is SigLIP's tower on squares of 64 patches, `square 32` the same on 16. `naflex 64` keeps the
shape and always has up to 64 patches; `naflex drawn` has 16, 36 or 64, drawn a batch. Each way's steps are those that
fit into the seconds, after a probe of some steps; seconds are those of all threads of the process, decoding included,
and what each run really took stands in the result.

Sets: `emoji` are the embedded pairs, all square, and zero-shot top-1 on a drawing style that nobody trained on.
`photos` are those of Flickr8k, most of them 4:3 or 3:4, and recall@10 from text to picture among 1,000 others, in
../shared/data/flickr8k. Every model is measured at several sizes, squares with their positions stretched.

Writes results/naflex.json, in which sets that are not measured stay, and a line of its history.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import history
from diptych.config import from_dict
from diptych.data.embedded import data_path
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import one_set
from diptych.eval.measure import evaluate_zero_shot
from diptych.eval.suite import Asked, measure_one
from diptych.eval.tasks import FewShot
from diptych.runtime import hardware
from diptych.sets.open import read_labelled
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train
from diptych.weights.bundle import Bundle

PHOTOS = Path(__file__).parent.parent.parent / "shared" / "data" / "flickr8k"
PATCH, WIDTH = 8, 64
SIDES = (32, 48, 64, 96)  # px of one side, at which models are measured: 16, 36, 64 and 144 patches
WAYS: dict[str, dict[str, Any]] = {
    "square 64": {"side": 64},
    "square 32": {"side": 32, "pairs": 4},  # as many patches a step
    "naflex 64": {"side": 64, "naflex": True},
    "naflex drawn": {"side": 64, "naflex": True, "lengths": [16, 36, 64]},
}
SETS: dict[str, dict[str, Any]] = {
    "emoji": {
        "first_caption": 0.9,
        "sources": [{"path": "embedded:emoji", "weight": 9.0}, {"path": "embedded:icons", "weight": 1.0}],
        "augment": {"crop_scale": [0.7, 1.0], "crop_ratio": [0.85, 1.18], "color": 0.2},
    },
    "photos": {
        "sources": [{"path": str(PHOTOS / "train")}],
        "augment": {"crop_scale": [0.6, 1.0], "crop_ratio": [0.85, 1.18], "color": 0.2, "flip": True},
    },
}


def recipe_of(way: str, data: str, seed: int, steps: int, options: argparse.Namespace) -> TrainRecipe:
    kind = WAYS[way]
    side, naflex = kind["side"], kind.get("naflex", False)
    flexible = {"resize": "naflex", "patch_size": PATCH} if naflex else {}
    tower = {"kind": "naflex" if naflex else "siglip", "image_size": side, "patch_size": PATCH}
    return from_dict(
        TrainRecipe,
        {
            "name": way,
            "seed": seed,
            "tokenizer": {"vocab_size": 4096},
            "preprocess": {"image_size": side, **flexible},
            "model": {
                "embed_dim": WIDTH,
                "image": {**tower, "width": WIDTH, "layers": 3, "heads": 2},
                "text": {"context_length": 32, "vocab_size": 4096, "width": WIDTH, "layers": 1, "heads": 2},
            },
            "data": {**SETS[data], "sequence_lengths": kind.get("lengths", [])},
            "train": {
                "steps": steps,
                "batch_size": options.batch * kind.get("pairs", 1),
                "learning_rate": 2e-3,
                "warmup_steps": max(1, min(40, steps // 10)),
                "optimizer": "muon",
                "precision": options.precision,
                "checkpoint_every": steps,
            },
        },
    )


def trained(recipe: TrainRecipe) -> tuple[Bundle, float, int]:
    """A run from first to last: the model, processor seconds from the first step on, and pairs."""
    started: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            recipe,
            Path(folder) / "run",
            on_progress=lambda _: started.append(time.process_time()),
        )
        assert result.finished, "a signal cut the run short: its numbers are of no use"
        # The first step is a step less and the last checkpoint one thing more; a run has hundreds of steps.
        spent = (started[-1] - started[0]) * len(started) / (len(started) - 1)
    return result.bundle, spent, result.counts["pairs"]


def seconds_a_step(way: str, data: str, options: argparse.Namespace) -> float:
    """The mean over some steps, lengths drawn as in the run."""
    return trained(recipe_of(way, data, 0, options.probe, options))[1] / options.probe


def accuracies(bundle: Bundle, data: str) -> dict[str, float]:
    """At each side: zero-shot top-1, or recall@10 from text to picture."""
    models = {side: bundle.with_image_size(side) for side in SIDES}
    if data == "emoji":
        held_out = read_labelled(data_path("embedded:twemoji"))
        return {f"{side} px": evaluate_zero_shot(model, held_out).numbers["top-1"] for side, model in models.items()}
    asked = Asked(model="naflex", seed=0, templates=None, few_shot=FewShot())
    one = one_set(PHOTOS, "retrieval", split="val")

    def recall(model: Bundle) -> float:
        features = ModelFeatures(model, truncate=True)
        return measure_one(lambda **_: features, one, "retrieval", asked).numbers["text to image recall@10"]

    return {f"{side} px": recall(model) for side, model in models.items()}


def measure(data: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All runs on one set."""
    steps = {way: round(options.seconds / seconds_a_step(way, data, options)) for way in options.ways}
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):  # one seed of each first, so that what else the machine does falls on all
        for way in options.ways:
            bundle, spent, pairs = trained(recipe_of(way, data, seed, steps[way], options))
            row = {"way": way, "seed": seed, "steps": steps[way], "pairs": pairs, "cpu_seconds": round(spent, 1)}
            rows.append(row | {"accuracy": accuracies(bundle, data)})
            print(data, rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seconds", type=float, default=90.0, help="of processor time, a run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="pairs a step at 64 patches")
    parser.add_argument("--probe", type=int, default=24, help="steps whose time is measured first")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "naflex.json")
    options = parser.parse_args()
    result = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    conditions = {name: value for name, value in vars(options).items() if name not in ("out", "sets")}
    measured = {data: {"conditions": conditions, "rows": measure(data, options)} for data in options.sets}
    result |= {"hardware": hardware(), **measured}  # sets that were measured before stay
    history.write(options.out, result, keys=("way", "seed"), measured=measured)
    print(f"-> {options.out}")


if __name__ == "__main__":
    main()
