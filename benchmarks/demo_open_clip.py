"""The demo beside open_clip's own training: the same pairs, image tower and minutes, on one machine.

    python3 -m venv /tmp/oc && /tmp/oc/bin/pip install open_clip_torch==3.3.0 webdataset==0.2.86 torch torchvision
    python benchmarks/demo_open_clip.py --open-clip /tmp/oc/bin/python [--minutes 8] [--precision float32] [--isa avx2]

open_clip's side is `open_clip_train.main` with what its README trains with (rate 1e-3, decay 0.1, warm-up), batches of
256, its vocabulary and its text tower of the demo's sizes, on the demo's pairs: drawn from the embedded sets as the
demo's recipe draws, written as WebDataset shards of 5,000 PNGs on white. Its image tower is the demo's where open_clip
has it (a ResNet of four stages), else the ResNet of --layers. A probe of PROBE steps finds how many pairs fit into the
minutes, so that its schedule ends with them. `webdataset` after 0.2.86 fails in its loader.

diptych's side is `diptych demo --minutes M`, and once more with a third of the minutes. Minutes are those of training,
set-up and measuring left out on both sides. Sides alternate, seed by seed; both are measured by zero-shot top-1 on the
style that neither saw, with the set's own prompts. --isa avx2 holds both to what a plain machine has. Runs that are in
--work are not run again. Writes results/demo_open_clip.json.
"""

import argparse
import dataclasses
import datetime
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import history
from diptych.cli.demo import RECIPE
from diptych.config import from_dict, read_toml
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.images import open_image
from diptych.measures.binomial import clopper_pearson
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.pairs.samples import captions_of
from diptych.pairs.sources import open_pairs
from diptych.runtime import hardware
from diptych.sets.open import read_labelled
from diptych.train.recipe import TrainRecipe

