"""The demo beside open_clip's own training: the same pairs, image tower and minutes, on one machine.

    python3 -m venv /tmp/oc && /tmp/oc/bin/pip install open_clip_torch==3.3.0 webdataset==0.2.86 torch torchvision
    python benchmarks/demo_open_clip.py --open-clip /tmp/oc/bin/python [--minutes 8] [--isa avx2]
    python benchmarks/demo_open_clip.py --open-clip /tmp/oc/bin/python --pace                # on a quiet machine
    OMP_NUM_THREADS=1 python benchmarks/demo_open_clip.py --open-clip /tmp/oc/bin/python     # its runs, on any

open_clip's side is `open_clip_train.main` with what its README trains with (rate 1e-3, decay 0.1, warm-up), batches of
256, its vocabulary and its text tower of the demo's sizes, on the demo's pairs: drawn from the embedded sets as the
demo's recipe draws, written as WebDataset shards of 5,000 PNGs on white. Its image tower is the demo's where open_clip
has it (a ResNet of four stages), else the ResNet of --layers. Of float32 and bfloat16 it has whichever is faster here.
`webdataset` after 0.2.86 fails in its loader. diptych's side is `diptych demo`.

First the pace: PROBE steps of each, with all cores, that alternate ROUNDS times; the median. Then each is trained for
as many steps as fit into the minutes at its pace (and diptych once more for a third of them), so that its schedule ends
with them. Neither set-up nor measuring counts. How a machine is loaded in that second part changes nothing. Both are
measured by zero-shot top-1 on the style that neither saw, with the set's own prompts. --isa avx2 holds both to what a
plain machine has. What is in --work is not run again. Writes results/demo_open_clip.json.
"""

import argparse
import dataclasses
import datetime
import io
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
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
from diptych.runtime import hardware, instruction_sets
from diptych.sets.open import read_labelled
from diptych.train.log import read_log
from diptych.train.recipe import TrainRecipe

