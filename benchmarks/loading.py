"""Opening a ViT-B/32: time and memory of `diptych.load` beside peers, each in a process of its own.

    python benchmarks/loading.py       (Linux; writes 1.8 GB where temporary files go)

`safetensors.torch.load_file` maps a file and reads none of its values: its time is that of a header. So the time
until every value was touched once is measured, too, with the file in the page cache and without.
Writes results/loading.json.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from torch import Tensor

import diptych
import history
from diptych.data.images import Preprocess
from diptych.data.tokenizer import CLIP_MERGES, Tokenizer
from diptych.files import write_json
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import hardware
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.registry import load_in_torch

MODEL, SEED, ROUNDS = "ViT-B-32", 0, 5
ALONE = "safetensors.torch.load_file"
# What opens it, which file holds the weights, and how their tensors are got.
WAYS: dict[str, tuple[str, Callable[[Path], Iterable[Tensor]]]] = {
    ALONE: ("transformers/model.safetensors", lambda file: safetensors.torch.load_file(file).values()),
    "transformers.CLIPModel, its folder": (
        "transformers/model.safetensors",
        lambda file: transformers.CLIPModel.from_pretrained(file.parent).parameters(),
    ),
    "diptych.load, transformers folder": (
        "transformers/model.safetensors",
        lambda file: load_in_torch(file.parent).model.parameters(),
    ),
    "diptych.load, open_clip file": (
        "open_clip/open_clip_model.safetensors",
        lambda file: diptych.load(
            file, engine="torch", activation="quick_gelu", tokenizer=file.parent
        ).model.parameters(),
    ),
    "diptych.load, bundle": (
        "bundle/model.safetensors",
        lambda file: load_in_torch(file.parent).model.parameters(),
    ),
    "Bundle.load(verify=False), bundle": (
        "bundle/model.safetensors",
        lambda file: Bundle.load(file.parent, verify=False).model.parameters(),
    ),
}


def write_models(root: Path) -> None:
    """The same random weights in three layouts."""
    merges = root / "merges.txt"
    merges.write_text("\n".join(made_up_merges()) + "\n", encoding="utf-8")
    bundle = Bundle(
        model=CLIP(preset(MODEL), generator(SEED)).eval(),
        preprocess=Preprocess(image_size=preset(MODEL).image.image_size),
        tokenizer=Tokenizer.from_merges(merges),
    )
    bundle.save(root / "bundle")
    bundle.save(root / "open_clip", layout="open_clip")
    shutil.copytree(root / "bundle", root / "transformers")
    config = json.loads((root / "bundle" / "config.json").read_text())
    write_json(root / "transformers" / "config.json", {key: config[key] for key in config if key != "diptych"})


def made_up_merges() -> list[str]:
    """As many merges as CLIP has, so that reading them takes as long; they mean nothing."""
    symbols, merges = [chr(ord("a") + i) for i in range(26)], []
    made = set(symbols)
    for first in symbols:
        for second in symbols[:26]:
            if len(merges) == CLIP_MERGES:
                return merges
            if first + second not in made:
                made.add(first + second)
                symbols.append(first + second)  # the outer loop comes to it later
                merges.append(f"{first} {second}")
    raise AssertionError("there are always more")


def measure(way: str, root: Path, *, cached: bool) -> dict[str, float]:
    """Open a model once, in this process; then touch every value."""
    place, open_ = WAYS[way]
    file = root / place
    if not cached:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    torch.ones(64, 64) @ torch.ones(64, 64)  # the threads of torch
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = memory()
    start = time.perf_counter()
    tensors = list(open_(file))
    opened_in = time.perf_counter() - start
    after = memory()
    total = sum(tensor.sum() for tensor in tensors)
    touched_in = time.perf_counter() - start
    assert torch.isfinite(torch.as_tensor(total))
    touched, size = memory(), file.stat().st_size
    return {
        "milliseconds": 1000 * opened_in,
        "milliseconds_touched": 1000 * touched_in,
        "anonymous_after/file": (after["RssAnon"] - before["RssAnon"]) / size,
        "peak/file": (after["VmHWM"] - before["VmRSS"]) / size,
        "peak_touched/file": (touched["VmHWM"] - before["VmRSS"]) / size,
    }


def memory() -> dict[str, int]:
    """Bytes of this process that are in memory: all, anonymous, and the peak of all."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: 1024 * int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon", "VmHWM")}


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(f"{statistics.median(run[key] for run in runs):.3g}") for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--once", nargs=3, metavar=("WAY", "ROOT", "CACHED"), help="what a process of its own does")
    arguments = parser.parse_args()
    if arguments.once:
        way, root, cached = arguments.once
        print(json.dumps(measure(way, Path(root), cached=cached == "cached")))
        return
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as root:
        write_models(Path(root))
        os.sync()  # only what is on the disk can be dropped from the page cache
        for round_ in range(ROUNDS + 1):
            for cache in ("cached", "dropped"):
                for way in WAYS:
                    command = [sys.executable, __file__, "--once", way, root, cache]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    if round_:  # the first one fills the page cache
                        runs.setdefault((way, cache), []).append(json.loads(done.stdout))
    rows: list[dict[str, Any]] = []
    for (way, cache), found in runs.items():
        alone = runs[ALONE, cache]
        row = {"way": way, "page cache": cache, **medians(found)}
        for key in ("milliseconds", "milliseconds_touched"):
            ratios = [one[key] / other[key] for one, other in zip(found, alone, strict=True)]
            row[f"{key}/{ALONE}"] = round(statistics.median(ratios), 2)
        rows.append(row)
    result = {
        "what": f"{MODEL}, random float32 weights, 605 MB; medians; ratios of the same round; /file: of its size",
        "n": ROUNDS,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": rows,
    }
    history.write(history.RESULTS / "loading.json", result, keys=("way", "page cache"))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
