"""What each setting brings the demo, on an art style that stands in for the one it is measured on.

    python benchmarks/demo_ablation.py --variants demo adamw --steps 500 --seeds 0 1 2
    python benchmarks/demo_ablation.py --variants demo adamw --seconds 900       # of processor: equal time

Settings are chosen here, so that Twemoji is looked at once they are chosen. Left out of training is Emoji One
(`emojione`), drawn flat and in colour as Twemoji is; with it go its drawings in one colour (`emojione-monotone`) and
near copies of them in other sets, flags most of all, by the rule of recipes/build_pictograms.py. Names are those of
its pictures. Runs alternate: all variants with one seed, then with the next. `--seconds` counts seconds of processor,
of all threads, which hardly depend on what else the machine does; how many steps they buy is measured in a run of
SHORT and one of LONG steps first. Writes results/demo_ablation.json, rows of earlier runs included.
"""

import argparse
import datetime
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import history
from diptych.cli.demo import RECIPE
from diptych.config import from_dict, read_toml, to_toml
from diptych.data.embedded import data_path
from diptych.data.images import open_image
from diptych.measures.binomial import clopper_pearson
from diptych.pairs.samples import Sample, captions_of
from diptych.pairs.shards import ShardWriter
from diptych.pairs.sources import Pairs, Source, open_pairs
from diptych.runtime import hardware
from diptych.sets.writer import write_labelled
from diptych.train.recipe import TrainRecipe

STYLE, SAME_DRAWINGS = "emojione", ("emojione-monotone",)
NEAR_COPY = 0.97  # correlation of 16 x 16 pixels
SHORT, LONG = 10, 40  # steps of the two runs that tell what a step costs

ADAMW = ["train.optimizer=adamw", "train.orthogonal_every=1"]
FOUR_STAGES = ["model.image.layers=[1,1,1,1]"]
CAPTIONS = ["data.first_caption=0.9"]  # tags as well, of one pair in ten
NO_STYLES = ["data.augment.tone=0", "data.augment.posterize=0", "data.augment.lines=0"]
PAIRS_ALONE = ['train.objectives=[{kind="contrastive"}]']
VARIANTS: dict[str, list[str]] = {
    "demo": [],
    # Without one of its parts, and without all of them.
    "adamw": ADAMW,
    "four stages": FOUR_STAGES,
    "tags as captions": CAPTIONS,
    "styles as they are": NO_STYLES,
    "pairs alone": PAIRS_ALONE,
    "as it was": [*ADAMW, *FOUR_STAGES, *CAPTIONS, *NO_STYLES, *PAIRS_ALONE],
    # Otherwise.
    "muon at every step": ["train.orthogonal_every=1"],
    "muon at every third step": ["train.orthogonal_every=3"],
    "rate 3e-3": ["train.learning_rate=3e-3"],
    "batches of 512": ["train.batch_size=512"],
    "averaged weights": ["train.ema_decay=0.99"],
    "weaker styles": ["data.augment.tone=0.4", "data.augment.posterize=0.2", "data.augment.lines=0.05"],
    "margin": ["data.augment.margin=0.2"],
    "larger crops away": ["data.augment.crop_scale=[0.6,1.0]"],
    "more rotation": ["data.augment.rotate=15.0", "data.augment.shear=8.0", "data.augment.translate=0.08"],
    "words as much": ['train.objectives=[{kind="contrastive"},{kind="bag-of-words",weight=1.0}]'],
    "bag of words as text tower": ['model.text={kind="bag-of-words",context_length=32,vocab_size=4096}'],
    "blocks 1 1 1": ["model.image.layers=[1,1,1]"],
    "blocks 1 1 3": ["model.image.layers=[1,1,3]"],
    "blocks 1 2 2": ["model.image.layers=[1,2,2]"],
}


def thumbnail(image: Image.Image) -> np.ndarray:
    """[768] float32 of zero mean and unit length: the dot product of two is their correlation."""
    pixels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.float32)
    small = pixels.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)).reshape(-1)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def samples(name: str) -> Iterator[Sample]:
    pairs: Pairs = open_pairs(Source(path=str(data_path(name))), max_bad=0.0)
    for index in range(len(pairs)):
        yield pairs[index]


def picture(sample: Sample) -> Image.Image:
    assert sample.picture is not None
    return open_image(sample.picture)