PAIRS, SHARD, BATCH, PROBE, ROUNDS = 100_000, 5_000, 256, 80, 3
SIDES = ("open_clip", "diptych", "diptych, a third")
MODEL = "demo-peer"
DRIVER = Path(__file__).parent / "open_clip_driver.py"
PLAIN = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open-clip", type=Path, required=True, help="a Python that has it")
    parser.add_argument("--work", type=Path, default=Path("runs/demo-open-clip"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--layers", type=int, nargs=4, default=[1, 1, 1, 1])
    parser.add_argument("--isa", choices=("", "avx2"), default="")
    parser.add_argument("--pace", action="store_true", help="only that")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--out", type=Path, default=history.RESULTS / "demo_open_clip.json")
    options = parser.parse_args()
    work = options.work.resolve()
    peer = OpenClip(
        python=options.open_clip,
        shards=write_shards(work / "shards"),
        config=write_model(work, options.layers),
        test=work / "test",
        environment={**os.environ, **(PLAIN if options.isa == "avx2" else {})},
    )
    pictures = write_test_set(peer.test)
    where = work / (options.isa or "its own")
    pace = _kept(where / "pace.json", lambda: paces(where / "pace", peer, is_plain=options.isa == "avx2"))
    print(json.dumps(pace), flush=True)
    if options.pace:
        return
    rows: list[dict[str, Any]] = []
    precision = min(("float32", "bfloat16"), key=lambda one: pace[f"open_clip, {one}"])
    course = {
        "open_clip": options.minutes * 60 / pace[f"open_clip, {precision}"],
        "diptych": options.minutes * 60 / pace["diptych"],
        "diptych, a third": options.minutes * 20 / pace["diptych"],
    }
    for seed in options.seeds:
        for side in options.sides:
            fits = course[side]
            steps = fits if side == "open_clip" else min(fits, demo_recipe().train.steps)
            out = where / f"{side}, {round(steps)} steps, seed {seed}"
            if side == "open_clip":
                measured = _kept(out / "top.json", lambda: peer.top(out, seed, round(steps), precision))  # noqa: B023
            else:
                demo(out, seed, round(steps), peer.environment, is_plain=options.isa == "avx2")
                told = json.loads((out / "results.json").read_text(encoding="utf-8"))
                measured = {"top-1": told["top1"], "top-5": told["top5"]}
            row = {"side": side, "seed": seed, "pairs": round(steps) * BATCH}
            row |= {"minutes": round(options.minutes * steps / fits / (3 if "third" in side else 1), 2), **measured}
            rows.append(row | interval_of(float(measured["top-1"]), pictures))
            print(json.dumps(rows[-1]), flush=True)
    keep(options, pace, rows)


def _kept(path: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What is measured, or what was."""
    if not path.exists():
        measured = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measured), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def paces(where: Path, peer: "OpenClip", *, is_plain: bool) -> dict[str, float]:
    """Seconds a step, by side and by open_clip's precision."""
    seconds: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for precision in ("float32",) if is_plain else ("float32", "bfloat16"):
            log = peer.train(where / "open_clip", f"{precision} {number}", 0, PROBE, precision)
            seconds.setdefault(f"open_clip, {precision}", []).append(seconds_a_step(log))
        log = demo(where / f"diptych {number}", 0, PROBE, peer.environment, is_plain=is_plain)
        seconds.setdefault("diptych", []).append(seconds_a_step(log))
        print(json.dumps(seconds), flush=True)
    return {"open_clip, bfloat16": math.inf} | {side: statistics.median(some) for side, some in seconds.items()}


def seconds_a_step(times: Sequence[tuple[int, float]]) -> float:
    """From the first line of a log to its last, so that starting is left out."""
    (first, start), (last, end) = times[0], times[-1]
    return (end - start) / (last - first)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenClip:
    """open_clip's own `main`, and its own way to classify, in its own environment."""

    python: Path
    shards: Path
    config: Path
    test: Path
    environment: dict[str, str]

    def train(self, out: Path, name: str, seed: int, steps: int, precision: str) -> list[tuple[int, float]]:
        """Steps and seconds of its log."""
        words = [
            "--train-data", f"{self.shards}/{{00000..{PAIRS // SHARD - 1:05}}}.tar", "--dataset-type", "webdataset",
            "--train-num-samples", str(steps * BATCH), "--model", MODEL, "--batch-size", str(BATCH), "--epochs", "1",
            "--lr", "1e-3", "--wd", "0.1", "--warmup", str(min(100, steps // 10)), "--workers", "1",
            "--seed", str(seed), "--device", "cpu",
            "--precision", {"float32": "fp32", "bfloat16": "amp_bf16"}[precision],
            "--logs", str(out), "--name", name, "--log-every-n-steps", "10",
        ]  # fmt: skip
        shutil.rmtree(out / name, ignore_errors=True)
        self._ask({"job": "train", "config": str(self.config), "words": words})
        log = (out / name / "out.log").read_text(encoding="utf-8")
        return [
            (int(line[2]) // BATCH, datetime.datetime.strptime(line[1], "%Y-%m-%d,%H:%M:%S").timestamp())
            for line in re.finditer(r"(?m)^(\S+) .*Train Epoch: 0 \[ *(\d+)/", log)
        ]

    def top(self, out: Path, seed: int, steps: int, precision: str) -> dict[str, float]:
        self.train(out, "whole", seed, steps, precision)
        checkpoint = out / "whole" / "checkpoints" / "epoch_1.pt"
        asked = {"job": "measure", "config": str(self.config), "model": MODEL, "checkpoint": str(checkpoint)}
        return json.loads(self._ask(asked | {"test": str(self.test)}))

    def _ask(self, asked: dict[str, Any]) -> str:
        done = subprocess.run(
            [str(self.python), str(DRIVER)],
            input=json.dumps(asked), text=True, check=True, env=self.environment, stdout=subprocess.PIPE,
            timeout=3 * 3600,
        )  # fmt: skip
        return done.stdout


def demo(out: Path, seed: int, steps: int, environment: dict[str, str], *, is_plain: bool) -> list[tuple[int, float]]:
    """The demo as a newcomer has it, but for its seed and steps; steps and seconds of its log."""
    if not (out / "results.json").exists():
        settings = [f"seed={seed}", f"train.steps={steps}", "train.evaluate_every=0"]
        settings += ["train.precision=float32"] if is_plain else []
        words = [word for one in settings for word in ("--set", one)]
        command = [sys.executable, "-m", "diptych", "demo", "--out", str(out), "--minutes", "600", *words]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=3 * 3600)
    return [(line["step"], line["seconds"]) for line in read_log(out / "log.jsonl") if "loss" in line]


def interval_of(top1: float, pictures: int) -> dict[str, float]:
    interval = clopper_pearson(round(top1 * pictures), pictures)
    return {"low": round(interval.low, 4), "high": round(interval.high, 4)}


def keep(options: argparse.Namespace, pace: dict[str, float], rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, in place of earlier ones of the same conditions."""
    conditions = {"isa": options.isa or "its own", "asked minutes": options.minutes}
    keys = ("side", "seed", *conditions)
    rows = [{**conditions, **row} for row in rows]
    there = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"rows": [], "pace": {}}
    kept = [old for old in there["rows"] if all(any(old[key] != row[key] for key in keys) for row in rows)]
    result = {
        "what": "zero-shot top-1 on the unseen style, 95 % intervals over its pictures",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instructions": instruction_sets(),
        "pace": there["pace"] | {conditions["isa"]: {side: step for side, step in pace.items() if step < math.inf}},
        "rows": [*kept, *rows],
    }
    history.write(options.out, result, keys=keys, measured={"rows": rows})


if __name__ == "__main__":
    main()