PAIRS, SHARD, BATCH, PROBE = 100_000, 5_000, 256, 60
MODEL = "demo-peer"
DRIVER = Path(__file__).parent / "open_clip_driver.py"
PLAIN = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open-clip", type=Path, required=True, help="a Python that has it")
    parser.add_argument("--work", type=Path, default=Path("runs/demo-open-clip"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--layers", type=int, nargs=4, default=[1, 1, 1, 1])
    parser.add_argument("--isa", choices=("", "avx2"), default="")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "demo_open_clip.json")
    options = parser.parse_args()
    work = options.work.resolve()
    environment = {**os.environ, **(PLAIN if options.isa == "avx2" else {})}
    pictures = write_test_set(work / "test")
    shards = write_shards(work / "shards")
    config = write_model(work, options.layers)
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        where = work / f"{options.minutes} minutes, {options.precision} {options.isa}".strip() / f"seed {seed}"
        sides: tuple[dict[str, Any], ...] = (
            {"side": "open_clip"} | open_clip(where / "open_clip", seed, shards, config, options, environment),
            {"side": "diptych"} | diptych(where / "diptych", seed, options.minutes, options, environment),
            {"side": "diptych, a third"} | diptych(where / "third", seed, options.minutes / 3, options, environment),
        )
        for row in sides:
            rows.append({"seed": seed, **row, **interval_of(float(row["top-1"]), pictures)})
            print(json.dumps(rows[-1]), flush=True)
    keep(options, rows)


def demo_recipe() -> TrainRecipe:
    return from_dict(TrainRecipe, read_toml(RECIPE))


def write_shards(folder: Path) -> Path:
    """Pairs as the demo draws them, without its augmentation; open_clip crops for itself."""
    if not folder.exists():
        data, rng = demo_recipe().data, np.random.default_rng(0)
        sources = [
            open_pairs(dataclasses.replace(source, path=str(data_path(source.path))), max_bad=0.0)
            for source in data.sources
        ]
        weights = np.array([source.weight for source in data.sources])
        aside = folder.with_suffix(".part")
        for start in range(0, PAIRS, SHARD):
            (aside / "x").parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(aside / f"{start // SHARD:05}.tar", "w") as tar:
                for number in range(start, start + SHARD):
                    pairs = sources[int(rng.choice(len(sources), p=weights / weights.sum()))]
                    sample = pairs[int(rng.integers(len(pairs)))]
                    captions = captions_of(sample)
                    is_first = len(captions) == 1 or rng.random() < data.first_caption
                    caption = captions[0] if is_first else captions[1 + int(rng.integers(len(captions) - 1))]
                    assert sample.picture is not None
                    for ending, content in (("png", png(sample.picture)), ("txt", caption.encode())):
                        info = tarfile.TarInfo(f"{number:08}.{ending}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
        aside.rename(folder)
    return folder


def png(picture: bytes | Path) -> bytes:
    buffer = io.BytesIO()
    open_image(picture).save(buffer, "png")
    return buffer.getvalue()


def write_test_set(folder: Path) -> int:
    """The held-out style as files, its names and its prompts; how many pictures."""
    data = read_labelled(data_path(HELD_OUT))
    if not (folder / "labels.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(len(data)):
            data.open(number).save(folder / f"{number}.png")
        told = {"names": data.classnames, "templates": data.templates, "targets": data.targets.tolist()}
        (folder / "labels.json").write_text(json.dumps(told), encoding="utf-8")
    return len(data)


def write_model(work: Path, layers: Sequence[int]) -> Path:
    """The demo's sizes, as open_clip's configs have them; its name is that of the file."""
    model = demo_recipe().model
    image, text = model.image, model.text
    assert isinstance(image, ResNetTowerConfig)
    assert isinstance(text, TextTowerConfig)
    config = {
        "embed_dim": model.embed_dim,
        "quick_gelu": True,
        "vision_cfg": {"image_size": image.image_size, "layers": list(layers), "width": image.width},
        "text_cfg": {"context_length": text.context_length, "vocab_size": 49_408, "width": text.width,
                     "heads": text.heads, "layers": text.layers},
    }  # fmt: skip
    (work / f"{MODEL}.json").write_text(json.dumps(config), encoding="utf-8")
    return work / f"{MODEL}.json"


def open_clip(
    out: Path, seed: int, shards: Path, config: Path, options: argparse.Namespace, environment: dict[str, str]
) -> dict[str, Any]:
    """A probe, then as many pairs as fit; both are its own `main`."""

    def train(name: str, steps: int) -> float:
        words = [
            "--train-data", f"{shards}/{{00000..{PAIRS // SHARD - 1:05}}}.tar", "--dataset-type", "webdataset",
            "--train-num-samples", str(steps * BATCH), "--model", MODEL, "--batch-size", str(BATCH), "--epochs", "1",
            "--lr", "1e-3", "--wd", "0.1", "--warmup", str(min(100, steps // 10)), "--workers", "1",
            "--seed", str(seed), "--device", "cpu",
            "--precision", {"float32": "fp32", "bfloat16": "amp_bf16"}[options.precision],
            "--logs", str(out), "--name", name, "--log-every-n-steps", "10",
        ]  # fmt: skip
        _in_open_clip(options, {"job": "train", "config": str(config), "words": words}, environment)
        return seconds_of((out / name / "out.log").read_text(encoding="utf-8"))

    checkpoint = out / "whole" / "checkpoints" / "epoch_1.pt"
    if not checkpoint.exists():
        shutil.rmtree(out, ignore_errors=True)
        pace = train("probe", PROBE) / PROBE  # seconds a step
        steps = max(1, round(60 * options.minutes / pace))
        (out / "seconds.json").write_text(json.dumps({"steps": steps, "seconds": train("whole", steps)}))
    told = json.loads((out / "seconds.json").read_text())
    asked = {"job": "measure", "config": str(config), "model": MODEL, "checkpoint": str(checkpoint),
             "test": str(options.work.resolve() / "test")}  # fmt: skip
    measured = json.loads(_in_open_clip(options, asked, environment))
    return {"pairs": told["steps"] * BATCH, "minutes": round(told["seconds"] / 60, 2), **measured}


def seconds_of(log: str) -> float:
    """From the first step of training to the last, by the times that open_clip writes before its lines."""
    times = [
        datetime.datetime.strptime(line[:19], "%Y-%m-%d,%H:%M:%S").replace(tzinfo=datetime.UTC)
        for line in log.splitlines()
        if re.search(r"Start epoch|Train Epoch: 0", line)
    ]
    return (times[-1] - times[0]).total_seconds()


def _in_open_clip(options: argparse.Namespace, asked: dict[str, Any], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(options.open_clip), str(DRIVER)],
        input=json.dumps(asked), text=True, check=True, env=environment, stdout=subprocess.PIPE, timeout=3 * 3600,
    )  # fmt: skip
    return done.stdout


def diptych(
    out: Path, seed: int, minutes: float, options: argparse.Namespace, environment: dict[str, str]
) -> dict[str, Any]:
    """The demo as a newcomer has it, but for seed and type of number."""
    if not (out / "results.json").exists():
        settings = [f"seed={seed}", f"train.precision={options.precision}", "train.evaluate_every=0"]
        words = [word for one in settings for word in ("--set", one)]
        command = [sys.executable, "-m", "diptych", "demo", "--out", str(out), "--minutes", str(minutes), *words]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=3 * 3600)
    told = json.loads((out / "results.json").read_text(encoding="utf-8"))
    minutes = round(told["train_seconds"] / 60, 2)
    return {"pairs": told["pairs_seen"], "minutes": minutes, "top-1": told["top1"], "top-5": told["top5"]}


def interval_of(top1: float, pictures: int) -> dict[str, float]:
    interval = clopper_pearson(round(top1 * pictures), pictures)
    return {"low": round(interval.low, 4), "high": round(interval.high, 4)}


def keep(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, in place of earlier ones of the same conditions."""
    conditions = {"precision": options.precision, "isa": options.isa, "asked minutes": options.minutes}
    keys = ("side", "seed", *conditions)
    rows = [{**conditions, **row} for row in rows]
    there = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.is_file() else []
    kept = [old for old in there if all(any(old[key] != row[key] for key in keys) for row in rows)]
    result = {
        "what": "zero-shot top-1 on the unseen style, 95 % intervals over its pictures",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instructions": history.instruction_sets(),
        "rows": [*kept, *rows],
    }
    history.write(options.out, result, keys=keys, measured={"rows": rows})


if __name__ == "__main__":
    main()
