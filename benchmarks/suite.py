"""How long a folder of data sets takes with a model of ViT-B/32's size: `diptych evaluate suite`, as a user runs it.

    python benchmarks/suite.py DATA [--sets NAME ...] [--precision auto] [--merges FILE] [--out FILE]

The model has random weights: what it scores means nothing, what it costs does. Three runs, each a process of its own:
the first computes all features, the second finds them stored and fits all probes again into a new folder, the third
finds its results. Then float32 against bfloat16: pictures a second, alternating, and how many predictions differ on the
first labelled set. Writes results/suite.json.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import history
from diptych.classify import class_weights
from diptych.data.embedded import data_path
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import find_sets
from diptych.eval.result import Result
from diptych.eval.result_file import read_results
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.shards import ShardSet
from diptych.runtime import hardware
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle

SEED = 0
ROUNDS, PICTURES = 5, 64  # of the comparison of precisions
PRESET = "ViT-B-32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["all"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--merges", type=Path, help="CLIP's merges; without them a vocabulary is learned from captions")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "suite.json")
    args = parser.parse_args()
    sets = find_sets(args.data, args.sets)
    bundle = random_bundle(args.merges)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        bundle.save(scratch / "model")
        words = ["--data", str(args.data), "--model", str(scratch / "model"), "--precision", args.precision]
        words += ["--cache", str(scratch / "features")] + [word for one in args.sets for word in ("--tasks", one)]
        runs = {
            "first": run([*words, "--out", str(scratch / "first")]),
            "features stored": run([*words, "--out", str(scratch / "second")]),
            "results there": run([*words, "--out", str(scratch / "second")]),
        }
        same = all(
            (scratch / "first" / path.name).read_bytes() == path.read_bytes()
            for path in (scratch / "second").glob("*.json")
        )
        results = list(read_results(scratch / "first")[0].values())
        stored = sum(path.stat().st_size for path in (scratch / "features").iterdir())
    probes = [result.probe for result in results if result.probe]
    encoded = sum(probe.train_examples + probe.validation_examples for probe in probes)
    encoded += sum(pictures(result) for result in results if not result.probe)
    result = {
        "what": f"diptych evaluate suite, {PRESET} with random weights, {len(sets)} sets",
        "sets": [one.name for one in sets],
        "pictures encoded": encoded,
        "precision": results[0].conditions.precision if results[0].conditions else "",
        "seed": SEED,
        "n": 1,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "load average at the end": round(os.getloadavg()[0], 1),
        "runs": runs,
        "results from stored features are the same to the byte": same,
        "stored features, MB": round(stored / 1e6, 1),
        "precisions": precisions(bundle, next(one.folder for one in sets if one.kind == "classification")),
    }
    history.write(args.out, result)
    print(json.dumps(result, indent=2))


def pictures(result: Result) -> int:
    """How many were looked at; retrieval counts captions."""
    return len(result.retrieval.image_to_text.ranks) if result.retrieval else result.n


def random_bundle(merges: Path | None) -> Bundle:
    config = preset(PRESET)
    if merges:
        tokenizer = Tokenizer.from_merges(merges)
    else:
        shards = ShardSet(data_path("embedded:emoji"))
        texts = [shards[i].parts["txt"].decode() for i in range(len(shards))]
        tokenizer = Tokenizer.train(texts, vocab_size=2_000, context_length=config.text.context_length)
    return Bundle(
        model=CLIP(config, generator(SEED)).eval(),
        preprocess=Preprocess(image_size=config.image.image_size),
        tokenizer=tokenizer,
    )


def run(words: list[str]) -> dict[str, Any]:
    """One run as a process: wall and processor seconds, peak memory, and when each measurement was done."""
    command = [sys.executable, "-m", "diptych", "evaluate", "suite", *words]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    parts: dict[str, float] = {}
    before = start
    for line in process.stderr:
        now = time.perf_counter()
        parts[line.split(":")[0].strip()] = round(now - before, 2)
        before = now
        print(f"{now - start:8.1f} s  {line}", end="", flush=True)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}.")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "processor seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak memory, MB": round(usage.ru_maxrss / 1024),
        "seconds by part": parts,  # the first holds the start of the program and the model's loading
    }


def precisions(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Pictures a second in float32 and bfloat16, decoding left out, and what bfloat16 does to a zero-shot result."""
    pixels = np.random.default_rng(SEED).integers(0, 256, (PICTURES, 224, 224, 3), dtype=np.uint8)
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for name in [name for _ in range(ROUNDS + 1) for name in seconds]:
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bfloat16"):
            bundle.encode_pixels_and_trunk(pixels)
        seconds[name].append(time.perf_counter() - start)
    data = read_labelled(folder)
    weights = torch.from_numpy(class_weights(bundle, data.classnames, data.templates or ["{}"]))
    exact = ModelFeatures(bundle).pictures(data).image_features
    fast = ModelFeatures(bundle, precision="bfloat16").pictures(data).image_features
    guesses = [(features @ weights.T).argmax(dim=1) for features in (exact, fast)]
    return {
        "pictures a second": {name: round(PICTURES / statistics.median(some[1:]), 1) for name, some in seconds.items()},
        "float32/bfloat16, seconds, median of rounds": round(
            statistics.median(a / b for a, b in zip(seconds["float32"][1:], seconds["bfloat16"][1:], strict=True)), 2
        ),
        "data": folder.name,
        "lowest cosine of a picture's two features": torch.sum(exact * fast, dim=1).min().item(),
        "predictions that differ": int((guesses[0] != guesses[1]).sum()),
        "of pictures": len(data),
    }


if __name__ == "__main__":
    main()