def leave_out(folder: Path) -> dict[str, int]:
    """Write the embedded pairs without one style, and that style as a labelled set; how many of each."""
    sets = {name: list(samples(f"embedded:{name}")) for name in ("emoji", "icons")}
    held_out = sorted((s for s in sets["emoji"] if s.key.split("/")[0] == STYLE), key=lambda s: s.key)
    names = [captions_of(sample)[0] for sample in held_out]
    classes = {name: number for number, name in enumerate(sorted(set(names)))}
    rows = [(s.key.replace("/", "-"), picture(s), classes[name]) for s, name in zip(held_out, names, strict=True)]
    write_labelled(folder / STYLE, list(classes), {"test": rows}, templates=["{}"], about="Left out of training.")
    copies = np.stack([thumbnail(image) for _, image, _ in rows])  # [N, 768]
    counts = {"pictures": len(rows), "names": len(classes)}
    for name, found in sets.items():
        with ShardWriter(folder / name) as writer:
            kept = [s for s in found if s.key.split("/")[0] not in (STYLE, *SAME_DRAWINGS)]
            kept = [s for s in kept if (copies @ thumbnail(picture(s))).max() < NEAR_COPY]
            for sample in kept:
                writer.add(sample.key, sample.parts)
        counts[name] = len(kept)
    return counts


def recipe_of(folder: Path) -> Path:
    """The demo's recipe with those pairs, measured once, at its end."""
    recipe = read_toml(RECIPE)
    for source in recipe["data"]["sources"]:
        source["path"] = str(folder / source["path"].removeprefix("embedded:"))
    recipe["evaluate"] = [str(folder / STYLE)]
    recipe["train"] |= {"evaluate_every": 0, "checkpoint_every": 10**6}
    path = folder / "demo.toml"
    path.write_text(to_toml(from_dict(TrainRecipe, recipe)), encoding="utf-8")
    return path


def run(recipe: Path, out: Path, options: Sequence[str]) -> dict[str, Any]:
    """One run in a process of its own: what it came to, and its seconds of processor."""
    shutil.rmtree(out, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    settings = [word for option in options for word in ("--set", option)]
    command = [sys.executable, "-m", "diptych", "train", str(recipe), "--out", str(out), *settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=4 * 3600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    return json.loads((out / "results.json").read_text(encoding="utf-8")) | {"processor_seconds": spent}


def steps_within(seconds: float, recipe: Path, out: Path, options: Sequence[str]) -> int:
    short, long = (run(recipe, out, [*options, f"train.steps={steps}"])["processor_seconds"] for steps in (SHORT, LONG))
    step = (long - short) / (LONG - SHORT)
    return max(1, round((seconds - (short - SHORT * step)) / step))


def measure(name: str, seed: int, recipe: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    settings = [*VARIANTS[name], *options.set, f"seed={seed}"]
    steps = options.steps or steps_within(options.seconds, recipe, out, settings)
    result = run(recipe, out, [*settings, f"train.steps={steps}"])
    top1, pictures = result["metrics"][f"{STYLE}/top1"], options.counts["pictures"]
    interval = clopper_pearson(round(top1 * pictures), pictures)
    return {
        "variant": name,
        "options": [*VARIANTS[name], *options.set],
        "seed": seed,
        "steps": steps,
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "top-1": top1,
        "top-5": result["metrics"][f"{STYLE}/top5"],
        "low": interval.low,
        "high": interval.high,
        "pairs": result["counts"]["pairs"],
        "processor_seconds": round(result["processor_seconds"], 1),
        "seconds": result["counts"]["train_seconds"],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=0, help="of each run")
    parser.add_argument("--seconds", type=float, default=0.0, help="of processor, of each run")
    parser.add_argument("--set", action="append", default=[], help="an option for all variants")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "demo_ablation.json")
    options = parser.parse_args()
    if bool(options.steps) == bool(options.seconds):
        parser.error("one of --steps and --seconds must be given")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options.counts = leave_out(folder)
        recipe = recipe_of(folder)
        for seed in options.seeds:
            for variant in options.variants:
                row = measure(variant, seed, recipe, folder / "run", options)
                print(json.dumps(row), flush=True)
                keep(options.out, row, options.counts)


def keep(out: Path, row: dict[str, Any], counts: dict[str, int]) -> None:
    """Add a row, in place of an earlier one of the same conditions."""
    keys = ("variant", "seed", "steps", "options", "threads")
    there = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
    rows = [other for other in there if any(other[key] != row[key] for key in keys)]
    result = {
        "what": f"zero-shot top-1 on {STYLE}, left out of training; 95 % intervals over its pictures",
        "set": counts,
        "hardware": hardware(),
        "rows": [*rows, row],
    }
    history.write(out, result, keys=("variant", "seed", "steps", "threads"), measured={"rows": [row]})


if __name__ == "__main__":
    main()
