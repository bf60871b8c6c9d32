"""CLIP's figure 2 again: how many pairs, and how many processor seconds, each objective needs to come as far.

    python benchmarks/objectives.py                                       # 256,000 pairs, 3 seeds: hours on two cores
    python benchmarks/objectives.py --pairs 2000 --batch 100 --seeds 2 --points 2 --scored 16 --out /tmp/small.json

Same image tower, same pairs in the same order, same augmentation, same rate; what differs is the objective, and the
text tower that it needs. Measured is zero-shot accuracy on a drawing style that nobody trained on. A captioner reads
each name anew for each picture, so it is measured on a part of them.

Pairs to an accuracy: the accuracy that all objectives come to with all seeds; for each seed the pairs at which its
curve first passes it, between two measurements by the logarithm of the pairs; the ratio to the objective that needs
most, by seeds of one number, their geometric mean and its 95 % interval by Student's t. An objective that stays within
what chance does is named as such. Scale counts: CLIP's 3 and 4 times were found with 63 M parameters of text tower and
400 M pairs.

A run that is done is not done again. Writes results/objectives.json, a line of its history, and objectives.svg beside
it.
"""

import argparse
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import history
from diptych.config import from_dict
from diptych.data.embedded import data_path
from diptych.eval.head_accuracy import head_accuracy
from diptych.eval.measure import evaluate_zero_shot
from diptych.files import write_json
from diptych.measures.binomial import clopper_pearson
from diptych.runtime import hardware
from diptych.sets.open import read_labelled
from diptych.train.log import read_log
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train

HELD_OUT = "embedded:twemoji"
BAG = {"kind": "bag-of-words"}
TRANSFORMER = {"kind": "clip", "width": 128, "layers": 2, "heads": 2}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "caption": ({"kind": "caption", "width": 128, "layers": 2, "heads": 2}, BAG),
    "bag-of-words": ({"kind": "bag-of-words"}, BAG),
    "classification": ({"kind": "classification"}, BAG),
    "contrastive, bag of words": ({"kind": "contrastive"}, BAG),
    "contrastive, transformer": ({"kind": "contrastive"}, TRANSFORMER),
}
_STUDENT = {1: math.inf, 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % of Student's t, by the number of seeds


def recipe_of(way: str, seed: int, options: argparse.Namespace) -> TrainRecipe:
    objective, text = WAYS[way]
    steps = options.pairs // options.batch
    side = 32
    return from_dict(
        TrainRecipe,
        {
            "name": way,
            "seed": seed,
            "tokenizer": {"vocab_size": 4096},
            "preprocess": {"image_size": side},
            "model": {
                "embed_dim": 256,
                "image": {"kind": "resnet", "image_size": side, "width": 16, "layers": [1, 1, 1, 1], "heads": 8},
                "text": {"context_length": 32, "vocab_size": 4096, **text},
            },
            "data": {
                "first_caption": 0.9,
                "sources": [{"path": "embedded:emoji", "weight": 9.0}, {"path": "embedded:icons", "weight": 1.0}],
                "augment": {"crop_scale": [0.7, 1.0], "color": 0.2},
            },
            "train": {
                "steps": steps,
                "batch_size": options.batch,
                "learning_rate": 2e-3,
                "warmup_steps": min(100, steps // 10),
                "precision": "float32",
                "evaluate_every": max(1, steps // options.points),
                "checkpoint_every": steps,
                "objectives": [objective],
            },
        },
    )


def run(way: str, seed: int, options: argparse.Namespace) -> list[dict[str, float]]:
    """One training: pairs, processor seconds of training, and accuracy at each measurement."""
    data = read_labelled(data_path(HELD_OUT))
    is_caption = way == "caption"
    clock = {"start": time.process_time(), "measuring": 0.0}
    seconds: list[float] = []

    def measured(measure: Any) -> dict[str, float]:
        before = time.process_time()
        seconds.append(before - clock["start"] - clock["measuring"])
        numbers = measure()
        clock["measuring"] += time.process_time() - before
        return numbers

    with tempfile.TemporaryDirectory() as folder:
        train(
            recipe_of(way, seed, options),
            Path(folder) / "run",
            evaluators={}
            if is_caption
            else {"set": lambda bundle: measured(lambda: {"top1": evaluate_zero_shot(bundle, data).numbers["top-1"]})},
            head_evaluators={"set": lambda scorer: measured(lambda: head_accuracy(scorer, data, most=options.scored))}
            if is_caption
            else {},
        )
        lines = [line for line in read_log(Path(folder) / "run" / "log.jsonl") if any("top1" in key for key in line)]
    pictures = min(options.scored, len(data)) if is_caption else len(data)
    points = []
    for line, spent in zip(lines, seconds, strict=True):
        top1 = next(value for key, value in line.items() if key.endswith("top1"))
        interval = clopper_pearson(round(top1 * pictures), pictures)
        point = {"pairs": line["pairs"], "cpu_seconds": round(spent, 1), "top1": top1}
        points.append(point | {"low": interval.low, "high": interval.high})
    return points


def _kept(way: str, seed: int, options: argparse.Namespace) -> list[dict[str, float]]:
    """One training, or what an earlier one of the same sizes came to."""
    path = options.work / f"{way}, {options.pairs} pairs of {options.batch}, seed {seed}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, run(way, seed, options))
    return json.loads(path.read_text(encoding="utf-8"))


def reached(points: Sequence[Mapping[str, float]], accuracy: float, unit: str) -> float:
    """At how many pairs, or seconds, a curve first passes an accuracy."""
    for before, after in itertools.pairwise(points):
        if before["top1"] < accuracy <= after["top1"]:
            share = (accuracy - before["top1"]) / (after["top1"] - before["top1"])
            start, end = math.log(max(before[unit], 1)), math.log(max(after[unit], 1))
            return math.exp(start + share * (end - start))
    return math.inf


def ratios(curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], unit: str, chance: float) -> dict[str, Any]:
    """What each objective needs of a unit beside the one that needs most, at an accuracy that all of these come to.

    One that with some seed stays within what chance does is named and has no part in it.
    """
    best = {way: [max(points, key=lambda point: point["top1"]) for points in runs] for way, runs in curves.items()}
    at_chance = [way for way, points in best.items() if any(point["low"] <= chance for point in points)]
    curves = {way: runs for way, runs in curves.items() if way not in at_chance}
    found: dict[str, Any] = {"at_chance": at_chance}
    if not curves:
        return found
    common = min(point["top1"] for way in curves for point in best[way])
    needed = {way: [math.log(reached(points, common, unit)) for points in runs] for way, runs in curves.items()}
    slowest = max(needed, key=lambda way: statistics.fmean(needed[way]))
    found |= {"common_accuracy": common, "beside": slowest}
    for way, logs in needed.items():
        gains = [theirs - ours for theirs, ours in zip(needed[slowest], logs, strict=True)]
        mean = statistics.fmean(gains)
        doubt = _STUDENT[len(gains)] * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else math.inf
        bounds = [math.exp(mean - doubt), math.exp(mean + doubt)] if math.isfinite(doubt) else None
        found[way] = {"times_fewer": math.exp(mean), "interval": bounds, "needs": math.exp(statistics.fmean(logs))}
    return found


def plot(curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, (unit, label) in zip(
        panels, (("pairs", "pairs seen"), ("cpu_seconds", "processor seconds")), strict=True
    ):
        for way, runs in curves.items():
            count = min(len(points) for points in runs)
            x = [statistics.fmean(points[n][unit] for points in runs) for n in range(1, count)]
            values = [[100 * points[n]["top1"] for points in runs] for n in range(1, count)]
            (curve,) = axes.plot(x, [statistics.fmean(some) for some in values], marker="o", markersize=3, label=way)
            lows, highs = [min(some) for some in values], [max(some) for some in values]
            axes.fill_between(x, lows, highs, color=curve.get_color(), alpha=0.15, linewidth=0)
        axes.set(xscale="log", xlabel=label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("top-1 on an unseen style, %; shaded: all seeds")
    panels[0].legend(frameon=False)
    figure.savefig(out)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=256_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(_STUDENT))
    parser.add_argument("--points", type=int, default=10, help="measurements on the way")
    parser.add_argument("--scored", type=int, default=200, help="pictures that a captioner is measured on")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--work", type=Path, default=Path("runs/objectives"), help="keeps runs that are done")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "objectives.json")
    options = parser.parse_args()
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for seed in range(options.seeds):  # one seed of each first, so that what else the machine does falls on all
        for way in options.ways:
            curves.setdefault(way, []).append(_kept(way, seed, options))
            last = curves[way][-1][-1]
            print(f"{way}, seed {seed}: {last['top1']:.2%} at {last['pairs']:,} pairs, {last['cpu_seconds']:.0f} CPU s")
    chance = 1 / len(read_labelled(data_path(HELD_OUT)).classnames)
    result = {
        "hardware": hardware(),
        "conditions": {name: value for name, value in vars(options).items() if name not in ("out", "work")}
        | {"held_out": HELD_OUT},
        "curves": [
            {"way": way, "seed": seed, "points": points}
            for way, runs in curves.items()
            for seed, points in enumerate(runs)
        ],
        "pairs": ratios(curves, "pairs", chance),
        "cpu_seconds": ratios(curves, "cpu_seconds", chance),
    }
    history.write(options.out, result, keys=("way", "seed"))
    plot(curves, options.out.with_suffix(".svg"))
    print(f"-> {options.out} and {options.out.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
